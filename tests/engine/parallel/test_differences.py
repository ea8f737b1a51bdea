"""Ranks that differ: losses may, settings and models may not; and none waits in vain."""

import multiprocessing
import os
import re
import time

import pytest
import torch
import torch.distributed as dist

import gradsurgery as gs
from tests.engine.parallel.test_parts import ROWS
from tests.support.joined import Tasks
from tests.support.ranks import launch, on_ranks, said

WORLD = 3


def step(rank, model=None, losses=None, strategy="mgda", scaler=None, weights=None, **settings):
    model = Tasks() if model is None else model
    surgery = gs.Surgery(strategy, model, process_group=dist.group.WORLD, **settings)
    losses = model.losses(0, ROWS[rank]) if losses is None else losses
    surgery.backward(losses, scaler=scaler, weights=weights)
    return surgery


def odd(rank):
    """One of the ranks is another than the others."""
    return rank == 2


def options(rank):
    step(rank, strategy=gs.get_strategy("cagrad", c=0.5 if odd(rank) else 0.4))


def strategies(rank):
    step(rank, strategy="upgrad" if odd(rank) else "mgda")


def seeds(rank):
    step(rank, seed=int(odd(rank)))


def every(rank):
    step(rank, every=1 + odd(rank))


def memory(rank):
    step(rank, memory="low" if odd(rank) else "auto")


def dtypes(rank):
    step(rank, Tasks(torch.float64 if odd(rank) else torch.float32))


def frozen(rank):
    model = Tasks()
    model.trunk[0].bias.requires_grad_(not odd(rank))
    step(rank, model)


def shapes(rank):
    model = Tasks()
    if odd(rank):
        model.heads["a"] = torch.nn.Linear(5, 2)
    step(rank, model)


def groups(rank):
    model = Tasks()
    name = "backbone" if odd(rank) else "trunk"
    given = {name: model.trunk, "heads": model.heads}
    surgery = gs.Surgery("mgda", given, process_group=dist.group.WORLD)
    surgery.backward(model.losses(0, ROWS[rank]))


def weights(rank):
    step(rank, weights={"a": 1.0, "b": 3.0 if odd(rank) else 2.0, "c": 1.0})


def scales(rank):
    step(rank, scaler=torch.amp.GradScaler("cpu", init_scale=8.0 if odd(rank) else 4.0))


def scaled_or_not(rank):
    step(rank, scaler=torch.amp.GradScaler("cpu", init_scale=8.0) if odd(rank) else None)


def steps_before(rank):
    model = Tasks()
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    surgery.backward(model.losses(0, ROWS[rank]))
    if odd(rank):
        surgery.load_state_dict(gs.Surgery("mgda", model, process_group=None).state_dict())
    surgery.backward(model.losses(1, ROWS[rank]))


def batches(rank):
    model = Tasks()
    losses = [model.losses(k, ROWS[rank]) for k in range(2 + odd(rank))]
    step(rank, model, losses, strategy="modo")


def features(rank):
    model = Tasks()
    seen = []
    model.trunk.register_forward_hook(lambda module, given, out: seen.append(out))
    losses = model.losses(0, ROWS[rank])
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    surgery.backward(losses, features=None if odd(rank) else seen[0])


DIFFERENT = {  # what it says beside the ranks
    options: "its options",
    strategies: "the strategy",
    seeds: "seed=",
    every: "every=",
    memory: "memory=",
    dtypes: "parameter 'trunk.0.weight'",
    frozen: "parameter 'trunk.0.bias'",
    shapes: "parameter 'heads.a.weight'",
    groups: "explicit groups",
    weights: "the weight of loss 'b'",
    scales: "the GradScaler's factor",
    scaled_or_not: "the GradScaler's factor",
    steps_before: "the number of steps before: rank 0 has 1",
    batches: "the number of batches",
    features: "the features",
}


def all_said(rank):
    return [said(lambda case=case: case(rank)) for case in DIFFERENT]


