"""A verdict per strategy of one task, from its paired differences to one baseline."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from gradsurgery.compare.statistics import intervals, words
from gradsurgery.compare.statistics.family import Bounds, Comparison, Family
from gradsurgery.compare.statistics.pairs import Pairs, pair, sign_of
from gradsurgery.compare.statistics.power import least_visible, seeds_needed
from gradsurgery.errors import InputError, one_of

ALPHA = 0.05


def judge(
    figures: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    better: str = "higher",
    unit: str = "",
    delta: float | None = None,
    ratio: float | None = None,
    judge_by: str = "plain",
) -> Family:
    """Give every strategy of one task a verdict against one baseline.

    The family of Holm's correction is all strategies but the baseline, on this one metric. The
    rules, of which the first that applies counts:

    1. "undecided" with fewer than two seeds in common: there is no interval.
    2. "identical": each seed has the same figure on both sides, to float32 rounding.
    3. "undecided" where the difference is the same in all seeds and not zero. The t-test would
       find p = 0, but a spread of zero is no estimate of a spread: the seeds vary nothing that
       matters, or the figure is coarse.
    4. "equivalent": the 90 % interval lies within ±δ (two one-sided tests at 5 %). It takes
       precedence over a difference that is seen and smaller than δ. Without δ it is not given.
       It is not part of the Holm family: each such verdict errs in at most 5 % by itself, and of
       k strategies that truly differ by δ up to 5 k % may have one wrongly called equivalent.
    5. "better" or "worse": p after Holm is at most 0.05. A strategy without a test (rules 1 to 3)
       stays in the family, with p = 1: a family that shrinks after the fact is not one declared.
    6. "undecided": with the seeds it would take to see, at Holm's first level 0.05/m, a
       difference of δ with 80 % power. Without δ it is the observed mean difference, a rougher
       answer: that mean is itself uncertain.

    Args:
        figures: strategy -> seed -> figure, the baseline among them.
        baseline: its label.
        better: "higher" or "lower", which figures are better.
        unit: the unit of a difference, such as "points".
        delta: the difference that matters, above 0, declared beforehand.
        ratio: where the seeds re-split one pool of data, see `standard_error`.
        judge_by: "plain" or "corrected", the interval that decides. The plain one is about the
            seeds on these data; the corrected one, which needs a ratio, is about new data too.

    Raises:
        InputError: for NaN, an unknown baseline or direction, and wrong numbers.

    >>> from gradsurgery.compare.statistics import judge
    >>> runs = {
    ...     "sum": {0: 90.1, 1: 91.0, 2: 90.4, 3: 89.8},
    ...     "mgda": {0: 87.9, 1: 89.1, 2: 88.4, 3: 87.5},
    ... }
    >>> family = judge(runs, "sum", unit="points", delta=1.0)
    >>> print(family.comparisons[0].sentence)
    mgda is worse than sum: -2.10 points, 95 % interval -2.39 to -1.81 points, 4 seeds, p < 0.001.
    """
    direction = sign_of(better)
    if baseline not in figures:
        raise InputError(one_of("baseline", baseline, figures))
    if judge_by not in ("plain", "corrected"):
        raise InputError(one_of("judge_by", judge_by, ("plain", "corrected")))
    if judge_by == "corrected" and ratio is None:
        raise InputError("judge_by='corrected' needs a ratio, such as n_test/n_train.")
    if delta is not None:
        delta = intervals.checked_delta(delta)
    used = ratio if judge_by == "corrected" else None
    others = [label for label in figures if label != baseline]
    found = [_measured(x, pair(figures[x], figures[baseline]), delta, ratio, used) for x in others]
    adjusted = intervals.holm([x.p for x in found])
    judged = tuple(
        _judged(
            replace(x, adjusted=float(p)),
            _Rules(baseline, direction, better, unit, delta, used, len(found)),
        )
        for x, p in zip(found, adjusted, strict=True)
    )
    visible, footer = _footer(judged, unit, used)
    parts = [words.ESTIMAND]
    parts += [words.CORRECTED] if ratio is not None else []
    parts += [words.EQUIVALENCE] if delta is not None else []
    return Family(baseline, better, delta, ratio, judged, " ".join(parts), visible, footer)


@dataclass(frozen=True)
class _Rules:
    """What the verdicts of one family have in common."""

    baseline: str
    sign: int
    better: str
    unit: str
    delta: float | None
    ratio: float | None
    size: int


def _measured(
    label: str, pairs: Pairs, delta: float | None, ratio: float | None, used: float | None
) -> Comparison:
    """The numbers of a comparison, without a verdict; `used` is the ratio that decides."""
    values, varies = np.array(pairs.differences), pairs.varies
    tested = varies and pairs.n > 1

    def interval(level: float, ratio: float | None) -> Bounds | None:
        if not tested:
            return None
        low, high = intervals.t_interval(values, level, ratio)
        return float(low), float(high)

    return Comparison(
        strategy=label,
        verdict="undecided",
        sentence="",
        pairs=pairs,
        mean=float(values.mean()) if pairs.n else None,
        sd=None if pairs.n < 2 else float(intervals.deviation(values)) if varies else 0.0,
        interval=interval(0.95, None),
        narrow=interval(0.90, used),
        corrected=None if ratio is None else interval(0.95, ratio),
        p=float(intervals.difference_p(values, used)) if tested else 1.0,
        adjusted=1.0,
        equivalence_p=float(intervals.equivalence_p(values, delta, used))
        if tested and delta is not None
        else None,
    )


def _judged(x: Comparison, rules: _Rules) -> Comparison:
    """The comparison with its verdict and its sentence."""
    against, n = f"{x.strategy} against {rules.baseline}", x.pairs.said()
    if x.pairs.n < 2:
        less = f"{against}: undecided, as an interval needs at least 2 seeds on both sides; {n}."
        return replace(x, sentence=less)
    assert x.mean is not None
    mean = words.number(x.mean, rules.unit, sign=True)
    if x.pairs.identical:
        to = ", to float32 rounding," if any(x.pairs.differences) else ""
        same = f"{x.strategy} is identical to {rules.baseline}: the same figures{to} in {n}."
        return replace(x, verdict="identical", sentence=same)
    if x.interval is None or x.narrow is None:
        constant = (
            f"{against}: undecided. The difference is {mean} in each of {n}: without a spread "
            "there is no interval. Do the seeds vary anything, and is the figure fine enough?"
        )
        return replace(x, sentence=constant)
    if x.equivalence_p is not None and x.equivalence_p < ALPHA and rules.delta is not None:
        sentence = (
            f"{x.strategy} is equivalent to {rules.baseline}: a difference below "
            f"{words.plain(rules.delta, rules.unit)} ({mean}, 90 % interval "
            f"{words.bounds(*x.narrow, rules.unit)}, {n})."
        )
        return replace(x, verdict="equivalent", sentence=sentence)
    deciding = x.interval if rules.ratio is None else x.corrected
    assert deciding is not None
    named = "95 % interval" if rules.ratio is None else "corrected 95 % interval"
    over = f" after Holm over {rules.size}" if rules.size > 1 else ""
    low = "; lower is better" if rules.sign < 0 else ""
    numbers = (
        f"{mean}, {named} {words.bounds(*deciding, rules.unit)}, {n}, "
        f"{words.probability(x.adjusted)}{over}{low}"
    )
    if x.adjusted <= ALPHA:
        verdict = "better" if x.mean * rules.sign > 0 else "worse"
        return replace(
            x,
            verdict=verdict,
            sentence=f"{x.strategy} is {verdict} than "
            f"{rules.baseline}: {numbers}.{_beside(x, rules)}",
        )
    needed, said = _needed(x, rules)
    apart = deciding[0] * deciding[1] > 0  # alone it would count; Holm is about all of them
    alone = f" The interval excludes 0, but not after Holm over {rules.size}." if apart else ""
    sentence = f"{against}: undecided ({numbers}).{alone} {said}"
    return replace(x, sentence=sentence, seeds_needed=needed)


def _beside(x: Comparison, rules: _Rules) -> str:
    """What the corrected interval adds to a verdict that the plain one gave."""
    if rules.ratio is not None or x.corrected is None or x.corrected[0] * x.corrected[1] > 0:
        return ""
    wide = words.bounds(*x.corrected, rules.unit)
    return f" The corrected interval, {wide}, includes 0: it may not hold on new data."


def _needed(x: Comparison, rules: _Rules) -> tuple[int | None, str]:
    """The number of seeds that a decision would take, and the sentence that says it."""
    assert x.sd is not None
    assert x.mean is not None
    target = abs(x.mean) if rules.delta is None else rules.delta
    what = f"a difference of {words.plain(target, rules.unit)}"
    if rules.delta is None:
        what = f"a difference as large as the observed one, {words.number(target, rules.unit)},"
    count = seeds_needed(target, x.sd, ALPHA / rules.size, rules.ratio)
    if count is None:
        more = "seeds" if rules.ratio is None else "resamples of the same data"
        return None, f"No number of {more} up to 100,000 would see {what} with 80 % power."
    if count <= x.pairs.n:
        return x.pairs.n + 1, (
            f"{words.seeds(count)} see {what} with 80 % power: the true difference may lie close "
            "to it, and more seeds are needed to tell."
        )
    return count, f"It would take {words.seeds(count)} to see {what} with 80 % power."


def _footer(
    judged: tuple[Comparison, ...], unit: str, ratio: float | None
) -> tuple[tuple[float, float] | None, str]:
    """The least visible difference without and with Holm, and in words."""
    tested = [x for x in judged if x.interval is not None]
    if not tested:
        return None, "No comparison has a spread over seeds: nothing could be seen."
    n = min(x.pairs.n for x in tested)
    sd = float(np.median([x.sd for x in tested if x.sd is not None]))
    alone, first = (least_visible(sd, n, ALPHA / m, ratio) for m in (1, len(judged)))
    after = (
        f" (after Holm over {len(judged)}: below {words.number(first, unit)})"
        if len(judged) > 1
        else ""
    )
    return (alone, first), (
        f"With {words.seeds(n)} and differences of standard deviation {words.number(sd, unit)}, "
        f"the median over strategies, true differences below {words.number(alone, unit)}{after} "
        "are seen in fewer than 80 % of such comparisons."
    )
