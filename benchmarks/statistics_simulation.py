"""The statistics of `compare` on simulated cells whose truth is known.

`python -m benchmarks.statistics_simulation --out FILE` writes the rates as JSON, with --quick
fewer cells. A cell is one task with one baseline, n seeds and eight strategies.

The learner is a mean in d dimensions. Data are x ~ N(0, I); the baseline predicts the mean ȳ of
m training examples, strategy k predicts c_k + s (ȳ − c_k), shrunk towards a point c_k at distance
r from the truth. A figure is the squared error on q test examples with mean t̄, plus noise of the
run. The difference to the baseline is ‖pred‖² − ‖ȳ‖² − 2⟨t̄, pred − ȳ⟩ plus noise. Its expectation
over data is (s² − 1) d/m + (1 − s)² r², and r is the one at which it is zero: on new data all
strategies are as good as the baseline. Its expectation on given data is known exactly as well.

Data of the seeds:
- independent: fresh training and test data per seed;
- resplit: one pool of m + q examples per cell; each seed trains on m and tests on the rest;
- fixed-test: q test examples per cell; each seed trains on m of N others.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gradsurgery.compare.statistics import difference_p, equivalence_p, holm, t_interval

STRATEGIES, DIMENSIONS = 8, 4
SHRINKS = (0.9, 0.6, -0.5)  # from models that are alike to models that have little in common
SCHEMES = ("independent", "resplit", "fixed-test")
SEEDS = (5, 10, 20)
ALPHA, DELTA = 0.05, 0.15
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """What a cell is made of.

    Attributes:
        shrink: s, how much of its training mean a strategy keeps.
        train, test: m and q, examples to train and to test on.
        pool: N, examples to train from where the test pool is fixed.
        noise: the standard deviation of a run's own noise (initial weights, order); the
            baseline's is shared by all differences of a seed.
    """

    shrink: float = 0.6
    train: int = 60
    test: int = 40
    pool: int = 80
    noise: float = 0.02

    def ratio(self, scheme: str) -> float | None:
        """The ratio of the corrected interval."""
        ratios = {"resplit": self.test / self.train}
        return {**ratios, "fixed-test": self.train / (self.pool - self.train)}.get(scheme)


@dataclass(frozen=True)
class Cells:
    """Simulated cells in which no strategy has an effect on new data.

    Attributes:
        differences: [cells, strategies, seeds].
        given_data: [cells, strategies], the expectation over seeds on the data of the cell.
    """

    differences: Array
    given_data: Array


def draws(
    rng: np.random.Generator, cells: int, n: int, pool: int, train: int
) -> tuple[Array, Array, Array]:
    """Means of n training sets per cell [cells, n, d], of its pool [cells, 1, d], its variance."""
    x = rng.standard_normal((cells, pool, DIMENSIONS))
    keys = rng.random((cells, n, pool), dtype=np.float32)
    taken = np.argpartition(keys, train, axis=-1)[..., :train]
    drawn = np.zeros((cells, n, pool))
    np.put_along_axis(drawn, taken, 1.0 / train, axis=-1)
    return drawn @ x, x.mean(axis=1, keepdims=True), x.var(axis=1, ddof=1)[:, None]


def simulate(
    rng: np.random.Generator, scheme: str, cells: int, n: int, design: Design | None = None
) -> Cells:
    """Cells of n seeds of one scheme, with no effect on new data."""
    design = design or Design()
    m, q, s = design.train, design.test, design.shrink
    mean = test_mean = np.zeros((cells, 1, DIMENSIONS))
    if scheme == "independent":
        trained = rng.standard_normal((cells, n, DIMENSIONS)) / np.sqrt(m)
        tested = rng.standard_normal((cells, n, DIMENSIONS)) / np.sqrt(q)
        square, cross = np.full((cells, 1), DIMENSIONS / m), np.zeros((cells, 1))
    else:
        pool = m + q if scheme == "resplit" else design.pool
        trained, mean, variance = draws(rng, cells, n, pool, m)
        square = (mean**2 + variance / m * (1 - m / pool)).sum(axis=-1)  # E ‖ȳ‖² given the pool
        if scheme == "resplit":  # what is left of the pool: a linear function of ȳ
            tested, test_mean = (pool * mean - m * trained) / q, mean
            cross = (pool * (mean**2).sum(axis=-1) - m * square) / q  # E ⟨t̄, ȳ⟩ given the pool
        else:
            tested = test_mean = rng.standard_normal((cells, 1, DIMENSIONS)) / np.sqrt(q)
            cross = (mean * tested).sum(axis=-1)
    c = rng.standard_normal((STRATEGIES, DIMENSIONS))
    r = np.sqrt((1 + s) / (1 - s) * DIMENSIONS / m)  # no effect on new data
    c *= r / np.linalg.norm(c, axis=-1, keepdims=True)
    y, t = trained[:, None], tested[:, None]  # [cells, 1, n or 1, d]
    predicted = c[:, None] + s * (y - c[:, None])
    exact = (predicted**2 - y**2 - 2 * t * (predicted - y)).sum(axis=-1)
    runs = design.noise * rng.standard_normal((cells, STRATEGIES + 1, n))
    # the expectation of `exact` over the draws: its terms in ‖ȳ‖², ȳ, ⟨t̄, ȳ⟩, t̄ and 1
    given = (s * s - 1) * square + 2 * s * (1 - s) * (mean[:, 0] @ c.T) + 2 * (1 - s) * cross
    given = given - 2 * (1 - s) * (test_mean[:, 0] @ c.T) + (1 - s) ** 2 * (c**2).sum(axis=-1)
    return Cells(exact + runs[:, 1:] - runs[:, :1], given)


def rates(
    rng: np.random.Generator, scheme: str, cells: int, n: int, design: Design | None = None
) -> dict[str, dict[str, float]]:
    """How often the intervals and verdicts are right, per estimand and interval.

    Per key of `cases`:

    - coverage: of the 95 % interval, the mean over strategies;
    - any claim: cells in which some strategy is called better or worse after Holm, though none
      has an effect; any better: those in which some strategy is called better;
    - false equivalent: strategies called equivalent although their difference is exactly δ.

    Where the truth is not zero, as on given data, it is taken off before a test of no effect.
    """
    design = design or Design()
    found: dict[str, dict[str, list[float]]] = {}
    for size in chunks(cells, n):
        made = simulate(rng, scheme, size, n, design)
        for key, ratio in cases(scheme, design):
            truth = made.given_data * key.startswith("given")
            null = made.differences - truth[..., None]
            low, high = t_interval(made.differences, ratio=ratio)
            claims = holm(difference_p(null, ratio)) <= ALPHA
            better = claims & (null.mean(axis=-1) < 0)  # of an error, where lower is better
            one = found.setdefault(key, {})
            for name, hits in {
                "coverage": ((low <= truth) & (truth <= high)).mean(axis=-1),
                "any claim": claims.any(axis=-1),
                "any better": better.any(axis=-1),
                "false equivalent": (equivalence_p(null + DELTA, DELTA, ratio) < ALPHA).mean(-1),
            }.items():
                one.setdefault(name, []).extend(hits.tolist())
    return {
        key: {
            **{name: float(np.mean(hits)) for name, hits in one.items()},
            **{
                f"{name}, error": float(np.std(hits) / np.sqrt(cells)) for name, hits in one.items()
            },
        }
        for key, one in found.items()
    }


def cases(scheme: str, design: Design) -> list[tuple[str, float | None]]:
    """The estimands with the ratios of their intervals."""
    if scheme == "independent":
        return [("new data, plain", None)]
    ratio, nadeau = design.ratio(scheme), design.test / design.train
    further = [("new data, corrected by n_test/n_train", nadeau)] if ratio != nadeau else []
    plain = [("given data, plain", None), ("new data, plain", None)]
    return [*plain, *further, ("new data, corrected", ratio)]


def chunks(cells: int, n: int) -> Iterator[int]:
    """Numbers of cells that fit in memory together."""
    most = max(1, 20_000 // n)
    while cells > 0:
        yield min(cells, most)
        cells -= most


def main() -> None:
    """Write the rates of every scheme and number of seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--quick", action="store_true", help="fewer cells")
    options = parser.parse_args()
    cells = 1_000 if options.quick else 20_000
    made = []
    for shrink, scheme, n in itertools.product(SHRINKS, SCHEMES, SEEDS):
        rng = np.random.default_rng([SCHEMES.index(scheme), n])
        for key, row in rates(rng, scheme, cells, n, Design(shrink=shrink)).items():
            cell = {"shrink": shrink, "scheme": scheme, "n": n, "interval": key, "cells": cells}
            made.append({**cell, **row})
            said = ", ".join(f"{k} {100 * x:.1f} %" for k, x in row.items() if "error" not in k)
            print(f"s = {shrink}, {scheme}, n = {n}, {key}: {said}", flush=True)
    options.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
