"""What the conformance checks have to see: inputs changed in place, or shared."""

import numpy as np
import pytest
import torch

from gradsurgery.testing import ConformanceError, check_strategy
from gradsurgery.testing.cases import cases_of
from gradsurgery.testing.checks import common_samples
from tests.support.conformance import failure

pytestmark = pytest.mark.quick


def clamps_rows(rows):
    return rows.clamp_(min=0.0).sum(0)


def zeroes_blocks(block_grams):
    block_grams *= 0.0
    return np.ones(block_grams.shape[1])


def scales_losses(gram, losses):
    losses /= losses.sum()
    return np.ones(len(gram))


def zeroes_cross(cross):
    cross[0] = 0.0
    return np.full(cross.shape[:3:2], 1 / len(cross))


def pops_a_score(gram, scores, group):
    scores.pop(group)
    return np.ones(len(gram))


def fills_observed(gram, observed=None):
    if observed is not None:
        observed[0] = 0.0
    return np.ones(len(gram))


def writes_past_the_flag(gram):
    torch.from_numpy(gram).mul_(2.0)
    return np.ones(len(gram))


def only_at_13(gram):
    if len(gram) == 13:
        gram *= 0
    return np.ones(len(gram))


def only_in_the_second_step(gram, state):
    if state.scalar("steps"):
        gram *= 2
    state["steps"] = state.scalar("steps") + 1
    return np.ones(len(gram))


kept = []


def changes_what_it_kept(losses):
    for old in kept:
        old *= 0
    kept[:] = [losses]
    return np.ones(len(losses))


IN_PLACE = {
    "rows": clamps_rows,
    "block_grams": zeroes_blocks,
    "losses": scales_losses,
    "cross": zeroes_cross,
    "scores": pops_a_score,
    "observed": fills_observed,
    "gram": writes_past_the_flag,
    "gram at n = 13": only_at_13,
    "gram in the second step": only_in_the_second_step,
    "losses of an earlier call": changes_what_it_kept,
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_input_changed_in_place_is_named_first_and_spoils_no_sample(register, name):
    before = [(s.jacobian.copy(), s.gram.copy(), s.block_grams.copy()) for s in common_samples()]
    register(IN_PLACE[name])
    text = failure()
    assert (
        text.splitlines()[0]
        .split(": ", 1)[1]
        .startswith(f"it changed its input {name.split()[0]!r} in place")
    )
    for sample, copies in zip(common_samples(), before, strict=True):
        for now, then in zip(
            (sample.jacobian, sample.gram, sample.block_grams), copies, strict=True
        ):
            assert np.array_equal(now, then)


def test_a_claim_is_checked_on_copies_too(register):
    """Checks may run one by one, as pytest cases do: none may spoil what the next one gets."""
    before = [s.jacobian.copy() for s in common_samples()]
    register(clamps_rows, claims=("deterministic",))
    for bound, check, _ in cases_of("mine"):
        with pytest.raises(ConformanceError) if check.name == "contract" else np.errstate():
            check(bound)
    assert all(
        np.array_equal(s.jacobian, then) for s, then in zip(common_samples(), before, strict=True)
    )


def test_a_direction_that_shares_memory_with_the_rows_is_an_error(register):
    register(lambda rows: rows[rows.norm(dim=1).argmin()])
    assert "shares memory with its input 'rows'" in failure()
    register(lambda rows: rows[0].clone(), name="copied")
    assert set(check_strategy("copied").values()) == {"passed"}
