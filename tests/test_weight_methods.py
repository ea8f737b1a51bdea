"""The benchmark scripts' interface: their call, their loop, and our strategies within it."""

import inspect

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.contract.registry import registered
from gradsurgery.weight_methods import METHODS, WeightMethods
from tests.support.shared_trunk import SharedTrunk
from tests.support.shipped import SHIPPED, SMALL

OPTIONS = {name: dict.fromkeys(registered(name).required, "0") for name in SHIPPED}
OTHER_INPUTS = {"cross", "scores"}  # which that interface has no place for
WITHIN = [name for name in SHIPPED if not OTHER_INPUTS & registered(name).inputs]


class Net(SharedTrunk):
    """What those scripts ask of a model."""

    def shared_parameters(self):
        return self.trunk.parameters()

    def task_specific_parameters(self):
        return self.heads.parameters()

    def last_shared_parameters(self):
        return self.trunk[-1].parameters()


def script(method, steps=3, **options):
    """A training loop as those scripts have it, on a small model."""
    model = Net()
    weight_method = WeightMethods(method, n_tasks=3, device=torch.device("cpu"), **options)
    optimizer = torch.optim.Adam(
        [
            {"params": model.parameters(), "lr": 1e-2},
            {"params": weight_method.parameters(), "lr": 0.025},
        ]
    )
    for k in range(steps):
        optimizer.zero_grad()
        losses, features = model.losses(k)
        losses = torch.stack(list(losses.values()))
        loss, extra_outputs = weight_method.backward(
            losses=losses,
            shared_parameters=list(model.shared_parameters()),
            task_specific_parameters=list(model.task_specific_parameters()),
            last_shared_parameters=list(model.last_shared_parameters()),
            representation=features,
        )
        optimizer.step()
        if "famo" in method:
            with torch.no_grad():
                again = torch.stack(list(model.losses(k)[0].values()))
                weight_method.method.update(again.detach())
    return model, weight_method, loss, extra_outputs


@pytest.mark.parametrize("name", WITHIN)
def test_every_strategy_runs_in_the_scripts_loop(name):
    """The last step is that of a Surgery on the shared parameters."""
    options = {**OPTIONS[name], **SMALL.get(name, {})}
    model, weighting, loss, extra = script(name, **options)
    own = Net()
    surgery = gs.Surgery(gs.get_strategy(name, **options), {"shared": list(own.trunk.parameters())})
    optimizer = torch.optim.Adam(own.parameters(), lr=1e-2)
    for k in range(3):
        optimizer.zero_grad()
        record = surgery.backward(list(own.losses(k)[0].values()))
        optimizer.step()
        if name == "famo":
            surgery.observe(list(own.losses(k)[0].values()))
    for p, q in zip(model.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)
    weights = record["shared"].weights
    if weights is None or weights.ndim != 1:
        assert (loss, extra) == (None, {})
    else:
        assert extra["weights"].tolist() == pytest.approx(weights.tolist(), rel=1e-9)
        assert not loss.requires_grad
    assert weighting.surgery.strategy.name == name


def test_their_own_names_of_methods_are_known():
    found = {name: WeightMethods(name, 3, "cpu").strategy.name for name in THEIRS}
    assert found == THEIRS
    assert set(METHODS) == set(gs.strategy_names())
    made = METHODS["cagrad"](n_tasks=3, device="cpu", c=0.4)
    assert made.strategy.options["c"] == 0.4
    assert WeightMethods("cagrad(c=0.4)", 3).strategy == made.strategy


THEIRS = {
    **{"ls": "sum", "uw": "uw", "pcgrad": "pcgrad", "mgda": "mgda", "cagrad": "cagrad"},
    **{"nashmtl": "nash-mtl", "imtl": "imtl-g", "rlw": "random", "dwa": "dwa", "famo": "famo"},
}


def test_the_options_of_their_nash_mtl():
    model, weighting, _, extra = script(
        "nashmtl", update_weights_every=2, optim_niter=20, max_norm=1.0
    )
    assert not weighting.record["shared"].replayed  # the third step solves again
    _, weighting, _, _ = script("nashmtl", steps=2, update_weights_every=2)
    assert weighting.record["shared"].replayed
    d = torch.cat([p.grad.reshape(-1) for p in model.trunk.parameters()])
    assert float(d.norm()) <= 1 + 1e-6
    assert (extra["weights"] > 0).all()


def test_the_signature_is_theirs():
    names = list(inspect.signature(WeightMethods.backward).parameters)
    assert names[1:6] == [
        *("losses", "shared_parameters", "task_specific_parameters"),
        *("last_shared_parameters", "representation"),
    ]
    assert list(inspect.signature(WeightMethods).parameters)[:3] == ["method", "n_tasks", "device"]
    assert WeightMethods("sum", 2).parameters() == []


def test_what_is_wrong_is_said():
    weighting = WeightMethods("mgda", n_tasks=2)
    weight = nn.Parameter(torch.ones(3))
    with pytest.raises(gs.InputError, match="expected n_tasks=2 of them; got 3"):
        weighting.backward(weight.square(), shared_parameters=[weight])
    with pytest.raises(gs.InputError, match="shared_parameters: give"):
        weighting.backward(weight.square()[:2])
    with pytest.raises(gs.InputError, match="call backward first"):
        weighting.update(weight.square()[:2])
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'pcgrad'"):
        WeightMethods("pcgrat", n_tasks=2)
    assert weight.grad is None
