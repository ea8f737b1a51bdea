"""A step over several processes goes through the communicator alone, which exchanges everything.

The processes are threads here, each with a copy of the model and its own part of the batch; their
communicator keeps a share of the entries of each gradient. Then every process writes what one would
write for the joined batch.
"""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.communicator import SingleProcess

WORLD = 3


class Room:
    """Where the processes of one run exchange things."""

    def __init__(self):
        self.things = [None] * WORLD
        self.barrier = threading.Barrier(WORLD, timeout=60)

    def exchange(self, rank, thing):
        self.things[rank] = thing
        self.barrier.wait()
        everyones = list(self.things)
        self.barrier.wait()
        return everyones


def copied(gradients):
    """What another thread may read while this one goes on to write into its own."""
    return {name: gradient.clone() for name, gradient in gradients.items()}


class OneOfSeveral:
    """The communicator of one process."""

    several = True

    def __init__(self, rank, room):
        self.rank, self.room = rank, room
        self.calls = []
        self.features = ()

    def exchange(self, what, thing):
        self.calls.append(what)
        return self.room.exchange(self.rank, thing)

    def agree(self, losses, trace, scores, call, config, history, scale):
        steps = self.exchange("agree", (losses.names, history.step))
        assert len(set(steps)) == 1
        self.features = trace.features
        if any(loss.requires_grad for loss in losses.tensors):
            losses = replace(losses, tensors=tuple(loss / WORLD for loss in losses.tensors))
        return losses, trace, scores

    def tapped(self, trace):
        return {}

    def scatter(self, passes, wanted, writable=None):
        if writable is not None:
            writable.clear()
        found = list(passes)
        copies = [{i: copied(own) for i, own in each.items()} for each in found]
        everyones = self.exchange("scatter", copies)
        return [
            {
                i: {
                    # gradients at the features are of this process's examples
                    name: g
                    if name in self.features
                    else self.share([e[k][i][name] for e in everyones])
                    for name, g in own.items()
                }
                for i, own in each.items()
            }
            for k, each in enumerate(found)
        ]

    def share(self, gradients):
        total = torch.stack(gradients).sum(0)
        mine = torch.arange(total.numel()).reshape(total.shape) % WORLD == self.rank
        return torch.where(mine, total, 0.0)

    def held(self, groups):
        return groups

    def total(self, values, products):
        everyones = self.exchange("total", [number.clone() for number in (*values, *products)])
        return [torch.stack(same).sum(0) for same in zip(*everyones, strict=True)]

    def decided(self, records):
        pass

    def publish(self, directions):
        everyones = self.exchange("publish", copied(directions))
        return {name: sum(e[name] for e in everyones) for name in directions}

    def gathered(self):
        pass

    def failed(self, error):
        pass


class Tasks(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in "abc"})
        self.double()

    def losses(self, x, features):
        z = self.trunk(x)
        targets = {"a": x.sum(1), "b": -x[:, 0], "c": x[:, 1] * x[:, 2]}
        losses = {n: (self.heads[n](z)[:, 0] - y).pow(2).mean() for n, y in targets.items()}
        return losses, z if features else None


def rows(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(4 * WORLD, 4, generator=generator, dtype=torch.float64)


def run(model, communicator, part, strategy, settings, how, records):
    """Four steps of one process, on its part of each batch."""
    surgery = gs.Surgery(strategy, model, method="gradients", **settings)
    surgery._communicator = communicator
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(4):
        optimizer.zero_grad()
        x = part(rows(step))
        if how == "accumulate":
            for half in x.split(len(x) // 2):
                losses, _ = model.losses(half, False)
                surgery.accumulate({name: loss / 2 for name, loss in losses.items()})
            records.append(surgery.combine())
        else:
            losses, z = model.losses(x, how == "features")
            records.append(surgery.backward(losses, features=z))
        optimizer.step()


STEPS = [
    ("sum", {}, "plain"),
    ("uw", {}, "plain"),
    ("scaled-sum", {}, "plain"),
    ("mgda", {}, "plain"),
    ("upgrad", {"nonfinite": "ignore"}, "plain"),
    ("mmpareto", {}, "plain"),
    ("nash-mtl", {"protect": "a"}, "plain"),
    ("mgda", {"every": 2}, "plain"),
    ("sum", {"measure": 2}, "plain"),
    ("pcgrad", {}, "accumulate"),
    ("mgda", {}, "features"),
    ("uw", {}, "features"),
    ("nash-mtl", {"length": "sum"}, "plain"),
]


@pytest.mark.parametrize(("strategy", "settings", "how"), STEPS, ids=str)
def test_several_processes_write_what_one_does_for_the_joined_batch(strategy, settings, how):
    def only(rank):
        return lambda x: torch.cat([half[rank::WORLD] for half in x.split(len(x) // 2)])

    def alone(x):
        return torch.cat(list(x.split(len(x) // 2)))

    expected, expected_records, room = Tasks(), [], Room()
    run(expected, SingleProcess(), alone, strategy, settings, how, expected_records)
    models = [Tasks() for _ in range(WORLD)]  # here: threads have one generator of numbers
    records, errors = [[] for _ in range(WORLD)], []
    communicators = [OneOfSeveral(rank, room) for rank in range(WORLD)]

    def process(rank):
        try:
            given = strategy, settings, how, records[rank]
            run(models[rank], communicators[rank], only(rank), *given)
        except BaseException as error:
            errors.append(error)
            room.barrier.abort()

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(WORLD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    for rank, model in enumerate(models):
        for name, parameter in expected.named_parameters():
            torch.testing.assert_close(model.get_parameter(name), parameter, rtol=1e-9, atol=1e-12)
        for mine, whole in zip(records[rank], expected_records, strict=True):
            assert mine.losses == pytest.approx(whole.losses, rel=1e-9)
            for name, group in whole.items():
                if group.gram is not None:
                    np.testing.assert_allclose(mine[name].gram, group.gram, rtol=1e-9, atol=1e-12)
        assert communicators[rank].calls == communicators[0].calls
    assert set(communicators[0].calls) == {"agree", "scatter", "total", "publish"}


def test_one_process_exchanges_nothing():
    losses, trace, numbers, directions = object(), object(), [torch.ones(2)], {"a": torch.ones(1)}
    alone = SingleProcess()
    assert alone.agree(losses, trace, None, "settings") == (losses, trace, None)
    groups = [object()]
    assert alone.held(groups) is groups
    passes = iter([{0: directions}, {1: directions}])
    assert alone.scatter(passes, [{0: directions}, {1: directions}]) == [
        {0: directions},
        {1: directions},
    ]
    assert alone.total(numbers, numbers) == [*numbers, *numbers]
    assert alone.publish(directions) is directions
