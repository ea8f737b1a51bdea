"""Several processes: what would let ranks drift apart is an error."""

import os
import subprocess
import sys

import pytest
import torch

import gradsurgery as gs
from tests.support.paths import ROOT
from tests.support.two_heads import Two


def ranks(world, tmp_path):
    """What each of `world` processes prints, as a dict per rank."""
    store = tmp_path / f"store{world}"
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    commands = [
        [sys.executable, "-m", "tests.support.refusals", str(rank), str(world), str(store)]
        for rank in range(world)
    ]
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)
        for command in commands
    ]
    try:
        outputs = [run.communicate(timeout=120) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert all(run.returncode == 0 for run in runs), outputs[0][1][-2000:]
    pairs = [[line.partition(" InputError: ") for line in out.splitlines()] for out, _ in outputs]
    return [
        {(a if sep else a.removesuffix(" fine")): said for a, sep, said in found} for found in pairs
    ]


def test_ranks_that_would_drift_apart_are_an_error_unless_asked_for(tmp_path):
    wrapped = {"ddp, static graph", "ddp, composable", "fsdp1"}
    wrapped |= {"fsdp2 after the constructor", "fsdp2, no parameters", "wrong"}
    plain = {
        "ddp.module",
        "plain",
        "plain, made before",
        "plain, accumulate",
        "plain, inspect",
        "plain, list",
        "plain, no parameters",
    }
    told = {"plain, None", "inspect, None", "one-shot, None", "ddp, None"}
    together = {"ddp", "ddp inside", "ddp in a group", "ddp, one-shot", "plain, group"}
    together |= {"dtensor", "fsdp2"}
    for world in (1, 2):
        for found in ranks(world, tmp_path):
            assert found.keys() == wrapped | plain | told | together
            refused = {name for name, said in found.items() if said}
            assert refused == wrapped | (plain if world == 2 else set()), found
            assert "static_graph" in found["ddp, static graph"]
            assert "was sharded" in found["fsdp2 after the constructor"]
            assert "spread over" in found["fsdp2, no parameters"]
            if world == 2:
                assert "2 ranks" in found["plain"]


@pytest.mark.parametrize("given", ["world", 1, True, object()])
def test_what_is_no_process_group_is_refused(given):
    for make in (
        lambda: gs.Surgery("sum", Two(), process_group=given),
        lambda: gs.inspect([torch.ones((), requires_grad=True)], process_group=given),
    ):
        with pytest.raises(
            gs.InputError, match=r"process_group: expected 'auto' .* a group .* or None .*; got"
        ):
            make()
