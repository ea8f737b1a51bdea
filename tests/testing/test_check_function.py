"""What is found of functions that do not know this library: what they keep, and what they break."""

import random

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.testing import check_function

DRAWS = 40


def found(function, *claims, draws=DRAWS, **settings):
    return check_function(function, claims=claims or None, draws=draws, **settings)


def by_name(findings):
    return {result.name: result for result in findings.results}


def ones(G):
    return np.ones(len(G))


def mean(J):
    return J.mean(0)


@pytest.mark.parametrize("function", [ones, mean])
def test_properties_that_hold_are_told_from_those_that_do_not(function):
    results = by_name(found(function))
    holding = {name for name, result in results.items() if result.holds}
    expected = {"contract", "homogeneous(1)", "permutation-equivariant", "deterministic"}
    assert holding == expected
    assert not any(result.failed for result in results.values())  # nothing is promised
    assert ("sums-to-one" in results) == (function is ones)  # a direction has no weights
    example = results["non-conflicting"].example
    assert example.jacobian.shape == (2, 1)
    assert example.products.min() < 0
    np.testing.assert_allclose(example.gram, example.jacobian @ example.jacobian.T)


def test_a_claim_that_fails_is_a_failure_and_one_that_holds_is_not():
    findings = found(ones, "homogeneous(1)", "non-conflicting")
    assert findings.failures == ("non-conflicting",)
    assert not findings.passed
    text = str(findings)
    assert "VIOLATED on" in text
    assert text.endswith("FAILED: non-conflicting.")
    assert found(ones, "homogeneous(1)").passed
    assert found(ones, "homogeneous(2)").failures == ("homogeneous(2)",)


def test_up_to_how_many_objectives_a_property_holds():
    def first_projected(G):
        """Two gradients are projected off each other; of more the sum is taken."""
        n, weights = len(G), np.ones(len(G))
        if n == 2 and G[0, 1] < 0:
            return weights - G[0, 1] / np.diag(G)
        return weights

    result = by_name(found(first_projected, "non-conflicting", draws=150))["non-conflicting"]
    assert result.up_to == 2
    assert len(result.example.jacobian) == 3
    assert "none with n <= 2" in str(result)
    assert found(first_projected, "non-conflicting", objectives=[1, 2]).passed


def shuffled(G):
    """PCGrad with the random module."""
    weights = np.eye(len(G))
    for i, row in enumerate(weights):
        others = [j for j in range(len(G)) if j != i]
        random.shuffle(others)
        for j in others:
            if row @ G[:, j] < 0:
                row[j] -= row @ G[:, j] / G[j, j]
    return weights.sum(0)


def test_a_function_that_draws_random_numbers_is_seeded():
    before = random.getstate()
    findings = found(shuffled, "deterministic", "homogeneous(1)", draws=60)
    assert random.getstate() == before
    results = by_name(findings)
    assert results["contract"].holds
    assert results["homogeneous(1)"].holds  # with the same numbers on both sides
    assert not results["deterministic"].holds
    assert "draws from a global random generator" in " ".join(findings.notes)


def counting():
    calls = []

    def counted(G):
        calls.append(1)
        return np.full(len(G), len(calls))

    return counted


def changing(J):
    J[0] *= 2.0
    return J.sum(0)


def failing(G):
    return np.linalg.solve(G, np.ones(len(G)))


BROKEN = [
    (lambda G: np.eye(len(G)), r"it returned shape \[1, 1\]; expected 1 weights"),
    (lambda G: None, "it returned None .does it lack a return"),
    (lambda G: "weights", "it returned str; expected"),
    (lambda G: ["a"] * len(G), "it returned list; expected"),
    (lambda G: np.full(len(G), np.nan), r"weights that are not finite: \[nan\]"),
    (lambda J: J.sum(1), r"it returned shape \[\d\]; expected a direction \[d\]"),
    (lambda J: [0.0], "it returned list; expected a direction"),
    (lambda J: J.sum(0) / 0.0, "it returned numbers that are not finite"),
    (lambda J: J[0], "shares memory with its input 'rows'"),
    (changing, "it changed its input 'rows' in place"),
    (counting(), "a counter, a clock, a generator of its own"),
    (failing, "it raised LinAlgError: Singular matrix"),
    (lambda G: exit(3), r"it ended the program \(3\)"),
]


@pytest.mark.parametrize(("function", "message"), BROKEN, ids=[m[:20] for _, m in BROKEN])
def test_a_broken_contract_is_shown_on_the_smallest_gradients(function, message):
    findings = check_function(function, claims=["deterministic"], draws=15)
    assert findings.failures[0] == "contract"
    example = findings.results[0].example
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(example.says)
    assert example.jacobian.size <= 2
    assert "FAILED: contract" in str(findings)


