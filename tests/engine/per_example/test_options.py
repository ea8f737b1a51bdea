"""Every setting does with mixtures of per-example losses what it does with as many scalars."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.per_example import CLOSE, apart, distance, gradients, mixtures

B, D, N = 5, 6, 3


def model_of():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "trunk": nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, 4)),
            "head": nn.Linear(4, 2),
        }
    )


def steps(how, given, of_model=None, strategy="upgrad", count=3, **settings):
    """`.grad` after each of some steps, and their records."""
    model, found = model_of(), []
    own = {"parameters": model, **(of_model(model) if of_model else {})}
    surgery = gs.Surgery(strategy, seed=3, **own, **settings)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for k in range(count):
        torch.manual_seed(k)
        x, rows = torch.randn(B, D), torch.randn(N, B)
        features = model["trunk"](x)
        losses = model["head"](torch.tanh(features)).square().sum(1)
        model.zero_grad()
        named = mixtures(rows)
        objectives = gs.PerExample(losses, named) if given else apart(losses, named)
        record = how(surgery, objectives, features, optimizer)
        found.append((gradients(model), record))
    return found


def backward(surgery, objectives, *beside):
    return surgery.backward(objectives)


def alike(of_model=None, how=backward, close=10 * CLOSE, **settings):
    one, other = (steps(how, given, of_model, **settings) for given in (True, False))
    for (own, record), (expected, plain) in zip(one, other, strict=True):
        far, size = distance(own, expected)
        assert size > 0
        assert far <= close * size
        if record is not None:
            assert record.groups.keys() == plain.groups.keys()


SETTINGS = {
    "every": {"every": 2},
    "absent": {"zero": "absent"},
    "low memory": {"memory": "low"},
    "length": {"length": "sum"},
    "objectives": {"min_objectives": 2},
    "protect": {"protect": "o0"},
    "taps": {"method": "taps"},
    "batched": {"method": "batched"},
}


@pytest.mark.sampled(keep=lambda name: name.endswith(("[every]", "[low memory]")))
@pytest.mark.parametrize("kind", SETTINGS)
def test_settings(kind):
    alike(**SETTINGS[kind])


def test_groups():
    alike(lambda model: {"parameters": dict(model.items())})
    alike(lambda model: {"parameters": {"all": model}})


@pytest.mark.exhaustive
def test_what_decides():
    alike(lambda model: {"decide_on": model["head"]})


NEEDED = {
    "a-gem": {"objective": "o0"},
    "adaptive-weight": {"adversarial": "o0"},
    "dgl": {"joint": "o0"},
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("strategy", gs.strategy_names())
def test_strategies(strategy):
    options = NEEDED.get(strategy, {})
    try:
        steps(backward, False, strategy=strategy, **options)
    except gs.GradSurgeryError as error:  # it asks for more than these objectives
        with pytest.raises(type(error)):
            steps(backward, True, strategy=strategy, **options)
        return
    alike(strategy=strategy, close=1e-3, **options)


def test_features():
    alike(how=lambda surgery, objectives, z, _: surgery.backward(objectives, features=z))


@pytest.mark.exhaustive
def test_weights():
    alike(
        how=lambda surgery, objectives, *_: surgery.backward(
            objectives, weights={"o0": 2.0, "o1": 0.5, "o2": 0.0}
        )
    )


@pytest.mark.exhaustive
def test_scaler():
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    alike(how=lambda surgery, objectives, z, _: surgery.backward(objectives, scaler=scaler))


@pytest.mark.exhaustive
def test_a_graph_that_is_kept():
    def twice(surgery, objectives, *_):
        surgery.backward(objectives, retain_graph=True)
        return surgery.backward(objectives)

    alike(how=twice)
    with pytest.raises((RuntimeError, gs.GradSurgeryError)):
        alike(how=lambda s, o, *_: [s.backward(o), s.backward(o)][1])


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "options", [{"guard": "report"}, {"guard": "correct"}, {"metric": "optimizer"}]
)
def test_after_the_optimizer(options):
    alike(how=lambda s, o, z, optimizer: s.step(o, optimizer, **options), strategy="mgda")


@pytest.mark.exhaustive
def test_frozen_parameters():
    for part in ("trunk.0.weight", "trunk.2.bias"):
        found = []
        for given in (True, False):
            model = model_of()
            model.get_parameter(part).requires_grad_(False)
            torch.manual_seed(1)
            losses = model["head"](model["trunk"](torch.randn(B, D))).square().sum(1)
            named = mixtures(torch.randn(N, B))
            gs.backward(
                gs.PerExample(losses, named) if given else apart(losses, named), model, "upgrad"
            )
            found.append(gradients(model))
        far, size = distance(*found)
        assert far <= CLOSE * size


def test_accumulated_micro_batches():
    found = []
    for given in (True, False):
        model = model_of()
        surgery = gs.Surgery("upgrad", model)
        for k in range(3):
            torch.manual_seed(k)
            losses = model["head"](model["trunk"](torch.randn(B, D))).square().sum(1)
            named = mixtures(torch.randn(N, B))
            surgery.accumulate(gs.PerExample(losses, named) if given else apart(losses, named))
        surgery.combine()
        found.append(gradients(model))
    far, size = distance(*found)
    assert far <= 10 * CLOSE * size
