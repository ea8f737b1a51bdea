"""A tuned comparison that is killed while rates are added: nothing is lost or different."""

import os
import signal
import subprocess
import sys
import time

import pytest

from gradsurgery.compare import Plan, compare, read_results
from tests.compare import tuned_task
from tests.compare.test_killed import children, gone
from tests.compare.test_tuning import told
from tests.support.paths import ROOT

TARGET = f"{tuned_task.__name__}:slow-way"


@pytest.mark.exhaustive
def test_a_tuned_comparison_that_is_killed_goes_on_to_the_rows_of_one_that_is_not(tmp_path):
    plan = Plan.of([TARGET], ["sum", "mgda"], [0], tune=True, baselines="none")
    compare(plan, tmp_path / "whole")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "gradsurgery", "compare", TARGET, "--strategies", "sum,mgda"]
    command += ["--seeds", "0,", "--tune", "--baselines", "none", "--out", str(out), "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 120
    while not (out / "results.jsonl").exists() or len(told(out)) < 40:  # of 36 + those added
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    workers = children(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(workers)
    kept = told(out)
    assert len(kept) < len(told(tmp_path / "whole"))
    compare(plan, out)
    assert set(kept) <= set(told(out))
    assert told(out) == told(tmp_path / "whole")
    assert len({line["key"] for line in read_results(out) if "key" in line}) == len(
        [line for line in read_results(out) if "key" in line]
    )
