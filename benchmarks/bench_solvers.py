"""pytest-benchmark: the solvers on Gaussian gradients with norms over three orders of magnitude."""

import numpy as np
import pytest

from gradsurgery import solvers


def gram(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    rows = rng.normal(size=(n, 2 * n)) * 10 ** rng.uniform(-1.5, 1.5, size=(n, 1))
    product: np.ndarray = rows @ rows.T
    return (product + product.T) / 2


SOLVERS = {
    "min-norm": solvers.min_norm,
    "frank-wolfe": solvers.frank_wolfe,
    "best-worst": lambda g: solvers.best_worst(g, 0.4),
    "alpha-fair 1": lambda g: solvers.alpha_fair(g, 1.0),
    "alpha-fair 2": lambda g: solvers.alpha_fair(g, 2.0),
    "dual cone": lambda g: solvers.project_dual_cone(g, np.full(len(g), 1 / len(g))),
    "dual cone, each": lambda g: solvers.project_each(g, np.full(len(g), 1 / len(g))),
    "nearest above": lambda g: solvers.nearest_above(g, np.eye(len(g))[0], 0.02 * np.diagonal(g)),
}


@pytest.mark.parametrize("n", [2, 8, 32])
@pytest.mark.parametrize("name", SOLVERS)
def test_solver(benchmark, name, n):
    benchmark.group = f"solvers, n = {n}"
    solution = benchmark(SOLVERS[name], gram(n))
    assert np.isfinite(solution.value).all()
