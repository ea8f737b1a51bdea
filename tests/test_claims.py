"""Every claim of every strategy, by hypothesis over adversarial Gram matrices (ARCHITECTURE's rule, never an absolute cosine)."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from samples import KINDS, gram

import gradsurgery as gs
from gradsurgery.contract import rng_for
from gradsurgery.solvers import min_norm

TOLERANCE = 1e-10  # of non-conflict, for float64 Grams
SIZES = range(1, 9)
# options under which a strategy promises something else than with its defaults
VARIANTS = {
    "mgda": [{"normalize": "l2"}, {"normalize": "loss"}, {"normalize": "loss+"}],
    "pcgrad": [{"reduction": "mean"}],
    "cagrad": [{"c": 0.0}, {"c": 1.0}, {"c": 2.0, "rescale": 1}],
    "mmpareto": [{"rescale": "none", "gamma": 1.0}, {"rescale": "tensor"}, {"gamma_on": "conflict", "max_rescale": 5.0}],
}
OURS = [n for n in gs.strategy_names() if gs.get_strategy(n).function.__module__.startswith("gradsurgery.strategies")]
CASES = [
    pytest.param(strategy, claim, id=f"{name}-{'-'.join(map(str, options.values())) or 'defaults'}-{claim.name}")
    for name in OURS
    for options in [{}, *VARIANTS.get(name, [])]
    for strategy in [gs.get_strategy(name, **options)]
    for claim in strategy.claims
    if any(claim.holds(n, n, strategy.options) for n in SIZES)
]
draws = st.fixed_dictionaries(
    {
        "n": st.sampled_from(SIZES),
        "kind": st.sampled_from(KINDS),
        "spread": st.sampled_from([0.0, 1.0, 3.0, 6.0]),
        "exponent": st.integers(-66, 66),
        "seed": st.integers(0, 2**32),
    }
)


def draw_gram(draw, strategy, claim):
    """The Gram matrix, with a number of objectives for which the claim is made."""
    sizes = [n for n in SIZES if claim.holds(n, n, strategy.options)]
    rng = np.random.default_rng(draw["seed"])
    n = sizes[draw["n"] % len(sizes)]
    g = gram(rng, n, draw["kind"], draw["spread"], 2.0 ** draw["exponent"])
    assume(claim.holds(n, int(np.linalg.matrix_rank(g)), strategy.options))
    return g, rng


def solve(strategy, g, losses=None, seed=0):
    weights = strategy.weights(g, losses=np.ones(len(g)) if losses is None else losses, rng=rng_for(seed, 0, "test"))
    return weights.reshape(-1)  # [1, n] where the strategy weighs tensor by tensor, here one tensor


def norms_of(g):
    return np.sqrt(np.diag(g))


def distance(g, first, second):
    """‖Jᵀ(w − w')‖ / Σ |w|n: how far two combinations of the same rows are apart."""
    size = max(np.abs(first) @ norms_of(g), np.abs(second) @ norms_of(g))
    return np.sqrt(max((first - second) @ g @ (first - second), 0.0)) / size if size > 0 else 0.0


def conditioning(g):
    """How far from stationary: ‖d‖² / (Σ wn)² at the min-norm point; directions are only defined up to eps over this."""
    hull = min_norm(g)
    size = hull.value @ norms_of(g)
    return max(hull.objective, 0.0) / size**2 if size > 0 else 0.0


def tolerance(g):
    return 1e-6 + 1e-13 / max(conditioning(g), 1e-18)


def non_conflicting(strategy, claim, g, rng):
    weights = solve(strategy, g)
    allowed = TOLERANCE * norms_of(g) * (np.abs(weights) @ norms_of(g))
    assert ((g @ weights) >= -allowed).all(), (g.tolist(), weights.tolist())


def strict(strategy, claim, g, rng):
    non_conflicting(strategy, claim, g, rng)
    weights = solve(strategy, g)
    # Scale-invariant strategies are judged on unit rows; for the others ⟨gᵢ, d⟩ is at least the hull's ‖d‖².
    if any(c.name == "scale-invariant" and c.holds(len(g), len(g), strategy.options) for c in strategy.claims):
        safe = np.where(norms_of(g) > 0, norms_of(g), 1.0)
        weights, g = weights * safe, g / safe / safe[:, None]
    if conditioning(g) <= 1e-14:  # the rounding floor of rule 4: zero, or what the formula says
        return
    exact = max(min_norm(g).objective, 0.0)
    matters = exact > 10 * TOLERANCE * norms_of(g) * (np.abs(weights) @ norms_of(g))
    assert ((g @ weights)[matters] > 0).all(), (g.tolist(), weights.tolist())


def homogeneous(strategy, claim, g, rng):
    for exponent in (-40, -1, 13):
        factor = 2.0**exponent
        scaled = solve(strategy, g * factor**2)
        assert distance(g, scaled * factor ** (1 - claim.degree), solve(strategy, g)) <= 1e-9


def scale_invariant(strategy, claim, g, rng):
    factors = np.where(np.arange(len(g)) == rng.integers(len(g)), 2.0 ** rng.integers(-10, 10), 1.0)
    before, after = solve(strategy, g), factors * solve(strategy, g * np.outer(factors, factors))
    safe = np.where(norms_of(g) > 0, norms_of(g), 1.0)
    unit = g / safe / safe[:, None]
    assume(before.any() == after.any())
    lengths = [np.sqrt(max(w @ g @ w, 0.0)) for w in (before, after)]
    if min(lengths) > 0:
        assert distance(unit, before * safe / lengths[0], after * safe / lengths[1]) <= tolerance(unit)


def permutation_equivariant(strategy, claim, g, rng):
    order = rng.permutation(len(g))
    off = np.abs(g - np.diag(np.diag(g))) / np.maximum(np.outer(norms_of(g), norms_of(g)), 1e-300)
    assume(not ((off > 0) & (off < 1e-12)).any())  # a cosine of ±1e-17 is a conflict or not by rounding alone
    losses = rng.uniform(0.5, 2, len(g))
    permuted = solve(strategy, g[np.ix_(order, order)], losses[order])
    back = np.empty_like(permuted)
    back[order] = permuted
    scaled = np.sqrt(losses) if "losses" in strategy.inputs else 1.0
    assert distance(g, back, solve(strategy, g, losses)) <= max(tolerance(g), tolerance(g / np.outer(scaled, scaled)))


def deterministic(strategy, claim, g, rng):
    assert (solve(strategy, g, seed=0) == solve(strategy, g, seed=1)).all()


def sums_to_one(strategy, claim, g, rng):
    weights = solve(strategy, g)
    assert weights.sum() == pytest.approx(1, abs=1e-12) or (conditioning(g) <= 1e-13 and not weights.any())


CHECKS = {
    "non-conflicting": non_conflicting,
    "strict": strict,
    "homogeneous": homogeneous,
    "scale-invariant": scale_invariant,
    "permutation-equivariant": permutation_equivariant,
    "deterministic": deterministic,
    "sums-to-one": sums_to_one,
}


def is_random(strategy):
    return "rng" in strategy.inputs


@pytest.mark.parametrize(("strategy", "claim"), [c for c in CASES if not (is_random(c.values[0]) and c.values[1].name == "permutation-equivariant")])
@given(draw=draws)
def test_claim(strategy, claim, draw):
    g, rng = draw_gram(draw, strategy, claim)
    CHECKS[claim.name](strategy, claim, g, rng)


@pytest.mark.parametrize(("strategy", "claim"), [c for c in CASES if is_random(c.values[0]) and c.values[1].name == "permutation-equivariant"])
def test_permutation_equivariance_in_distribution(strategy, claim):
    """The mean over many draws, since one draw of a randomised strategy is not equivariant: five standard errors."""
    draws = 2000
    for seed, kind in enumerate(("anti", "conflict", "normal")):
        g = gram(np.random.default_rng(seed), 3, kind, 1.0)
        order = np.array([2, 0, 1])
        first = np.array([solve(strategy, g, seed=s) for s in range(draws)])
        second = np.empty_like(first)
        second[:, order] = [solve(strategy, g[np.ix_(order, order)], seed=draws + s) for s in range(draws)]
        error = np.sqrt((first.var(0) + second.var(0)) / draws)
        assert (np.abs(first.mean(0) - second.mean(0)) <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("name", OURS)
def test_claims_speak_of_something(name):
    assert gs.get_strategy(name).claims
