"""What the conformance checks say of strategies that break them, and of how they are called."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.testing import ConformanceError, check_strategy, checks_of, parametrize_with_checks


def test_the_message_has_the_claim_and_the_jacobian(register):
    register(lambda gram: np.ones(len(gram)), claims=("deterministic", "non-conflicting"))
    with pytest.raises(ConformanceError) as caught:
        check_strategy("mine")
    text = str(caught.value)
    assert "'non-conflicting'" in text
    assert "[n, d] = [2, 1]" in text  # two opposite numbers are the smallest conflict
    assert "Jd = " in text
    rows = torch.tensor(
        eval(text.split("]:\n")[1].split("\n  weights")[0].strip()), dtype=torch.float64
    )
    assert (rows @ gs.get_strategy("mine")(rows)).min() < 0  # the Jacobian as printed shows it


def test_function_name_and_bound_strategy_are_the_same(register):
    function = register(
        lambda gram, *, power=1.0: np.diag(gram) ** -power,
        claims=("deterministic",),
        variants=({"power": 2.0},),
    )
    with pytest.raises(ConformanceError):  # a zero gradient: infinite weights
        check_strategy(function)
    function = register(
        lambda gram, *, power=1.0: np.full(len(gram), power),
        name="other",
        claims=("deterministic",),
        variants=({"power": 2.0},),
    )
    expected = {
        "contract": "passed",
        "deterministic": "passed",
        "contract [power=2.0]": "passed",
        "deterministic [power=2.0]": "passed",
    }
    assert check_strategy(function) == check_strategy("other") == expected
    register(function, name="alias")
    with pytest.raises(gs.InputError, match="registered as 'other', 'alias'"):
        check_strategy(function)
    assert set(check_strategy(gs.get_strategy("other", power=3.0))) == {"contract", "deterministic"}


def test_expected_failures(register):
    register(lambda gram: np.ones(len(gram)), claims=("deterministic", "non-conflicting"))
    results = check_strategy("mine", expected_failures={"non-conflicting": "it is only a sum"})
    assert results == {
        "contract": "passed",
        "non-conflicting": "expected failure: it is only a sum",
        "deterministic": "passed",
    }
    with pytest.raises(ConformanceError, match=r"expected to fail \(no reason\) but passes"):
        check_strategy("sum", expected_failures={"deterministic": "no reason"})
    with pytest.raises(gs.InputError, match="Did you mean 'non-conflicting'"):
        check_strategy("mine", expected_failures={"non-conflict": "a typo"})
    with pytest.raises(gs.InputError, match="expected a dict from the name of a check"):
        check_strategy("mine", expected_failures=["non-conflicting"])
    with pytest.raises(gs.InputError, match="expected a dict from the name of a check"):
        parametrize_with_checks(["mine"], expected_failures={"mine": "non-conflicting"})
    parametrize_with_checks(
        ["cagrad", gs.get_strategy("cagrad", c=0.3)],
        expected_failures={"cagrad": {"contract [c=0.0]": "a reason"}},
    )


def test_a_withheld_promise_fails_for_ours_only(register):
    def withholds(gram):
        return np.full(len(gram), 1 / len(gram))

    register(withholds, claims=("deterministic",))
    check_strategy("mine")  # others may promise as little as they like
    withholds.__module__ = "gradsurgery.strategies.mine"
    with pytest.raises(ConformanceError) as caught:
        check_strategy("mine")
    for name in ("sums-to-one", "homogeneous", "permutation-equivariant"):
        assert f"does not claim {name!r}" in str(caught.value)
    assert "does not claim 'non-conflicting'" not in str(caught.value)


def test_a_domain_is_a_number_of_objectives(register):
    def needs_four(gram):
        if len(gram) < 4:
            raise gs.InputError("this needs four objectives.")
        return np.ones(len(gram))

    register(needs_four, claims=("deterministic", gs.homogeneous(1)))
    assert set(check_strategy("mine").values()) == {"passed"}

    def needs_luck(gram):
        if np.trace(gram) > 1e10:
            raise gs.InputError("too large for me.")
        return np.ones(len(gram))

    register(needs_luck, name="picky")
    with pytest.raises(ConformanceError, match="refuses some gradients: too large for me"):
        check_strategy("picky")
    register(
        lambda observed: np.ones(1), name="wants-observed"
    )  # there is nothing observed at a first step
    with pytest.raises(ConformanceError, match="needs the input 'observed'"):
        check_strategy("wants-observed")

    def alone(gram):
        if len(gram) > 1:
            raise gs.InputError("one is enough.")
        return np.ones(1)

    register(alone, name="alone", claims=("strict",))
    with pytest.raises(ConformanceError, match="refuses two or more objectives: one is enough"):
        check_strategy("alone")


def test_a_condition_that_is_never_met_is_no_promise(register):
    register(
        lambda gram: np.ones(len(gram)),
        claims=("deterministic", gs.when("n > 99", lambda n: n > 99, "strict")),
    )
    with pytest.raises(ConformanceError, match=r"'strict when n > 99' hold for no sample"):
        check_strategy("mine")
    assert [case.id for case in parametrize_with_checks(["mine"]).args[1]] == [
        "mine-contract",
        "mine-deterministic",
        "mine-conditions",
    ]


def test_every_input_can_be_checked(register):
    """Strategies that take scores, several batches, torch's random numbers, tensor sizes, or go by
    the objectives' names.
    """

    def by_score(gram, scores, group):
        return np.full(len(gram), scores[group])

    def dropped(rows, generator):
        return (
            rows * (torch.rand(rows.shape[1], generator=generator, dtype=rows.dtype) < 0.5)
        ).sum(0)

    def per_tensor(block_grams, splits):
        assert len(splits) == len(block_grams)
        return np.ones(block_grams.shape[:2])

    def by_name(objectives):
        return np.array([1.0 + len(name) + ord(name[0]) for name in objectives])

    register(
        by_score,
        name="by-score",
        claims=("deterministic", "permutation-equivariant", "homogeneous(1)"),
    )
    register(
        lambda cross: np.full(cross.shape[:3:2], 1 / len(cross)),
        name="by-batch",
        claims=("deterministic", "permutation-equivariant", "homogeneous(1)"),
    )
    register(dropped, name="dropped", claims=("permutation-equivariant", gs.homogeneous(1)))
    register(per_tensor, name="per-tensor", claims=("deterministic", "permutation-equivariant"))
    register(by_name, name="by-name", claims=("deterministic", "permutation-equivariant"))
    for name in ("by-score", "by-batch", "dropped", "per-tensor", "by-name"):
        assert set(check_strategy(name).values()) == {"passed"}


def test_exact_directions_from_rows_are_not_judged_by_their_rounding(register):
    from gradsurgery.solvers import min_norm

    def hull(rows):
        wide = rows.double()
        return torch.as_tensor(min_norm((wide @ wide.T).numpy()).value @ wide.numpy()).to(rows)

    register(hull, name="hull", claims=("non-conflicting", "permutation-equivariant"))
    assert set(check_strategy("hull").values()) == {"passed"}
    register(lambda rows: -1e-7 * rows.sum(0), name="backwards", claims=("non-conflicting",))
    with pytest.raises(ConformanceError, match="conflicts with d"):
        check_strategy("backwards")


def test_required_options_come_from_variants(register):
    register(lambda gram, *, factor: np.full(len(gram), factor), claims=("deterministic",))
    with pytest.raises(gs.InputError, match="variants="):
        check_strategy("mine")
    assert check_strategy(gs.get_strategy("mine", factor=2.0))["deterministic"] == "passed"
    register(
        lambda gram, *, factor: np.full(len(gram), factor),
        name="declared",
        claims=("deterministic",),
        variants=({"factor": 2.0},),
    )
    assert set(check_strategy("declared")) == {
        "contract [factor=2.0]",
        "deterministic [factor=2.0]",
    }
    with pytest.raises(gs.StrategyError, match="Did you mean 'factor'"):
        register(lambda gram, *, factor=1.0: gram, name="typo", variants=({"fctor": 2.0},))


def breaks_in_place(gram):
    gram *= 2
    return np.ones(len(gram))


def draws_globally(gram):
    return np.ones(len(gram)) + 0 * np.random.rand()


def draws_from_torch(gram):
    return np.ones(len(gram)) + 0 * float(torch.rand(()))


class Counter:
    calls = 0


def remembers_in_a_global(gram):
    Counter.calls += 1
    return np.full(len(gram), float(Counter.calls))


def raises(gram):
    return np.linalg.inv(gram) @ np.ones(len(gram))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (breaks_in_place, "changed its input 'gram' in place"),
        (draws_globally, "global random generator"),
        (draws_from_torch, "global random generator"),
        (remembers_in_a_global, "the same call"),
        (raises, "it raised"),
        (lambda gram: np.ones(len(gram) + 1), r"it raised StrategyError.*shape"),
        (lambda gram: np.ones(len(gram)) / np.trace(gram), "not finite"),
    ],
)
def test_the_contract(register, function, message):
    register(function)
    with np.errstate(all="ignore"), pytest.raises(ConformanceError, match=message):
        check_strategy("mine")


def test_strategies_with_state_and_rows_are_checked(register):
    def averaged(gram, state):
        mean = 0.5 * state.vector("mean", 1.0) + 0.5 * np.sqrt(np.diag(gram))
        state["mean"] = mean
        return 1 / (1 + mean)

    register(averaged, name="averaged", claims=("deterministic", "permutation-equivariant"))
    assert set(check_strategy("averaged").values()) == {"passed"}

    def sign(rows):
        return rows.sign().sum(0)

    register(
        sign, name="sign", claims=("deterministic", "permutation-equivariant", gs.homogeneous(0))
    )
    assert set(check_strategy("sign").values()) == {"passed"}
    register(sign, name="signs", claims=("non-conflicting",))
    with pytest.raises(ConformanceError, match="conflicts with d"):
        check_strategy("signs")
    register(sign, name="sums", claims=("sums-to-one",))
    with pytest.raises(ConformanceError, match="no weights"):
        check_strategy("sums")


def test_unknown_strategies_are_errors():
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'mgda'"):
        check_strategy("mdga")
    with pytest.raises(gs.InputError, match="not registered"):
        check_strategy(lambda gram: gram)
    with pytest.raises(gs.InputError, match=r"Write \['sum'\]"):
        parametrize_with_checks("sum")
    with pytest.raises(gs.InputError, match="Did you mean 'deterministic'"):
        parametrize_with_checks(["sum"], expected_failures={"sum": {"determinstic": "typo"}})
    with pytest.raises(gs.InputError, match="Did you mean 'sum'"):
        parametrize_with_checks(["sum"], expected_failures={"sun": {"deterministic": "typo"}})


def test_checks_follow_the_claims():
    assert [
        check.name
        for check in checks_of(gs.get_strategy("mean"))
        if not check.name.startswith("unclaimed")
    ] == [
        "contract",
        "homogeneous",
        "permutation-equivariant",
        "deterministic",
        "sums-to-one",
    ]
