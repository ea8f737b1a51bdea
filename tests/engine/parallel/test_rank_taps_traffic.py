"""What taps over ranks send: at most 1.4 times plain DDP's bytes, where joined rows are few.

Bytes are counted twice: where the package calls the collectives, and on a loopback of the ranks'
own, beside plain DDP's.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from gradsurgery.engine.parallel.tapping import half_the_bytes
from tests.support.network import in_own_network, received
from tests.support.ranks import on_ranks
from tests.support.traffic import Traffic

pytestmark = pytest.mark.exhaustive

WIDTH, N = 512, 8
PLAIN, ALLOWED = 2.0, 1.4  # halves of an all-reduce that plain DDP sends; how many times that
METHODS = ("auto", "gradients")


class Wide(nn.Module):
    """A trunk that is nearly all of the model, and n small heads."""

    def __init__(self, n=N):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.head = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(n))

    def forward(self, x):
        z = self.trunk(x).tanh()
        return [head(z)[:, 0] for head in self.head]


def losses(out, y):
    return [(own - wanted).pow(2).mean() for own, wanted in zip(out, y.T, strict=True)]


def batch(step, rows):
    generator = torch.Generator().manual_seed(step)
    found = torch.randn(rows, WIDTH + N, generator=generator).split([WIDTH, N], 1)
    return [part.contiguous() for part in found]


def stepped(model, surgery, rows, own):
    """Five steps on a part of each batch; the collectives of the last.

    Adam would divide entries that are next to zero by themselves, rounding and all: there one
    process differs by 5e-4 between its own methods.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    for step in range(5):
        x, y = batch(step, rows)
        optimizer.zero_grad()
        out = model(x[own])
        with Traffic() as traffic:
            surgery.backward(losses(out, y[own]))
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]), traffic


def by_method(rank, rows, uneven):
    """Per method the parameters, and of the last step's collectives names and bytes."""
    world, found = dist.get_world_size(), {}
    share = rows // world
    own = slice(rank * share, (rank + 1) * share)
    if uneven:
        own = slice(0, share - 9) if rank == 0 else slice(share - 9, rows)
    for method in METHODS:
        model = Wide()
        surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD, method=method)
        x, y = batch(9, rows)
        surgery.backward(losses(model(x[own]), y[own]), count=own.stop - own.start)
        if uneven:
            grads = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
            found[method] = grads, sorted(surgery._communicator._weights)
            continue
        parameters, last = stepped(model, surgery, rows, own)
        later = [waits_not for *_, waits_not in last.events]
        found[method] = parameters, last.names, later, last.halves(len(parameters))
    return found


@pytest.mark.parametrize(("world", "rows"), [(2, 64), (4, 128)])
def test_bytes_stay_near_those_of_plain_training_and_numbers_are_exact(world, rows):
    ranks = on_ranks(world, by_method, rows, False, limit=60)
    model = Wide()
    surgery = gs.Surgery("mgda", model, process_group=None)
    x, y = batch(9, rows)
    surgery.backward(losses(model(x), y))
    one, _ = stepped(model, surgery, rows, slice(None))
    for method in METHODS:
        parameters, names, later, halves = ranks[0][method]
        assert all(torch.equal(own[method][0], parameters) for own in ranks)
        assert all(own[method][1:] == ranks[0][method][1:] for own in ranks)
        assert (parameters - one).abs().max() / one.abs().max() < 1e-5
        if method == "gradients":
            assert len(names) == N + 3
            assert N < halves <= 1.02 * (N + 1)
        else:
            assert halves <= ALLOWED * PLAIN
            assert names == [
                "all_gather_single",  # what is agreed on
                "all_gather_single",  # the inputs
                *["all_gather_single", "all_to_all_single"] * N,
                "all_reduce",
                "all_gather_single",
            ]
            assert later == [False, True, *[True] * 2 * N, False, False]


def test_many_rows_send_gradients_and_say_nothing_of_taps():
    ranks = on_ranks(2, by_method, 264, False, limit=60)
    assert ranks[0]["auto"][1:] == ranks[0]["gradients"][1:]
    assert torch.equal(ranks[0]["auto"][0], ranks[0]["gradients"][0])


def test_uneven_rows_are_counted_as_the_most_of_a_rank():
    """One rank would tap and the other not: what counts is the larger part."""
    for rows, tapped in ((64, ["trunk.0.weight", "trunk.2.weight"]), (256, [])):
        ranks = on_ranks(2, by_method, rows, True, limit=60)
        assert [own["auto"][1] for own in ranks] == [tapped] * 2
        for method in METHODS:
            assert torch.equal(ranks[0][method][0], ranks[1][method][0])
            torch.testing.assert_close(
                ranks[0][method][0], ranks[0]["gradients"][0], rtol=1e-5, atol=1e-7
            )


@pytest.mark.parametrize("world", [1, 2, 64])
def test_bytes_are_counted_as_they_are_sent(world):
    shape = WIDTH, WIDTH, N
    limit = next(r for r in range(1, WIDTH + 2) if not half_the_bytes(r, *shape, world))
    assert limit == WIDTH // 2 // world + 1  # joined rows up to half the width, for in = out
    assert half_the_bytes(1, WIDTH, 1024, 2, WIDTH // 2)
    assert not half_the_bytes(1, WIDTH, 16, 2, WIDTH // 2)


def on_the_wire(rank, rows):
    """The bytes of a step on the loopback, for plain DDP and for every method."""
    found, (x, y) = {}, batch(0, rows)
    for method in ("DDP", "auto", "gradients"):
        model = Wide()
        if method == "DDP":
            wrapped = DistributedDataParallel(model)
        else:
            surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD, method=method)
        for _ in range(3):
            dist.barrier()
            before = received()
            dist.barrier()
            if method == "DDP":
                torch.stack(losses(wrapped(x), y)).sum().backward()
            else:
                surgery.backward(losses(model(x), y))
            dist.barrier()
            found[method] = received() - before
            dist.barrier()
    return found


def every_world():
    return [on_ranks(world, on_the_wire, 32, limit=60)[0] for world in (2, 4)]


def test_bytes_on_the_loopback():
    for found in in_own_network(every_world):
        assert found["auto"] <= ALLOWED * found["DDP"]
        assert found["gradients"] > 4 * found["DDP"]
