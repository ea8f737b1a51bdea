"""memory="low": the same directions without a gradient of each loss, and what it refuses."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradsurgery as gs
from gradsurgery.contract.registry import registered
from gradsurgery.engine import source

F64 = torch.float64


class Mixed(nn.Module):
    """Convolutions, a norm, a tied layer, an embedding; two trunks, one of which the third loss
    does not reach.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(1, 6, 3)
        self.norm = nn.GroupNorm(2, 6)
        self.tied = nn.Linear(24, 24)
        self.words = nn.Embedding(9, 24)
        self.wide = nn.Linear(24, 40)
        self.heads = nn.ModuleList(nn.Linear(40, 3) for _ in range(2))
        self.last = nn.Linear(24, 3)

    def losses(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(7, 1, 4, 4, generator=generator, dtype=self.wide.weight.dtype)
        z = F.relu(self.norm(self.convolution(x))).flatten(1) + self.words(torch.arange(7))
        z = self.tied(self.tied(z).tanh())
        h = self.wide(z).tanh()
        found = {
            name: head(h).pow(2).mean() * (i + 1)
            for i, (name, head) in enumerate(zip("ab", self.heads, strict=True))
        }
        found["b"] = (self.heads[1](h) - 1).pow(2).mean()
        return {
            **found,
            "c": (self.last(z) + 2).pow(2).mean() + self.wide.weight.pow(2).sum() * 0.01,
        }


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_weights(name: str) -> bool:
    return not {"rows", "block_grams", "cross"} & registered(name).inputs


NAMES = [name for name in gs.strategy_names() if by_weights(name)]
OPTIONS = {
    "a-gem": {"objective": "a"},
    "adaptive-weight": {"adversarial": "a"},
    "dgl": {"joint": "c"},
    "krum": {"byzantine": 0, "min_objectives": 3},
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["auto", "gradients", "taps"])
def test_the_same_directions(name, method):
    found = []
    for memory in ("auto", "low"):
        model = Mixed().double()
        surgery = gs.Surgery(name, model, memory=memory, method=method, **OPTIONS.get(name, {}))
        for _ in range(3):
            record = surgery.backward(
                model.losses(),
                scores={"a+b+c": 0.5, "a+b": 2.0} if "scores" in surgery.strategy.inputs else None,
            )
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.01 * p.grad
        found.append((gradients(model), record))
    (left, before), (right, after) = found
    assert left.keys() == right.keys()
    for key, gradient in left.items():
        assert torch.allclose(
            gradient, right[key], rtol=1e-9, atol=1e-11 * float(gradient.abs().max())
        ), key
    for group in before:
        assert (before[group].gram is None) == (after[group].gram is None)
        if before[group].gram is not None:
            assert np.allclose(before[group].gram, after[group].gram, rtol=1e-9)


def test_no_more_than_a_portion_is_held(monkeypatch):
    model = Mixed()
    largest: list[int] = []
    real = source.gather

    def gather(*given):
        found = list(real(*given))
        rows = [row for part in found for row in part.values()]
        largest.append(sum(g.numel() for row in rows for g in row.values()))
        return found

    monkeypatch.setattr(source, "gather", gather)
    whole = sum(p.numel() for p in model.parameters())
    gs.backward(model.losses(), model, "mgda")
    assert largest.pop() > 2 * whole
    gs.backward(model.losses(), model, "mgda", memory="low", method="gradients")
    assert len(largest) > 2
    assert max(largest) <= max(whole, 3 * max(p.numel() for p in model.parameters()))


def test_others_features_protection_replays_and_weights():
    def both(step, **settings):
        found = []
        for memory in ("auto", "low"):
            model = Mixed().double()
            surgery = gs.Surgery(
                "cagrad",
                memory=memory,
                method="gradients",
                **settings.get("make", lambda m: {"parameters": m})(model),
            )
            for _ in range(3):
                step(surgery, model)
            found.append(gradients(model))
        assert found[0].keys() == found[1].keys()
        assert all(
            torch.allclose(g, found[1][k], rtol=1e-9, atol=1e-12) for k, g in found[0].items()
        )

    both(
        lambda s, m: s.backward(m.losses()),
        make=lambda m: {"parameters": [*m.tied.parameters(), *m.wide.parameters()]},
    )
    both(lambda s, m: s.backward(m.losses()), make=lambda m: {"parameters": m, "protect": "c"})
    both(lambda s, m: s.backward(m.losses()), make=lambda m: {"parameters": m, "every": 2})
    both(
        lambda s, m: s.backward(m.losses()),
        make=lambda m: {
            "parameters": {"x": [m.tied.weight], "y": [m.wide.weight, m.convolution.weight]}
        },
    )
    both(lambda s, m: s.backward(m.losses(), weights={"a": 2.0, "b": 0.5, "c": 1.0}))
    both(lambda s, m: s.backward(m.losses(), scaler=torch.amp.GradScaler("cpu", init_scale=1024.0)))

    def at_features(surgery, model):
        z = model.tied(torch.ones(7, 24, dtype=F64)).tanh()
        h = model.wide(z)
        surgery.backward(
            {
                "a": h.pow(2).mean(),
                "b": (h - 1).pow(2).mean(),
                "c": (model.last(z) - h[:, :3]).pow(2).mean(),
            },
            features=z,
        )

    both(at_features)


def test_the_graph_is_freed_and_kept_when_asked():
    for strategy in ("mgda", "sum"):
        model = Mixed()
        losses = model.losses()
        gs.backward(losses, model, strategy, memory="low", method="gradients")
        with pytest.raises(gs.InputError, match="freed by an earlier backward pass"):
            gs.backward(losses, model, strategy, memory="low", method="gradients")
        model.zero_grad()
        losses = model.losses()
        gs.backward(losses, model, strategy, memory="low", method="gradients", retain_graph=True)
        first = gradients(model)
        gs.backward(losses, model, strategy, memory="low", method="gradients")
        assert all(
            torch.allclose(g, 2 * first[k], rtol=1e-5, atol=1e-7)
            for k, g in gradients(model).items()
        )


def test_nothing_changes_when_something_is_not_finite():
    model = Mixed()
    gs.backward(model.losses(), model, "mgda", memory="low", method="gradients")
    before = gradients(model)
    surgery = gs.Surgery("mgda", model, memory="low", method="gradients")
    losses = model.losses()
    bad = losses["c"] + torch.where(
        model.convolution.weight > 9,
        model.convolution.weight,
        model.convolution.weight * float("inf"),
    ).sum().clamp(max=0)
    with pytest.raises(gs.NonFiniteError, match="'c'"):
        surgery.backward({**losses, "c": bad * float("nan")})
    assert all(torch.equal(g, before[k]) for k, g in gradients(model).items())
    assert surgery.state_dict()["step"] == 0
    scaler = torch.amp.GradScaler("cpu")
    assert surgery.backward(
        {**model.losses(), "c": model.losses()["c"] * float("inf")}, scaler=scaler
    ).overflow


def test_behind_a_compiled_region_everything_is_kept():
    model, other = Mixed(), Mixed()
    z = torch.ones(5, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it compiles
        compiled = torch.compile(lambda x: model.wide(x), backend="aot_eager")
        for tied, wide, owner, memory in (
            (model.tied, compiled, model, "low"),
            (other.tied, other.wide, other, "auto"),
        ):
            h = wide(tied(z))
            gs.backward(
                {"a": h.pow(2).mean(), "b": (h - 1).pow(2).mean(), "c": h.sum()},
                owner,
                "upgrad",
                memory=memory,
            )
    assert all(
        torch.allclose(g, gradients(other)[k], rtol=1e-4, atol=1e-6)
        for k, g in gradients(model).items()
    )


def test_what_it_refuses():
    model = Mixed()
    for name in (name for name in gs.strategy_names() if not by_weights(name)):
        with pytest.raises(gs.InputError, match="memory='low'"):
            gs.Surgery(name, model, memory="low", **OPTIONS.get(name, {}))
    with pytest.raises(gs.InputError, match="accumulate"):
        gs.Surgery("mgda", model, memory="low").accumulate(model.losses())
    with pytest.raises(gs.InputError, match="memory"):
        gs.Surgery("mgda", model, memory="small")
