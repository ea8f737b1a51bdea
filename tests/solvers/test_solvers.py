"""The solvers on adversarial Gram matrices, against optimality conditions and cvxpy."""

import numpy as np
import pytest
import scipy.optimize

from gradsurgery.errors import InputError, NonFiniteError
from gradsurgery.solvers import Solution, best_worst, min_norm, project_dual_cone, reference
from gradsurgery.testing import KINDS, make_sample

pytestmark = pytest.mark.quick

SPREADS = (0.0, 3.0, 6.0)


def gram(rng, n, kind, spread=0.0, scale=1.0):
    return make_sample(kind, n, rng, spread=spread, scale=scale).gram


def hull_violation(gram, weights):
    """maxᵢ (wᵀGw − (Gw)ᵢ) / (nᵢ Σ wⱼnⱼ), written out apart from the library's own."""
    norms, image = np.sqrt(np.diag(gram)), gram @ weights
    live, total = norms > 0, weights @ norms
    return (
        float(np.max((weights @ image - image[live]) / (norms[live] * total))) if total > 0 else 0.0
    )


def worst_cosine(gram, weights, start=0.0):
    """minᵢ ⟨gᵢ, d⟩ / (nᵢ Σ |wⱼ|nⱼ); for a projection the size of what is projected counts too."""
    norms = np.sqrt(np.diag(gram))
    live, total = norms > 0, np.maximum(np.abs(weights), np.abs(start)) @ norms
    return float(((gram @ weights)[live] / norms[live]).min() / total) if total > 0 else 0.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 5, 8, 16, 32, 64, 128])
def test_active_set_is_exact(n, kind):
    rng = np.random.default_rng(n)
    for spread in SPREADS:
        for _ in range(20 if n <= 32 else 3):
            g = gram(rng, n, kind, spread, 10.0 ** rng.uniform(-20, 20))
            for method in ("auto", "active-set"):
                solution = min_norm(g, method)
                assert solution.converged
                assert solution.value.min() >= 0
                assert solution.value.sum() == pytest.approx(1, abs=1e-12)
                assert hull_violation(g, solution.value) <= 1e-10
                assert solution.gap <= 1e-10


@pytest.mark.parametrize("n", [2, 3, 4, 8])
@pytest.mark.parametrize("spread", SPREADS)
def test_frank_wolfe_converges_or_says_so(n, spread):
    rng = np.random.default_rng(n)
    converged = []
    for kind in KINDS:
        for _ in range(30):
            g = gram(rng, n, kind, spread)
            solution = min_norm(g, "frank-wolfe")
            assert np.isfinite(solution.value).all()
            assert solution.value.min() >= 0
            converged.append(solution.converged)
            if solution.converged:
                assert hull_violation(g, solution.value) <= 1.01e-6
    assert np.mean(converged) >= 0.95


def test_frank_wolfe_that_stops_early_says_so():
    from gradsurgery.solvers import frank_wolfe

    solution = frank_wolfe(gram(np.random.default_rng(0), 16, "pulling apart"), max_iterations=3)
    assert not solution.converged
    assert solution.gap > 1e-6


def test_an_iteration_limit_in_scipy_is_not_ours(monkeypatch):
    """scipy's non-negative least squares raises at its iteration limit; the min-norm point is then
    found by Frank-Wolfe.
    """

    def gives_up(*args, **kwargs):
        raise RuntimeError("Maximum number of iterations reached.")

    g = gram(np.random.default_rng(3), 8, "pulling apart", 6.0)
    expected = min_norm(g)
    monkeypatch.setattr(scipy.optimize, "nnls", gives_up)
    solution = min_norm(g)
    assert solution.converged
    assert hull_violation(g, solution.value) <= 1e-10
    assert solution.objective == pytest.approx(expected.objective, rel=1e-6)
    assert not project_dual_cone(g).converged  # has no second way: it says so


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 3, 8, 32])
def test_dual_cone_and_best_worst(n, kind):
    rng = np.random.default_rng(n)
    for spread in SPREADS:
        for _ in range(10):
            g = gram(rng, n, kind, spread, 10.0 ** rng.uniform(-20, 20))
            n = len(g)
            target = rng.normal(size=n)
            for start in (None, target):
                solution = project_dual_cone(g, start)
                assert solution.converged
                assert worst_cosine(g, solution.value, 0.0 if start is None else start) >= -1e-10
                assert (solution.value >= (1 / n if start is None else start) - 1e-12).all()
            mean = np.full(n, 1 / n)
            radius = float(rng.choice([0.1, 0.4, 1.0, 2.0]))
            solution = best_worst(g, radius)
            assert solution.converged, solution
            moved = solution.value - mean
            total = (np.abs(solution.value) + mean) @ np.sqrt(np.diag(g))
            assert (
                moved @ g @ moved <= radius**2 * (mean @ g @ mean) * (1 + 1e-9) + 1e-13 * total**2
            )
            if radius >= 1:
                assert worst_cosine(g, solution.value) >= -1e-10


def close_direction(g, first, second, tolerance):
    norms = np.sqrt(np.diag(g))
    difference = first - second
    size = max(np.abs(first) @ norms, np.abs(second) @ norms, 1e-300)
    return np.sqrt(max(difference @ g @ difference, 0.0)) <= tolerance * size


# "cancelling in float32": by the letter of the definitions rounding decides there
LEFT_OUT = ("zero gradient", "cancelling in float32")


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in LEFT_OUT])
@pytest.mark.parametrize("n", [2, 3, 6])
def test_agreement_with_cvxpy(n, kind):
    pytest.importorskip("cvxpy", reason="the reference solvers need the extra cvxpy")
    import warnings

    rng = np.random.default_rng(n)
    compared = 0
    for spread in (0.0, 1.0, 2.0):
        g = gram(rng, n, kind, spread)
        norms = np.sqrt(np.diag(g))
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # cvxpy warns where it is inaccurate; those are the ones left out
            pairs = [
                (min_norm(g), reference.min_norm(g)),
                (project_dual_cone(g), reference.project_dual_cone(g)),
                (best_worst(g, 0.5), reference.best_worst(g, 0.5)),
            ]
        for i, (ours, theirs) in enumerate(pairs):
            if not theirs.converged or theirs.gap > 1e-8:
                continue
            compared += 1
            size = np.abs(ours.value) @ norms
            scale = size**2 if i < 2 else size * norms.min()
            assert abs(ours.objective - theirs.objective) <= 1e-6 * scale
            if (
                i < 2 or min_norm(g).objective > 1e-6 * size**2
            ):  # at a stationary point CAGrad's direction is not unique
                assert close_direction(g, ours.value, theirs.value, 1e-4 if i == 2 else 1e-5)
    assert compared >= 3


def test_two_objectives_closed_forms():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = rng.normal(size=(2, 3)) * 10.0 ** rng.uniform(-3, 3, (2, 1))
        g = np.array([[a @ a, a @ b], [a @ b, b @ b]])
        expected = np.clip((b @ b - a @ b) / ((a - b) @ (a - b)), 0, 1)
        for method in ("auto", "active-set", "frank-wolfe"):
            assert min_norm(g, method).value[0] == pytest.approx(
                expected, abs=2e-6 if method == "frank-wolfe" else 1e-9
            )


def test_degenerate_grams():
    assert min_norm([[4.0]]).value.tolist() == [1.0]
    assert min_norm([[0.0]]).value.tolist() == [1.0]
    assert min_norm(np.zeros((3, 3))).objective == 0.0
    assert min_norm([[1.0, 0.5], [0.5, 0.0]]).value.tolist() == [0.0, 1.0]
    assert min_norm(np.ones((2, 2))).value.tolist() == [0.5, 0.5]
    assert min_norm([[1.0, -1.0], [-1.0, 1.0]]).objective == 0.0
    assert project_dual_cone([[1.0, -1.0], [-1.0, 1.0]]).value @ [
        [1.0, -1.0],
        [-1.0, 1.0],
    ] == pytest.approx([0, 0])
    assert best_worst(np.zeros((2, 2)), 0.5).value.tolist() == [0.5, 0.5]
    # stationary although the mean is not zero: e₁, −e₁, e₂ + ½e₁; the mean is projected onto the
    # cone
    rows = np.array([[1.0, 0], [-1, 0], [0.5, 1]])
    for radius in (0.6, 1.0, 3.0):
        assert rows.T @ best_worst(rows @ rows.T, radius).value == pytest.approx(
            [0, 1 / 3], abs=1e-9
        )


@pytest.mark.parametrize("solve", [min_norm, project_dual_cone, lambda g: best_worst(g, 0.5)])
def test_bad_grams_are_errors(solve):
    for bad in (
        np.ones((2, 3)),
        np.ones(3),
        np.array([[1.0, 0.5], [0.0, 1.0]]),
        np.array([[-1.0, 0.0], [0.0, 1.0]]),
    ):
        with pytest.raises(InputError):
            solve(bad)
    for value in (np.nan, np.inf):
        with pytest.raises(NonFiniteError, match="1"):
            solve(np.array([[1.0, 0.0], [0.0, value]]))


def test_bad_arguments_are_errors():
    with pytest.raises(InputError, match="frank-wolfe"):
        min_norm(np.eye(2), "frank-wulf")
    with pytest.raises(InputError, match="2 finite numbers"):
        project_dual_cone(np.eye(2), [1.0])
    with pytest.raises(InputError, match="radius"):
        best_worst(np.eye(2), -1.0)


def test_solution_reads_as_its_weights():
    solution = min_norm(np.eye(2))
    assert isinstance(solution, Solution)
    assert np.asarray(solution).tolist() == solution.weights.tolist() == [0.5, 0.5]
