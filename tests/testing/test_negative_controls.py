"""Negative controls: strategies that promise too much, and solvers that are subtly wrong, are
caught by the public checks.
"""

import re
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import gradsurgery as gs
from gradsurgery.testing import ConformanceError
from gradsurgery.testing.checks import checks_of
from tests.support.wrong_claims import CLAIMS
from tests.support.wrong_solvers import RIGHT, SOLVERS

CONTROLS = {**CLAIMS, **SOLVERS}


def strategy_of(function, claims):
    """A strategy that is in no registry."""
    from gradsurgery.contract.claims import as_claims

    return replace(
        gs.get_strategy("sum"),
        name="control",
        function=function,
        claims=as_claims(tuple(claims)),
        acts_on="group",
    )


def caught(name):
    """What the check that has to see it says; without a name any check of a promise may.

    The contract of a call is kept: it is a promise that is broken, not something by accident.
    """
    function, claims, expected = CONTROLS[name]
    control = strategy_of(function, claims)
    contract, *_ = checks_of(control, 4)
    _, *promises = checks_of(control)
    with np.errstate(all="ignore"):
        contract(control)
        for check in promises:
            if expected in (None, check.name):
                try:
                    check(control)
                except ConformanceError as error:
                    return str(error)
    pytest.fail(f"{name} is not caught")


@pytest.mark.parametrize("name", CONTROLS)
def test_caught(name):
    text = caught(name)
    assert "Smallest failing Jacobian" in text
    assert "check 'contract'" not in text  # caught by a promise, not by an accident
    if CONTROLS[name][2] is not None:
        assert f"check {CONTROLS[name][2]!r}" in text


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_solver_passes(name):
    right = strategy_of(*RIGHT[name])
    for check in checks_of(right, 2):
        check(right)


def test_every_claim_has_a_control():
    from gradsurgery.contract.claims import NAMES

    assert {check for _, _, check in CLAIMS.values()} == set(NAMES)


if __name__ == "__main__":
    for control in CONTROLS:
        begin = time.perf_counter()
        message = caught(control)
        spent = time.perf_counter() - begin
        print(f"{control} [{spent:.1f} s]")
        for part in message.split("\n\n"):
            check = re.search(r"check '([^']+)'", part)
            kind = re.search(r"of the kind '(.+)'\.", part)
            size = re.search(r"\[n, d\] = (\[.*?\])", part)
            print(f"    {check.group(1)}: {kind.group(1)}; shrunk to {size.group(1)}")
    sys.exit(0)
