"""What the conformance checks have to see: inputs changed in place, and mistakes that show only off the beaten track."""

from typing import Annotated

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.contract import Range
from gradsurgery.testing import ConformanceError, check_strategy
from gradsurgery.testing.cases import cases_of
from gradsurgery.testing.checks import common_samples


@pytest.fixture
def register(monkeypatch):
    """Register a function for one test only."""
    import gradsurgery.contract.registry as registry

    gs.strategy_names()
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))

    def add(function, name="mine", **settings):
        return gs.strategy(name, **{"paper": "a test", "scale": "own", "claims": (), **settings})(
            function
        )

    return add


def right(gram):
    """A direction of zero conflicts with nothing, and costs nothing; `wrong` is the sum."""
    return np.zeros(len(gram))


def wrong(gram):
    return np.ones(len(gram))


def checked(name, only):
    for bound, check, label in cases_of(name):
        if only in (None, label):
            check(bound)


def failure(name="mine", only=None):
    with pytest.raises(ConformanceError) as caught, np.errstate(all="ignore"):
        checked(name, only)
    return str(caught.value)


# ---- inputs changed in place


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
    """Checks may run one by one, as pytest cases do: none of them may spoil what the next one gets."""
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


# ---- mistakes that show only in some circumstances


def in_bfloat16(rows):
    return rows.sum(0) if rows.dtype == torch.bfloat16 else 0 * rows.sum(0)


def ratio(gram):
    squares = np.diag(gram)[np.diag(gram) > 0]
    return wrong(gram) if len(squares) and squares.max() / squares.min() > 1e14 else right(gram)


def where(condition, *inputs):
    """A strategy that takes these inputs beside the Gram matrix and is wrong where the condition holds."""
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
        "gradsurgery.testing.checks.shrink", lambda sample, *_: sample
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
    """Options by name or by position work as they do in a call, whatever the other objectives are called."""

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


# ---- options with few values


def test_every_value_of_an_option_with_few_values_is_checked(register):
    from typing import Literal

    def chosen(gram, *, size: Literal["sum", "root"] = "sum", flip=False):
        weights = np.ones(len(gram)) / (np.sqrt(np.trace(gram)) or 1.0 if size == "root" else 1.0)
        return -weights if flip else weights

    register(chosen, claims=("deterministic", gs.homogeneous(1)))
    text = failure()
    assert "size='root', flip=False), check 'homogeneous'" in text
    assert "size='sum', flip=False), check" not in text
    register(chosen, name="known", claims=("deterministic",), variants=({"flip": True},))
    settings = ("", " [flip=True]", " [size='root']")
    assert [label for _, _, label in cases_of("known")] == [
        f"{check}{s}" for s in settings for check in ("contract", "deterministic")
    ]


def test_a_number_that_no_variant_names_is_halved(register):
    def mixed(gram, *, soft=0.0):
        return np.full(len(gram), soft)

    register(mixed, claims=("non-conflicting",))
    assert "soft=0.5), check 'non-conflicting'" in failure(only="non-conflicting [soft=0.5]")
    condition = gs.when("soft = 0", lambda options: options["soft"] == 0, "non-conflicting")
    register(mixed, name="said", claims=(condition,))
    assert [label for _, _, label in cases_of("said")] == [
        "contract",
        "non-conflicting",
        "contract [soft=0.5]",
    ]
    checked("said", "contract [soft=0.5]")

    def above(gram, *, c=1.0):
        if c < 1:
            raise gs.InputError("c is at least 1.")
        return np.ones(len(gram))

    register(above, name="above")
    assert set(check_strategy("above").values()) == {"passed"}


def test_a_value_whose_extra_is_not_installed_is_left_out(register):
    from typing import Literal

    def chosen(gram, *, solver: Literal["own", "theirs"] = "own"):
        if solver == "theirs":
            raise gs.MissingExtraError("this needs an extra.")
        return np.ones(len(gram))

    register(chosen)
    assert set(check_strategy("mine").values()) == {"passed"}


# ---- what these found in the library


def test_cagrad_conflicts_with_no_gradient_of_an_inexact_gram():
    """Where the mean is short beside the gradients, at eps = 1e-6 (float32), it was returned as it is."""
    rows = np.array([[-1.0], [0.997]])
    for radius in (1.0, 2.0):
        weights = gs.get_strategy("cagrad", c=radius).weights(rows @ rows.T, eps=1e-6)
        assert (rows @ rows.T @ weights).min() >= -1e-9


# ---- what the README says


def test_the_readme_promises_nothing_unconditional_of_later_steps():
    from pathlib import Path

    from gradsurgery.contract.registry import registered

    text = (Path(__file__).parent.parent / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    head = next(line for line in lines if line.startswith("| name | what it does"))
    assert "| non-conflicting |" in head
    rows = {
        line.split("`")[1]: line.split(" | ")[2]
        for line in lines[lines.index(head) + 1 :]
        if line.startswith("| `")
    }
    found = 0
    for name in gs.strategy_names():
        chosen = registered(name)
        if chosen.shipped and any(claim.name == "non-conflicting" for claim in chosen.claims):
            keeps = "state" in chosen.inputs if not chosen.required else False
            found += keeps
            assert rows[name].endswith("from a fresh state") == keeps, name
    assert found >= 2


def whole(gram, *, c: float = 1):
    return (right if c == 1 else wrong)(gram)


def optional(gram, *, c: float | None = None):
    return (right if c is None else wrong)(gram)


def ranged(
    gram, *, c: Annotated[float, Range(0, 1)] | None = None, k: Annotated[float, Range(0.9)] = 1
):
    return (right if c is None else wrong)(gram)


@pytest.mark.parametrize("function", [whole, optional, ranged])
def test_numbers_are_varied_where_the_annotation_says_float(register, function):
    register(function, claims=("non-conflicting",))
    with pytest.raises(ConformanceError, match="c=0.5"):
        check_strategy("mine")


def test_whole_numbers_are_varied_by_variants_alone(register):
    def counted(gram, *, k: int = 4, j=2, f: float = 3, g: float | None = None):
        return right(gram)

    register(counted, claims=("non-conflicting",))
    labels = {label for _, _, label in cases_of("mine")}
    assert any("f=1.5" in label for label in labels)
    assert any("g=0.5" in label for label in labels)
    assert not any("k=" in label or "j=" in label for label in labels)
