"""What a comparison with one baseline found: plain data, with the words."""

from dataclasses import dataclass

from gradsurgery.compare.statistics.pairs import Pairs

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """One strategy against the baseline, on one metric.

    Differences are the strategy's figures minus the baseline's, in the metric's unit and
    direction: where lower is better, a negative difference is a gain.

    Attributes:
        strategy: its label.
        verdict: "equivalent", "better", "worse", "undecided" or "identical".
        sentence: the verdict in words, with its numbers.
        pairs: the seeds, the differences, and the seeds that were left out.
        mean: the mean difference; None without a seed in common.
        sd: the sample standard deviation of the differences; None below two seeds.
        interval: the 95 % paired t interval; None below two seeds or where nothing varies.
        narrow: the 90 % paired t interval, that of the equivalence test; None likewise.
        corrected: the 95 % interval for resamples of one pool; None likewise, or with no ratio.
        p: of the paired t-test; 1 where there is no test.
        adjusted: p after Holm over the family.
        equivalence_p: of the two one-sided tests; None without δ or without a test.
        seeds_needed: where undecided, the number of seeds that it would take; None where none do.
    """

    strategy: str
    verdict: str
    sentence: str
    pairs: Pairs
    mean: float | None
    sd: float | None
    interval: Bounds | None
    narrow: Bounds | None
    corrected: Bounds | None
    p: float
    adjusted: float
    equivalence_p: float | None
    seeds_needed: int | None = None


@dataclass(frozen=True)
class Family:
    """All strategies of a task against one baseline, on one metric declared beforehand.

    Attributes:
        baseline: its label.
        better: "higher" or "lower".
        delta: the difference that matters, δ; None where none was declared.
        ratio: the ratio of the corrected interval; None for independent data.
        comparisons: one per strategy, in the order given.
        estimand: what the mean difference is over, in words.
        visible: the least difference seen with 80 % power, without and with Holm, for the
            smallest number of seeds and the median standard deviation; None without a test.
        footer: `visible` in words.
    """

    baseline: str
    better: str
    delta: float | None
    ratio: float | None
    comparisons: tuple[Comparison, ...]
    estimand: str
    visible: tuple[float, float] | None
    footer: str
