"""Several processes: what would let ranks drift apart is an error."""

import pytest
import torch

import gradsurgery as gs
from tests.support.ranks import on_ranks
from tests.support.refusals import refused
from tests.support.two_heads import Two


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
        for found in on_ranks(world, refused, world, tmp_path / f"store{world}"):
            assert found.keys() == wrapped | plain | told | together
            errors = {name for name, said in found.items() if said}
            assert errors == wrapped | (plain if world == 2 else set()), found
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
