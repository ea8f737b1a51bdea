"""What a step exchanges with other processes, by a communicator that notes what it is asked."""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.communicator import SingleProcess

pytestmark = pytest.mark.quick


class Noting(SingleProcess):
    """Answers like one process, and notes the calls, as of one of several."""

    several = True

    def __init__(self):
        self.calls = []

    def agree(self, losses, trace, scores, *compared):
        self.calls.append("agree")
        return super().agree(losses, trace, scores, *compared)

    def scatter(self, passes, wanted, writable=None):
        self.calls.append("scatter")
        return super().scatter(passes, wanted, writable)

    def total(self, values, products):
        self.calls.append("total")
        return super().total(values, products)

    def publish(self, directions):
        self.calls.append("publish")
        return super().publish(directions)


class Equals(Noting):
    """One of two processes that have the same batch: gradients are sums over both."""

    def scatter(self, passes, wanted, writable=None):
        self.calls.append("scatter")
        if writable is not None:
            writable.clear()  # what is given back lies in other memory
        return [self._twice(part) for part in passes]

    def _twice(self, part):
        return {
            key: self._twice(value) if isinstance(value, dict) else 2 * value
            for key, value in part.items()
        }


def step(strategy, communicator, **settings):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    surgery = gs.Surgery(strategy, model, **settings)
    surgery._communicator = communicator
    first, second = model(torch.randn(4, 3)).pow(2).mean(0)
    record = surgery.backward({"a": first, "b": second})
    return record, [p.grad for p in model.parameters()]


@pytest.mark.parametrize(
    "settings",
    [{}, {"memory": "low"}, {"nonfinite": "ignore"}, {"method": "batched"}],
    ids=str,
)
@pytest.mark.parametrize("strategy", ["mgda", "sum", "scaled-sum", "uw", "upgrad"])
def test_the_four_exchanges_come_in_their_order(strategy, settings):
    calls = Noting()
    step(strategy, calls, **settings)
    order = [call for i, call in enumerate(calls.calls) if call not in calls.calls[:i]]
    wanted = ["agree", "scatter", "total", "publish"]
    if strategy in ("sum", "scaled-sum", "uw"):  # known before the gradients
        wanted = ["agree", "total", "scatter", "publish"]
    assert order == wanted
    assert calls.calls.count("agree") == calls.calls.count("publish") == 1


@pytest.mark.parametrize(("strategy", "factor"), [("mgda", 2), ("upgrad", 2), ("sum", 2)])
def test_what_scatter_gives_is_what_is_decided_on(strategy, factor):
    alone, expected = step(strategy, SingleProcess())
    both, found = step(strategy, Equals())
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(factor * one, other)
    if both["a+b"].gram is not None:
        assert abs(both["a+b"].gram / 4 - alone["a+b"].gram).max() < 1e-12


@pytest.mark.parametrize("strategy", ["mgda", "sum"])
def test_what_comes_through_the_trunk_is_scattered_too(strategy):
    found = {}
    for communicator in (SingleProcess(), Equals()):
        torch.manual_seed(0)
        trunk, heads = nn.Linear(3, 4), nn.Linear(4, 2)
        surgery = gs.Surgery(strategy, [*trunk.parameters(), *heads.parameters()])
        surgery._communicator = communicator
        z = trunk(torch.randn(5, 3))
        surgery.backward(list(heads(z).pow(2).mean(0)), features=z)
        found[communicator] = [trunk.weight.grad, heads.weight.grad]
    alone, both = found.values()
    # doubled at the features, and again on the way through the trunk
    torch.testing.assert_close(4 * alone[0], both[0])
    torch.testing.assert_close(2 * alone[1], both[1])
