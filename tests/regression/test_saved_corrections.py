"""Surgery.corrections over a checkpoint."""

import io
from collections import Counter

import pytest
import torch
from torch import nn

import gradsurgery as gs


def run(steps, surgery=None, optimizer=None, weight=None):
    """So many steps of two losses that pull apart, corrected by momentum."""
    if weight is None:
        weight = nn.Parameter(torch.zeros(2))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        surgery = gs.Surgery("mgda", {"all": [weight]})
    for step in steps:
        optimizer.zero_grad()
        slope = torch.tensor([1.0, 3.0]) if step % 2 else torch.tensor([2.0, -3.0])
        losses = [(slope * weight).sum(), (slope.flip(0) * weight).sum()]
        surgery.step(losses, optimizer, guard="correct")
    return surgery, optimizer, weight


def test_a_resumed_run_counts_on():
    whole = run(range(12))[0].corrections
    assert whole["corrected"] > 2
    first, optimizer, weight = run(range(6))
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    again = gs.Surgery("mgda", {"all": [weight]})
    again.load_state_dict(torch.load(buffer, weights_only=True))
    assert again.corrections == first.corrections
    run(range(6, 12), again, optimizer, weight)
    assert again.corrections == whole


def test_a_state_without_counts_loads_and_counts_from_zero():
    surgery = run(range(6))[0]
    state = surgery.state_dict()
    assert state.pop("corrections")
    surgery.load_state_dict(state)
    assert surgery.corrections == Counter()


@pytest.mark.parametrize("bad", [3, (("risen", -1),), (("risen", 1.5),), (("a", 1), ("a", 2))])
def test_what_is_no_count_is_refused_and_changes_nothing(bad):
    surgery = run(range(6))[0]
    state, counts = surgery.state_dict(), Counter(surgery.corrections)
    with pytest.raises(gs.InputError, match="load_state_dict"):
        surgery.load_state_dict({**state, "step": 1, "corrections": bad})
    assert (surgery.corrections, surgery.state_dict()) == (counts, state)
