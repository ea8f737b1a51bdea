"""Relative gains over single-task runs (Δm), and mean ranks as a description."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gradsurgery.compare.statistics.intervals import t_interval
from gradsurgery.compare.statistics.pairs import pair, sign_of
from gradsurgery.errors import InputError

BySeed = Mapping[int, float]


@dataclass(frozen=True)
class Gains:
    """Δm per seed, in percent; higher is better.

    Attributes:
        by_seed: seed -> Δm, for the seeds in which every objective has both figures.
        dropped: the other seeds.
        mean: over seeds; None without a seed.
        interval: the 95 % t interval of the mean over seeds; None below two seeds or where
            nothing varies.
        sentence: these in words.
    """

    by_seed: dict[int, float]
    dropped: tuple[int, ...]
    mean: float | None
    interval: tuple[float, float] | None
    sentence: str


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of strategies, 1 for the best; a description and no test.

    Attributes:
        mean: strategy -> its mean rank.
        over: the columns (objectives or tasks) that were ranked.
        dropped: the columns left out: some strategy has no figure there.
    """

    mean: dict[str, float]
    over: tuple[str, ...]
    dropped: tuple[str, ...]


def delta_m(
    figures: Mapping[str, BySeed], alone: Mapping[str, BySeed], better: Mapping[str, str]
) -> Gains:
    """The mean relative gain over the same seed's single-task runs, in percent.

    Per seed, `Δm = (100/K) Σₖ sₖ (Mₖ − Bₖ)/|Bₖ|` over K objectives, with the figure Mₖ of the joint
    run, Bₖ of the run that trains objective k alone, and sₖ = 1 where higher is better, −1 where
    lower is.

    Papers differ in the sign. Here, as in Maninis et al. and LibMTL, higher is better. CAGrad,
    Nash-MTL and FAMO print the same with the other sign, as a drop: negative is better there.
    They divide by fixed numbers of one single-task run; here each seed has its own.

    Args:
        figures: objective -> seed -> figure of the joint runs.
        alone: objective -> seed -> figure of the single-task runs.
        better: objective -> "higher" or "lower".

    Raises:
        InputError: for objectives that differ between the arguments, NaN, and a single-task
            figure of 0, to which nothing is relative.

    Source:
        Maninis, Radosavovic and Kokkinos 2019, arXiv:1904.08918, equation 4.

    >>> from gradsurgery.compare.statistics import delta_m
    >>> gains = delta_m(
    ...     {"left": {0: 90.0, 1: 88.0}, "depth": {0: 0.40, 1: 0.52}},
    ...     {"left": {0: 80.0, 1: 80.0}, "depth": {0: 0.50, 1: 0.50}},
    ...     {"left": "higher", "depth": "lower"},
    ... )
    >>> {seed: round(gain, 2) for seed, gain in gains.by_seed.items()}
    {0: 16.25, 1: 3.0}
    """
    names = list(figures)
    for what, given in (("alone", alone), ("better", better)):
        if set(given) != set(names):
            raise InputError(
                f"delta_m: figures have the objectives {sorted(names)}, {what} has "
                f"{sorted(given)}: give the same ones."
            )
    if not names:
        raise InputError("delta_m: no objectives were given.")
    both = {name: pair(figures[name], alone[name]) for name in names}
    seen = sorted({s for pairs in both.values() for s in (*pairs.seeds, *pairs.dropped)})
    kept = [seed for seed in seen if all(seed in pairs.seeds for pairs in both.values())]
    by_seed = {}
    for seed in kept:
        for name in names:
            if alone[name][seed] == 0:
                raise InputError(
                    f"delta_m: the single-task figure of {name!r} is 0 at seed {seed}: no gain is "
                    "relative to it. Leave the objective out, or use another metric."
                )
        by_seed[seed] = 100 * float(
            np.mean(
                [
                    sign_of(better[name], [name])
                    * (figures[name][seed] - alone[name][seed])
                    / abs(alone[name][seed])
                    for name in names
                ]
            )
        )
    values = list(by_seed.values())
    interval = None
    if len(values) > 1 and max(values) > min(values):
        low, high = t_interval(values)
        interval = float(low), float(high)
    mean = float(np.mean(values)) if values else None
    dropped = tuple(seed for seed in seen if seed not in by_seed)
    return Gains(by_seed, dropped, mean, interval, _said(mean, interval, len(values), dropped))


def mean_ranks(
    figures: Mapping[str, Mapping[str, float]], better: Mapping[str, str] | str = "higher"
) -> Ranks:
    """The mean rank of each strategy over objectives or tasks: 1 for the best, ties averaged.

    Args:
        figures: strategy -> column -> figure, a mean over seeds for example.
        better: "higher" or "lower", for all or per column.

    Raises:
        InputError: for NaN, and for a column without a direction.

    >>> from gradsurgery.compare.statistics import mean_ranks
    >>> mean_ranks({"a": {"x": 3.0, "y": 1.0}, "b": {"x": 2.0, "y": 1.0}}).mean
    {'a': 1.25, 'b': 1.75}
    """
    from scipy.stats import rankdata

    columns = list(dict.fromkeys(column for row in figures.values() for column in row))
    over = [column for column in columns if all(column in row for row in figures.values())]
    directions = dict.fromkeys(over, better) if isinstance(better, str) else better
    if lacking := [column for column in over if column not in directions]:
        raise InputError(f"mean_ranks: {lacking[0]!r} has no direction: give it in `better`.")
    total = np.zeros(len(figures))
    for column in over:
        values = np.array([row[column] for row in figures.values()], dtype=np.float64)
        if not np.isfinite(values).all():
            raise InputError(f"mean_ranks: {column!r} has a figure that is NaN or infinite.")
        total += rankdata(-sign_of(directions[column], [column]) * values)
    means = total / len(over) if over else total + np.nan
    return Ranks(
        {label: float(rank) for label, rank in zip(figures, means, strict=True)},
        tuple(over),
        tuple(column for column in columns if column not in over),
    )


def _said(
    mean: float | None, interval: tuple[float, float] | None, n: int, dropped: tuple[int, ...]
) -> str:
    left = f"; seeds left out: {', '.join(map(str, dropped))}" if dropped else ""
    if mean is None:
        return f"Δm: no seed has all figures{left}."
    count = f"{n} seed" + ("" if n == 1 else "s")
    if interval is None:
        why = "1 seed, no interval" if n == 1 else f"the same in all {count}, no interval"
        return f"Δm (higher is better) is {mean:+.2f} % ({why}{left})."
    low, high = interval
    bounds = f"95 % interval {low:+.2f} to {high:+.2f} %"
    return f"Δm (higher is better) is {mean:+.2f} % ({bounds}, {count}{left})."
