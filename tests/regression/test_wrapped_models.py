"""States and models under the names that wrappers give."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.saved import (
    WRAPPERS,
    Two,
    checkpointed,
    compiled,
    compiled_in_part,
    data,
    renamed,
    through_a_file,
    trained,
)

ROWS = ("db-mtl", "moco")  # strategies that keep a gradient per objective and parameter


def next_gradient(strategy, how, state):
    """The gradient of the step after loading, on the model as it was at first."""
    plain = Two()
    model = WRAPPERS[how](plain)
    surgery = gs.Surgery(strategy, model)
    if state is not None:
        surgery.load_state_dict(through_a_file(state))
    surgery.backward(model(data(9)))
    return torch.cat([p.grad.flatten() for p in plain.parameters()])


@pytest.mark.parametrize("strategy", [*ROWS, "metabalance"])
def test_a_state_continues_alike_whatever_wraps_the_model_before_and_after(strategy):
    state = trained(strategy).state_dict()
    want, fresh = next_gradient(strategy, "plain", state), next_gradient(strategy, "plain", None)
    assert not torch.allclose(want, fresh, rtol=1e-2)
    for how in WRAPPERS:
        assert torch.equal(next_gradient(strategy, how, state), want), how
        wrapped = trained(strategy, how).state_dict()
        assert wrapped["reach"] == state["reach"], how
        assert torch.equal(next_gradient(strategy, "plain", wrapped), want), how


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: f"_orig_mod.{n}",
        lambda n: f"module.{n}",
        lambda n: f"module._orig_mod.{n}",
        lambda n: n.replace("trunk.", "trunk._orig_mod."),
        lambda n: f"_fsdp_wrapped_module.{n}".replace(
            "trunk.", "trunk._checkpoint_wrapped_module."
        ),
    ],
)
def test_a_state_that_an_earlier_version_saved_with_wrappers_names_loads(rename):
    state = trained("moco").state_dict()
    want = next_gradient("moco", "plain", state)
    old = renamed(state, rename)
    for how in ("plain", "compile", "in part"):
        assert torch.equal(next_gradient("moco", how, old), want)


def test_layers_wrapped_between_two_steps_keep_their_state():
    gradients = []
    for wrap in (lambda m: m, compiled_in_part, checkpointed):
        model = Two()
        surgery = gs.Surgery("moco", model)
        for seed in range(3):
            surgery.backward(model(data(seed)))
        model.zero_grad()
        parameters = list(model.parameters())
        surgery.backward(wrap(model)(data(3)))
        gradients.append([p.grad for p in parameters])
    assert all(
        torch.equal(x, y)
        for other in gradients[1:]
        for x, y in zip(gradients[0], other, strict=True)
    )


class Nested(nn.Module):
    """Its own parameter and that of its `module` have one name without prefixes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3, 3))
        self.module = nn.Linear(3, 3, bias=False)

    def forward(self, x):
        z = self.module((x @ self.weight).tanh())
        return {"a": z.pow(2).mean(), "b": (z - 1).pow(2).mean()}


@pytest.mark.parametrize(
    "wrap", [compiled, nn.DataParallel, lambda m: nn.DataParallel(compiled(m))]
)
def test_two_parameters_with_one_name_without_prefixes_keep_apart(wrap):
    model, x = Nested(), torch.ones(2, 3)
    surgery = gs.Surgery("moco", model)
    surgery.backward(model(x))
    state = surgery.state_dict()
    assert set(dict(state["reach"])) == {"weight", "module.weight"}
    prefix = "module." if wrap is nn.DataParallel else ""
    found = []
    for given, saved in (
        (model, state),
        (wrap(model), state),
        (model, renamed(state, lambda n: prefix + n)),
    ):
        resumed = gs.Surgery("moco", given)
        resumed.load_state_dict(saved)
        model.zero_grad()
        resumed.backward(given(x))
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )
