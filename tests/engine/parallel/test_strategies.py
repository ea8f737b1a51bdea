"""Every strategy over ranks does what one process does on the joined batch."""

import pytest

from tests.support.joined import EXAMPLES, Encoders, Tasks, apart, on_world, trained
from tests.support.ranks import on_ranks
from tests.support.shipped import LEAST, SHIPPED

SOME = ("mgda", "pcgrad", "mmpareto", "graddrop", "moco", "uw")
CLOSE = 1e-5


def compared(kind, strategies, world, **settings):
    ranks = on_ranks(world, on_world, kind, strategies, settings, limit=150)
    for i, strategy in enumerate(strategies):
        one = trained(kind, strategy, list(range(EXAMPLES)), process_group=None, **settings)
        assert apart([own[i] for own in ranks], one) < CLOSE, strategy


@pytest.mark.parametrize("kind", [Tasks, Encoders])
def test_every_strategy_on_two_ranks(kind):
    fewest = 3 if kind is Tasks else 2  # objectives of a group of several
    compared(kind, [name for name in SHIPPED if LEAST.get(name, 2) <= fewest], 2)


@pytest.mark.parametrize("world", [1, 3, 4])
def test_other_numbers_of_ranks(world):
    compared(Encoders, SOME, world)
