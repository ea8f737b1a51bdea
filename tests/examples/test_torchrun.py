"""The examples of several processes, each started by torchrun on two ranks."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.paths import EXAMPLES

SCRIPTS = ["data_parallel.py", "sharded.py"]


def run(*command, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "120", "GLOO_SOCKET_IFNAME": "lo", **environment},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.exhaustive
@pytest.mark.parametrize("script", SCRIPTS)
def test_two_ranks_learn_together(script):
    ranks = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    code, out, err = run(*ranks, str(EXAMPLES / script))
    if "terminate called without an active exception" in err:
        # seen once, after the work was done: a thread of torch's own as the interpreter ends
        code, out, err = run(*ranks, str(EXAMPLES / script))
    assert code == 0, err
    assert "2 ranks" in out
    found = re.findall(r"(\w+) ([\d.]+) %", out.splitlines()[-1])
    assert {name for name, _ in found} == {"left", "right"}
    assert min(float(value) for _, value in found) >= 60  # one epoch


@pytest.mark.parametrize("script", SCRIPTS)
def test_without_torchrun_it_says_how(script, fresh):
    code, _, err = fresh.program(EXAMPLES / script, COLUMNS="120")
    assert code == 2
    assert f"torchrun --nproc-per-node 2 examples/{script}" in " ".join(err.split())