def test_an_exception_is_shown_with_the_functions_own_lines_alone():
    example = check_function(failing, draws=15).results[0].example
    assert example.jacobian.tolist() == [[0.0]]
    assert len(example.traceback) == 1
    assert "in failing: return np.linalg.solve(G, np.ones(len(G)))" in example.traceback[0]
    assert example.traceback[0] in str(example)
    assert example.direction is None


def test_what_is_printed_warned_of_or_answered_in_float32_is_noted(capsys):
    def loud(J):
        print("step", len(J))
        np.sqrt(np.float64(-1.0))
        return J.float().mean(0)

    findings = found(loud, "deterministic", draws=12)
    assert capsys.readouterr() == ("", "")
    assert findings.passed
    notes = " ".join(findings.notes)
    assert "It prints, in " in notes
    assert "'step 1'" in notes
    assert "RuntimeWarning: invalid value encountered in sqrt" in notes
    assert "float32" in notes


def test_what_a_function_takes_is_its_parameters_name_or_found_by_trying():
    def takes(function, **settings):
        return check_function(function, claims=["deterministic"], draws=5, **settings).assumed

    assert "its parameter is named 'G'" in takes(ones)
    assert "direction [d]: its parameter is named 'J'" in takes(mean)
    assert "weights [n]: found by trying" in takes(lambda x: np.ones(len(x)))
    assert "direction [d]: found by trying" in takes(lambda x: torch.mean(x, 0))
    assert "as you said" in takes(lambda x: x.sum(0), input="rows")
    with pytest.raises(gs.InputError, match="right shape for both"):
        takes(lambda x: x.sum(0))
    with pytest.raises(gs.InputError, match="for gram it returned shape .3, 3.*for rows it raised"):
        takes(lambda x: np.asarray(x) if isinstance(x, np.ndarray) else x.nothing)
    with pytest.raises(gs.InputError, match="Did you mean 'gram'"):
        takes(ones, input="gramm")
    with pytest.raises(gs.InputError, match=r"\['lr'\] without a default"):
        takes(lambda G, lr: G)
    with pytest.raises(gs.InputError, match="expected a function or a strategy; got 3"):
        takes(3)
    wrong = check_function(lambda J: torch.mean(J, 0), input="gram", draws=5)
    assert wrong.failures == ("contract",)
    assert "right shape for --input rows" in " ".join(wrong.notes)


class Average:
    def __call__(self, J):
        return J.mean(0)


def test_an_object_a_class_and_a_strategy_will_do(temporary):
    assert found(Average(), "homogeneous(1)").passed
    assert found(Average, "homogeneous(1)").assumed.startswith("Average() called with J")

    @gs.strategy("mine", claims=("strict", gs.when("n <= 1", lambda n: n <= 1, "sums-to-one")))
    def mine(gram, losses):
        return 1.0 + losses

    for given in (mine, "mine", gs.get_strategy("mine")):
        findings = found(given)
        assert findings.failures == ("strict", "sums-to-one when n <= 1"), findings
        assert "it takes gram, losses" in findings.assumed
    assert by_name(findings)["sums-to-one"].failed is False  # where it is not claimed
    assert "given losses" not in str(findings)  # the smallest gradients have plain losses

    @gs.strategy("by-losses")
    def by_losses(gram, losses):
        return np.full(len(gram), -1.0 if losses.max() > 3 else 0.0)

    assert "    given losses = [" in str(found("by-losses", "non-conflicting"))
    with pytest.raises(gs.InputError, match="is a strategy, whose parameters say what it takes"):
        found(mine, input="gram")


def test_a_claim_that_no_draw_can_tell_is_not_kept():
    findings = found(ones, "permutation-equivariant", objectives=[1])
    assert findings.failures == ("permutation-equivariant",)
    assert "no draw can tell (claimed)" in str(findings)


def test_a_function_may_refuse_a_number_of_objectives_but_not_some_gradients():
    def two(G):
        if len(G) != 2:
            raise gs.InputError("two objectives only.")
        return np.ones(2)

    assert found(two, "homogeneous(1)").passed

    def picky(G):
        if G[0, 0] > 1:
            raise gs.InputError("too long for me.")
        return np.ones(len(G))

    example = found(picky).results[0].example
    assert example.says == "it refuses these gradients: too long for me."


@pytest.mark.parametrize(
    "settings", [{"draws": 0}, {"objectives": []}, {"objectives": [0]}], ids=str
)
def test_draws_that_are_none_are_errors(settings):
    with pytest.raises(gs.InputError, match="expected"):
        check_function(ones, **settings)
