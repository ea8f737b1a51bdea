"""Groups of some ranks, of one, and several at once; what changes between steps on one rank."""

import re

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from tests.support.joined import EXAMPLES, Tasks
from tests.support.ranks import on_ranks, said

ALL = list(range(EXAMPLES))
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore"),
]


def grads(model):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def of_some(rank):
    """Ranks 1 and 2 of three: errors name them by their numbers among all."""
    group = dist.new_group([1, 2])
    if rank == 0:
        return None
    rows = ALL[rank - 1 :: 2]
    model = Tasks()
    surgery = gs.Surgery("mgda", model, process_group=group)
    losses = model.losses(0, rows)
    bad = {**losses, "a": losses["a"] * torch.nan} if rank == 2 else losses
    odd = {**losses, "a": torch.ones(2)} if rank == 2 else losses
    other = gs.Surgery("mgda", model, process_group=group, seed=rank)
    ends = [
        said(lambda: surgery.backward(bad)),
        said(lambda: surgery.backward(odd)),
        said(lambda: other.backward(losses)),
    ]
    surgery.backward(model.losses(0, rows))
    return ends, grads(model)


def test_errors_of_a_group_of_some_name_ranks_by_their_numbers_among_all():
    _, first, second = on_ranks(3, of_some)
    for ends, _ in (first, second):
        assert ends[0][1].startswith("rank 2: loss 'a' is nan")
        assert "rank 1 has 1, rank 2 has 2" in ends[2][1]
    assert first[0][1][1].startswith("rank 2: loss 'a'")
    assert second[0][1][1].startswith("loss 'a'")
    model = Tasks()
    gs.backward(model.losses(0, ALL), model, "mgda", process_group=None)
    assert torch.equal(first[1], second[1])
    torch.testing.assert_close(first[1], grads(model), rtol=1e-5, atol=1e-6)


def of_two_at_once(rank):
    """Two groups, each with a model of its own, and one of all ranks under DDP between them."""
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]
    mine, joined = Tasks(), Tasks()
    own = gs.Surgery("mgda", mine, process_group=groups[rank % 2])
    every = gs.Surgery("pcgrad", DistributedDataParallel(joined))
    for step in range(3):
        own.backward(mine.losses(step + 10 * (rank % 2), ALL[rank // 2 :: 2]))
        works = dist.all_reduce(torch.ones(2), async_op=True)
        every.backward(joined.losses(step, ALL[rank::4]))
        works.wait()
    return grads(mine), grads(joined)


def test_two_groups_at_once_between_collectives_of_all():
    ranks = on_ranks(4, of_two_at_once)
    for rank, own in enumerate(ranks):
        models = Tasks(), Tasks()
        surgeries = [
            gs.Surgery(name, model, process_group=None)
            for name, model in zip(("mgda", "pcgrad"), models, strict=True)
        ]
        for step in range(3):
            surgeries[0].backward(models[0].losses(step + 10 * (rank % 2), ALL))
            surgeries[1].backward(models[1].losses(step, ALL))
        for found, model in zip(own, models, strict=True):
            torch.testing.assert_close(found, grads(model), rtol=1e-5, atol=1e-6)
    assert torch.equal(ranks[0][0], ranks[2][0])
    assert all(torch.equal(own[1], ranks[0][1]) for own in ranks)


def of_one(rank):
    groups = [dist.new_group([other]) for other in range(2)]
    found = []
    for strategy in ("mgda", "graddrop", "sum", "famo"):
        for group in (groups[rank], None):
            model = Tasks()
            surgery = gs.Surgery(strategy, model, process_group=group)
            for step in range(2):
                surgery.backward(model.losses(step, ALL[rank::2]))
            found.append(grads(model))
    return found


def test_a_group_of_one_is_as_none():
    for own in on_ranks(2, of_one):
        for mine, alone in zip(own[::2], own[1::2], strict=True):
            torch.testing.assert_close(mine, alone, rtol=1e-6, atol=1e-7)


def converted(model):
    model.double()


def frozen(model):
    model.trunk[0].weight.requires_grad_(False)


def replaced(model):
    model.heads["a"] = nn.Linear(5, 2)


CHANGES = {
    converted: "'trunk.0.weight': rank 0 has torch.float32.*rank 1 has torch.float64",
    frozen: "'trunk.0.weight': rank 0 has .*rank 1 has none",
    replaced: r"'heads.a.weight': rank 0 has .*\[1, 5\], rank 1 has .*\[2, 5\]",
}


def changed(rank):
    ends = []
    for change in CHANGES:
        model = Tasks()
        surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
        surgery.backward(model.losses(0, ALL[rank::3]))
        model.zero_grad()
        if rank == 1:
            change(model)
        losses = model.losses(1, ALL[rank::3])
        ends.append((*said(lambda s=surgery, given=losses: s.backward(given)), repr(surgery)))
    return ends


def test_a_model_that_changes_on_one_rank_between_steps():
    for ends in on_ranks(3, changed):
        for text, (kind, message, surgery) in zip(CHANGES.values(), ends, strict=True):
            assert kind == "InputError"
            assert re.search(text, message)
            assert surgery.endswith("step=1)")


def beside_one_without(rank):
    """The first rank has no examples; the others differ."""
    model = Tasks()
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    losses = model.losses(0, ALL[rank::3]) if rank else {}
    weights = dict.fromkeys("abc", float(rank)) if rank else None
    count = 4 if rank == 2 else None
    return [
        said(lambda: surgery.backward(losses, weights=weights)),
        said(lambda: surgery.backward(losses, count=count)),
    ]


def test_ranks_that_differ_beside_one_without_losses():
    for weighted, counted in on_ranks(3, beside_one_without):
        assert "the weight of loss 'a': rank 1 has 1.0, rank 2 has 2.0" in weighted[1]
        assert "count=: rank 1 has None, rank 2 has 4.0. Give it on all ranks" in counted[1]


def drawn_apart(rank):
    """A strategy of the user's own that draws from numpy's global generator."""

    @gs.strategy("drawn-apart")
    def drawn(gram):
        return np.random.dirichlet(np.ones(len(gram)))

    np.random.seed(rank)
    model = Tasks()
    surgery = gs.Surgery(gs.get_strategy("drawn-apart"), model, process_group=dist.group.WORLD)
    kind, text = said(lambda: surgery.backward(model.losses(0, ALL[rank::2])))
    return kind, text, [p.grad for p in model.parameters()], repr(surgery)


def test_ranks_that_decide_on_different_weights_are_told():
    for kind, text, found, surgery in on_ranks(2, drawn_apart):
        assert kind == "StrategyError"
        assert re.search("different weights for group 'a.b.c'.* rank 0 on .*, rank 1 on ", text)
        assert not any(grad is not None for grad in found)
        assert surgery.endswith("step=0)")
