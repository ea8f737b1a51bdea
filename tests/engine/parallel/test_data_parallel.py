"""Models under DDP: their group is found, and DDP's own synchronisation goes on as before."""

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from tests.support.joined import EXAMPLES, Encoders, apart, part, trained
from tests.support.ranks import on_ranks

WAYS = {
    "plain": {},
    "unused": {"find_unused_parameters": True},
    "bucket view": {"gradient_as_bucket_view": True},
}
STRATEGIES = ("mgda", "sum", "graddrop", "famo")
CLOSE = 1e-5
pytestmark = pytest.mark.filterwarnings("ignore")


def in_every_way(rank):
    rows, found = part(rank, dist.get_world_size()), []
    for options in WAYS.values():
        for strategy in STRATEGIES:
            found.append(trained(Encoders, strategy, rows, forward=wrapping(options)))
    for strategy in STRATEGIES:
        found.append(trained(Encoders, strategy, rows, forward=unsynchronised))
    return found


def wrapping(options):
    return lambda model: DistributedDataParallel(model, **options)


def unsynchronised(model):
    wrapped = DistributedDataParallel(model)
    wrapped.context = wrapped.no_sync()  # held, since it ends with its last holder
    wrapped.context.__enter__()
    return wrapped


def test_every_way_to_wrap_gives_what_one_process_does():
    ranks = on_ranks(2, in_every_way, limit=100)
    expected = [trained(Encoders, name, list(range(EXAMPLES))) for name in STRATEGIES]
    for i in range(len(ranks[0])):
        one = expected[i % len(STRATEGIES)]
        assert apart([own[i] for own in ranks], one) < CLOSE


def alternating(model, given, forward, rows):
    """Surgery in even steps and a plain backward pass in odd ones."""
    surgery = gs.Surgery("mgda", given)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(6):
        optimizer.zero_grad()
        losses = model.losses(step, rows, forward)
        if step % 2:
            sum(losses.values()).backward()
        else:
            surgery.backward(losses)
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def alternating_on_ranks(rank):
    rows, found = part(rank, dist.get_world_size()), []
    for options in WAYS.values():
        model = Encoders()
        wrapped = DistributedDataParallel(model, **options)
        found.append(alternating(model, wrapped, wrapped, rows))
        model = Encoders()
        wrapped = DistributedDataParallel(model, **options)
        groups = {"heads": model.heads, "all": wrapped}
        with pytest.raises(gs.InputError, match="in two groups"):
            gs.Surgery("mgda", groups)
    return found


def test_a_plain_backward_pass_between_steps_still_synchronises():
    first, second = on_ranks(2, alternating_on_ranks, limit=60)
    model = Encoders()
    one = alternating(model, model, None, list(range(EXAMPLES)))
    for mine, other in zip(first, second, strict=True):
        assert torch.equal(mine, other)
        assert (mine - one).abs().max() < CLOSE


def through_the_module(rank):
    """The forward pass through `ddp.module`, the parameters within a dict, and one-shot."""
    rows, found = part(rank, dist.get_world_size()), []
    for given in (lambda ddp: {"all": ddp}, lambda ddp: torch.nn.Sequential(ddp)):
        model = Encoders()
        wrapped = DistributedDataParallel(model)
        record = gs.backward(model.losses(0, rows), given(wrapped), "upgrad")
        seen = gs.inspect(model.losses(0, rows), given(wrapped))
        whole = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        found.append((whole, record.losses, [g.gram.tolist() for g in seen.values()]))
    return found


def test_ddp_within_other_modules_and_forward_past_it():
    ranks = on_ranks(2, through_the_module)
    assert all(torch.equal(a[0], b[0]) and a[1:] == b[1:] for a, b in zip(*ranks, strict=True))
    for i, given in enumerate((lambda model: {"all": model}, lambda model: model)):
        model = Encoders()
        record = gs.backward(model.losses(0, list(range(EXAMPLES))), given(model), "upgrad")
        whole = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        torch.testing.assert_close(ranks[0][i][0], whole, rtol=CLOSE, atol=1e-7)
        assert ranks[0][i][1] == pytest.approx(record.losses, rel=1e-5)
