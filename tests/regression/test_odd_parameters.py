"""Parameters that are frozen, empty, tapped alone or named by their module's own rule."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.parameters import Parameters
from gradsurgery.solvers import min_norm, nearest_above
from tests.support.models import by_loss
from tests.support.small import F64, Small, x

pytestmark = pytest.mark.quick


def test_parameters_frozen_between_forward_and_backward():
    model, other = Small(), Small()
    for strategy in ("sum", "mgda"):
        for given in (model, None):
            model.zero_grad()
            losses = model.of(model.trunk(x()))
            model.b.requires_grad_(False)
            gs.backward(losses, given, strategy)
            assert model.b.weight.grad is None
            assert model.trunk[0].weight.grad is not None
            model.b.requires_grad_(True)
    rows = by_loss(other.of(other.trunk(x())), list(other.trunk.parameters()))
    expected = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value) @ rows
    assert torch.allclose(
        torch.cat([p.grad.reshape(-1) for p in model.trunk.parameters()]), expected
    )


@pytest.mark.parametrize("bias", [True, False])
def test_low_memory_and_tapped_layers(bias):
    """The bias by which a pass finds its way to a tapped layer was asked for elsewhere, and the
    layer got no gradient.
    """
    found = []
    for settings in ({}, {"memory": "low"}, {"memory": "low", "method": "taps"}):
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {
                "conv": nn.Conv2d(64, 64, 3),
                "wide": nn.Linear(256, 128, bias=bias),
                **{k: nn.Linear(128, 1) for k in "abc"},
            }
        ).double()
        x = torch.randn(4, 64, 4, 4, dtype=F64)
        y = model["wide"](model["conv"](x).flatten(1)).tanh()
        record = gs.backward(
            {k: (model[k](y) - i).pow(2).mean() for i, k in enumerate("abc")},
            model,
            "upgrad",
            **settings,
        )
        found.append(([p.grad for p in model.parameters()], record["a+b+c"].gram))
    for gradients, gram in found[1:]:
        assert np.allclose(gram, found[0][1], rtol=1e-9)
        assert all(
            torch.allclose(a, b, rtol=1e-8, atol=1e-12)
            for a, b in zip(gradients, found[0][0], strict=True)
        )


def test_a_parameter_without_elements_and_low_memory():
    model, empty = (
        nn.Sequential(nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 3)),
        nn.Parameter(torch.empty(0)),
    )
    y = model(torch.randn(2, 4, 10)) + empty.sum()
    gs.backward(
        {"a": y.pow(2).mean(), "b": (y - 1).abs().mean(), "c": y.mean()},
        [*model.parameters(), empty],
        "mgda",
        memory="low",
    )
    assert empty.grad.shape == (0,)


def test_the_gram_of_a_tapped_weight_alone():
    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y.clone()

        @staticmethod
        def backward(ctx, gradient):
            return None

    torch.manual_seed(0)
    layer, before = nn.Linear(6, 3, bias=False).double(), nn.Linear(5, 6).double()
    y = layer(before(torch.randn(4, 5, dtype=F64)))
    groups = {"w": [layer.weight], "before": before}
    record = gs.backward(
        {"a": y.pow(2).sum(), "b": Nothing.apply(y).sum() + before.bias.sum()},
        groups,
        "mgda",
        method="taps",
    )
    assert record["w"].gram == pytest.approx(float(layer.weight.grad.pow(2).sum()))


def test_gradients_kept_for_parameters_met_in_several_steps_are_not_mixed():
    trunk, heads = nn.Linear(4, 3), nn.ModuleDict({n: nn.Linear(3, 1) for n in "ab"})

    def losses(names):
        return {n: heads[n](trunk(torch.ones(2, 4))).pow(2).mean() for n in names}

    for first, clear in (("ab", True), ("b", False)):
        surgery, other = gs.Surgery("moco"), gs.Surgery("moco")
        surgery.backward(losses(first))
        surgery.backward(losses("ab"))
        other.load_state_dict(surgery.state_dict())
        if clear:
            other.backward(losses("ab"))
        else:
            with pytest.raises(gs.InputError, match="in different steps"):
                other.backward(losses("ab"))


def test_floors_without_bound():
    with pytest.raises(gs.InputError, match=r"none of them NaN or \+inf"):
        nearest_above([[2.0, 0.5], [0.5, 1.0]], [1.0, 0.0], [np.inf, -np.inf])


def test_one_name_as_two_kinds():
    state = gs.State()
    for kind in ("vector", "pairs", "scalar"):
        bound = state.bind(("a", "b"))
        getattr(bound, kind)("x")
        bound["x"] = {"vector": [1.0, 2.0], "pairs": [[1.0, 2.0], [3.0, 4.0]], "scalar": 5.0}[kind]
        state.adopt(bound)
    again = gs.State.from_state_dict(state.state_dict())
    assert again.bind(("b", "a")).vector("x").tolist() == [2.0, 1.0]
    assert again.bind(("b", "a")).pairs("x").tolist() == [[4.0, 3.0], [2.0, 1.0]]
    assert again.bind(("b", "a")).scalar("x") == 5.0


def test_modules_with_their_own_idea_of_their_parameters():
    class Fewer(nn.Linear):
        def _named_members(self, *args, **kwargs):
            return (pair for pair in super()._named_members(*args, **kwargs) if pair[0] != "bias")

    layer = nn.Linear(2, 2)
    layer.named_parameters = lambda *args, **kwargs: iter(
        [("only", nn.Linear.__getattr__(layer, "weight"))]
    )
    for model, names in ((Fewer(2, 2), ["weight"]), (layer, ["only"])):
        assert [name for name, _, _ in Parameters(model).named().values()] == names
