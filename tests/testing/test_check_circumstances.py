"""What the conformance checks have to see: mistakes that show only in some circumstances or later
steps.
"""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.testing import check_strategy
from tests.support.conformance import checked, failure, right, wrong

# ---- mistakes that show only in some circumstances


def in_bfloat16(rows):
    return rows.sum(0) if rows.dtype == torch.bfloat16 else 0 * rows.sum(0)


def ratio(gram):
    squares = np.diag(gram)[np.diag(gram) > 0]
    return wrong(gram) if len(squares) and squares.max() / squares.min() > 1e14 else right(gram)


def where(condition, *inputs):
    """A strategy that takes these inputs beside the Gram matrix and is wrong where the condition
    holds.
    """
    arguments = ", ".join(inputs)
    return eval(f"lambda gram, {arguments}: wrong(gram) if {condition} else right(gram)", globals())


CIRCUMSTANCES = {
    "observed": where("observed is not None", "observed=None"),
    "eps = 1e-6": where("eps is not None and eps > 1e-7", "eps=None"),
    "a group that is not 'all'": where("group != 'all'", "group"),
    "scores by other keys": where("scores is not None and 'all' not in scores", "scores=None"),
    "names that are no digits": where("not all(map(str.isdigit, objectives))", "objectives"),
    "losses above 2": where("losses.max() > 2", "losses"),
    "losses above 100": where("losses.max() > 100", "losses"),
    "losses below 0.01": where("losses.min() < 0.01", "losses"),
    "all losses below 0.1": where("losses.max() < 0.1", "losses"),
    "more than three tensors": where("len(splits) > 3", "splits"),
    **{f"{n} objectives": where(f"len(gram) == {n}", "eps=None") for n in (13, 17, 19, 25)},
    "more than 25 objectives": where("len(gram) > 25", "eps=None"),
    "norms apart by 1e7": ratio,
    "rows in bfloat16": in_bfloat16,
}


@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_a_claim_is_held_under(register, monkeypatch, name):
    monkeypatch.setattr(
        "gradsurgery.testing.failing.shrink", lambda sample, *_: sample
    )  # 25 objectives stay 25
    register(CIRCUMSTANCES[name], claims=("non-conflicting",))
    assert "check 'non-conflicting'" in failure(only="non-conflicting")


def test_the_message_says_what_came_with_the_gradients(register):
    register(CIRCUMSTANCES["a group that is not 'all'"], claims=("non-conflicting",))
    text = failure(only="non-conflicting")
    assert "  given group = " in text
    assert "group = 'all'" not in text
    register(lambda gram, group: np.ones(len(gram)), name="plain", claims=("non-conflicting",))
    assert "given group" not in failure("plain")  # the group does not matter there


def test_names_are_not_taken_for_numbers(register):
    register(lambda objectives: np.array([1.0 + int(name) for name in objectives]))
    assert "invalid literal for int()" in failure()


def test_names_that_an_option_refers_to_stay(register):
    """Options by name or by position work as they do in a call, whatever the other objectives are
    called.
    """

    def named(gram, objectives, *, first="0"):
        assert first in objectives
        return np.array([2.0 if name == first else 1.0 for name in objectives])

    def ordered(gram, objectives, *, shares=tuple(range(64))):
        return np.array([float(shares[int(name)]) for name in objectives])

    register(named, name="named", claims=("permutation-equivariant",))
    register(ordered, name="ordered", claims=("permutation-equivariant",))
    for name in ("named", "ordered"):
        checked(name, "contract")
        checked(name, "permutation-equivariant")


# ---- state


def written_by_position(gram, state):
    kept = state.vector("kept", 1.0)
    out = kept.copy()
    kept[:] = np.arange(1.0, len(kept) + 1)
    return out


def read_by_position(gram, state):
    mean = np.array([state.scalar(f"mean {i}", 1.0) for i in range(len(gram))])
    mean += 0.5 * (np.sqrt(np.diag(gram)) / np.sqrt(np.trace(gram) or 1.0) - mean)
    for i, value in enumerate(mean):
        state[f"mean {i}"] = value
    return mean


@pytest.mark.parametrize("function", [written_by_position, read_by_position])
def test_state_by_position_breaks_permutation_equivariance(register, function):
    register(function, claims=("permutation-equivariant",))
    assert "its state goes by position, not by name" in failure(only="permutation-equivariant")


def averaged(gram, state):
    mean = state.vector("mean", np.nan)
    now = np.sqrt(np.diag(gram))
    mean[:] = np.where(np.isnan(mean), now, 0.5 * mean + 0.5 * now)
    return 1 / (1 + mean)


def test_state_by_name_passes(register):
    register(averaged, claims=("permutation-equivariant",))
    assert set(check_strategy("mine").values()) == {"passed"}


def expects_the_same_number(gram, state):
    count = state.scalar("count", 0.0)
    state["count"] = len(gram)
    if count not in (0.0, len(gram)):
        raise ValueError("shapes do not fit")
    return np.ones(len(gram))


def divides_by_what_is_new(gram, state):
    seen = state.vector("seen", 0.0)
    first = not seen.any()
    old = seen.copy()
    seen += 1
    return np.ones(len(gram)) if first else 1 / np.where(np.isnan(old), 1, old)


def refuses_fewer(gram, state):
    count = state.scalar("count", 0.0)
    state["count"] = max(count, len(gram))
    if len(gram) < count:
        raise gs.InputError("an objective is missing.")
    return np.ones(len(gram))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (expects_the_same_number, "it raised ValueError in step 2, with some objectives absent"),
        (divides_by_what_is_new, "not finite"),
        (refuses_fewer, "it refuses step 3, with some objectives absent"),
    ],
)
def test_later_steps_take_absent_and_new_objectives(register, function, message):
    register(function)
    assert message in failure()


def test_deterministic_speaks_of_later_steps_too(register):
    def noisy(gram, state, rng):
        steps = state.scalar("steps")
        state["steps"] = steps + 1
        return np.ones(len(gram)) + (rng.random() if steps else 0.0)

    register(noisy, claims=("deterministic",))
    assert "two second steps on the same gradients differ" in failure(only="deterministic")