def test_a_difference_is_the_same_error_on_every_rank():
    ranks = on_ranks(WORLD, all_said)
    for i, (case, what) in enumerate(DIFFERENT.items()):
        kind, text = ranks[0][i]
        assert all(own[i] == (kind, text) for own in ranks), case
        assert kind == "InputError", (case, text)
        assert re.search(f"the ranks differ in .*{what}.*rank 2", text, re.S), (case, text)


def reach(rank):
    """A rank whose loss goes past a part of the model takes part with zeros there."""
    model = Tasks()
    losses = model.losses(0, ROWS[rank])
    if odd(rank):
        losses["a"] = model.heads["a"].bias.sum()
    surgery = step(rank, model, losses)
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()]), surgery.state_dict()[
        "reach"
    ]


def test_reach_that_differs_is_united():
    first, *others = on_ranks(WORLD, reach)
    for other in others:
        assert torch.equal(first[0], other[0])
        assert first[1] == other[1]
    model = Tasks()
    parts = [model.losses(0, rows) for rows in ROWS]
    parts[2]["a"] = model.heads["a"].bias.sum()
    joined = {name: sum(part[name] for part in parts) / WORLD for name in "abc"}
    gs.backward(joined, model, "mgda")
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    torch.testing.assert_close(first[0], expected, rtol=1e-5, atol=1e-7)


TIMEOUT, STAYS = 4, 30  # seconds; generous, as ranks may share a busy core


def dies(rank, stalls, ended):
    """The last rank is gone in the middle of its second pass, or stays away while others run."""

    def away(gradient):
        for _ in range((WORLD - 1) * stalls):
            ended.acquire(timeout=STAYS)
        os._exit(1)

    model = Tasks()
    surgery = step(rank, model)
    before = [p.grad.clone() for p in model.parameters()]
    losses = model.losses(1, ROWS[rank])
    if odd(rank):
        losses["b"].register_hook(away)
    began = time.monotonic()
    kind, text = said(lambda: surgery.backward(losses))
    same = all(map(torch.equal, before, [p.grad for p in model.parameters()]))
    ended.release()
    return kind, text, same, repr(surgery), time.monotonic() - began


@pytest.mark.parametrize("stalls", [False, True], ids=["dead", "stalled"])
def test_a_rank_that_is_gone_ends_the_others(stalls):
    ended = multiprocessing.get_context("fork").Semaphore(0)
    ends = launch(WORLD, dies, stalls, ended, timeout=TIMEOUT, limit=60)
    assert ends[2].error == "Lost"
    for end in ends[:2]:
        assert end.error is None, end.said
        kind, text, same, surgery, seconds = end.value
        assert kind == "RankError"
        assert "sending the gradients of" in text
        assert "'b'" in text or not stalls  # of a dead rank what it had sent may be lost too
        assert same
        assert surgery.endswith("step=1)")
        assert seconds < STAYS  # they did not wait for it to come back


def alone(rank):
    """A Surgery for this rank alone waits for no other."""
    model = Tasks()
    torch.manual_seed(rank)
    record = gs.backward(model.losses(0, ROWS[rank]), model, "mgda", process_group=None)
    with pytest.raises(gs.InputError, match=r"group\.WORLD"):
        gs.backward(model.losses(0, ROWS[rank]), model, "mgda")
    with pytest.raises(gs.InputError, match="in the order"):
        gs.Surgery("mgda", process_group=dist.group.WORLD)
    return record.losses["a"]


def test_none_is_this_rank_alone():
    assert len(set(on_ranks(WORLD, alone))) == WORLD


def some_of_them(rank):
    """A group of two of three ranks decides without the third."""
    group = dist.new_group([0, 2])
    model = Tasks()
    if rank == 1:
        return said(lambda: gs.Surgery("mgda", model, process_group=group))[0]
    gs.backward(model.losses(0, ROWS[rank]), model, "mgda", process_group=group)
    return [p.grad.sum().item() for p in model.parameters()]


def test_a_group_of_some_ranks():
    first, refused, last = on_ranks(WORLD, some_of_them)
    assert first == last
    assert refused == "InputError"
