"""Loops with several Surgery objects at once."""

import contextlib
import copy
import threading

import torch

import gradsurgery as gs
from tests.support.loops.base import (
    INPUT,
    Linear,
    backward,
    by_hand,
    close,
    decided,
    flat,
    loop,
    values,
)


@loop("two Surgery objects, one inside a hook of the other")
def nested(strategy):
    outer, inner = Linear(), Linear()
    surgeries = gs.Surgery(strategy, outer), gs.Surgery(strategy, inner)
    seen = []
    outer.layer.bias.register_post_accumulate_grad_hook(
        lambda p: seen.append(backward(surgeries[1], inner.losses()))
    )
    losses = outer.losses()
    backward(surgeries[0], losses)
    assert len(seen) == 1
    expected = decided(strategy, by_hand(), values(losses))
    close(flat(outer.parameters()), expected)
    close(flat(inner.parameters()), expected)


@loop("two threads with a Surgery each")
def threads(strategy):
    found = {}

    def train(which):
        model = Linear(torch.float64)
        surgery = gs.Surgery(copy.deepcopy(strategy), model)
        with contextlib.suppress(gs.GradSurgeryError):
            for _ in range(3):
                model.zero_grad()
                losses = model.losses((1 + which) * INPUT)
                record = backward(surgery, losses)
                found.setdefault(which, []).append(
                    (flat(model.parameters()), values(losses), record.step)
                )

    workers = [threading.Thread(target=train, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for which in range(2):
        assert [step for _, _, step in found[which]] == [0, 1, 2]
        gradient, losses, _ = found[which][0]
        close(gradient, decided(strategy, by_hand((1 + which) * INPUT), losses), 1e-9)
