"""300 steps of a small transformer under autocast, with overflows injected."""

import json

import pytest

from tests.support.paths import ROOT

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.support.soak import main
main(sys.argv[1])
"""


@pytest.mark.sampled(keep=lambda name: "[mgda]" in name)
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["sum", "mgda", "nash-mtl", "moco", "famo"])
def test_it_stays_finite_learns_and_grows_no_memory(strategy, fresh):
    ran = fresh(SCRIPT.format(root=str(ROOT)), strategy)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["injected"] >= 10
    assert found["skipped"] >= found["injected"]
    assert found["steps"] == 300 - found["skipped"], "a skipped step is none"
    assert found["last"] < 0.7 * found["first"]
    assert found["peak"]["300"] <= 1.02 * found["peak"]["50"]
