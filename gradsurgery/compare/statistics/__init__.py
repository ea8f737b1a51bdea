"""Statistics of a comparison: paired differences by seed, intervals, verdicts, relative gains.

`judge` gives a verdict per strategy of one task; `delta_m` and `mean_ranks` describe several
objectives or tasks. The functions beside them take arrays, with the seeds on the last axis.
"""

from gradsurgery.compare.statistics.family import Comparison, Family
from gradsurgery.compare.statistics.gains import Gains, Ranks, delta_m, mean_ranks
from gradsurgery.compare.statistics.intervals import (
    difference_p,
    equivalence_p,
    holm,
    standard_error,
    t_interval,
)
from gradsurgery.compare.statistics.pairs import Pairs, pair
from gradsurgery.compare.statistics.power import least_visible, power, seeds_needed
from gradsurgery.compare.statistics.verdicts import judge

__all__ = [
    "Comparison",
    "Family",
    "Gains",
    "Pairs",
    "Ranks",
    "delta_m",
    "difference_p",
    "equivalence_p",
    "holm",
    "judge",
    "least_visible",
    "mean_ranks",
    "pair",
    "power",
    "seeds_needed",
    "standard_error",
    "t_interval",
]
