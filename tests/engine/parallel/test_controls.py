"""The controls of a step over ranks: lengths of directions."""

import pytest

import gradsurgery as gs
from tests.engine.parallel.test_parts import compared, steps
from tests.support.joined import Encoders

pytestmark = pytest.mark.exhaustive


def as_long(run):
    return steps(run, "nash-mtl", length="sum")


def as_long_rows(run):
    return steps(run, "graddrop", length="sum")


def as_long_per_tensor(run):
    strategy = gs.get_strategy("mmpareto", rescale="tensor")
    return steps(run, strategy, length="sum", kind=Encoders)


def as_long_losses(run):
    return steps(run, "dwa", length="sum", every=2)


def as_long_in_low_memory(run):
    return steps(run, "imtl-g", length="sum", memory="low")


LENGTHS = [as_long, as_long_rows, as_long_per_tensor, as_long_losses, as_long_in_low_memory]


def test_lengths_are_those_of_the_joined_batch():
    compared(LENGTHS)
