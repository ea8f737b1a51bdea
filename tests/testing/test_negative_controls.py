"""Negative controls: strategies that promise too much, and solvers that are subtly wrong, are caught by the public checks."""

import math
import re
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import gradsurgery as gs
from gradsurgery.solvers import best_worst, min_norm, project_dual_cone
from gradsurgery.testing import ConformanceError, check_strategy

# ---- subtly wrong pieces, as met in published code


def clamped(weights, low=0.001, high=0.999):
    return np.clip(weights, low, high)


def plain_frank_wolfe(gram, steps=100):
    """The textbook iteration with exact line search, no away steps, no gap."""
    weights = np.full(len(gram), 1 / len(gram))
    for _ in range(steps):
        image = gram @ weights
        vertex = int(image.argmin())
        direction = np.eye(len(gram))[vertex] - weights
        curvature = direction @ gram @ direction
        if curvature <= 0:
            break
        weights = weights + np.clip(-(direction @ image) / curvature, 0, 1) * direction
    return weights


def trace_epsilon(gram, epsilon=1e-4):
    """Below this trace the matrix counts as zero; above, it is divided by the trace."""
    trace = float(np.trace(gram))
    return np.zeros_like(gram) if trace < epsilon else gram / trace


def cone_by_steps(gram, start, steps=100):
    """The dual of the projection onto the cone, by 100 Frank-Wolfe steps on a box that holds its solution."""
    extra = np.zeros(len(gram))
    box = 10.0 * np.abs(start).sum()
    for _ in range(steps):
        image = gram @ (start + extra)
        direction = np.zeros(len(gram)) - extra
        vertex = int(image.argmin())
        if image[vertex] < 0:
            direction[vertex] += box
        curvature = direction @ gram @ direction
        if curvature <= 0:
            break
        extra = extra + np.clip(-(direction @ image) / curvature, 0, 1) * direction
    return start + extra


def worst_by_weights(gram, weights, radius):
    """CAGrad's direction from given weights on the simplex."""
    mean = np.full(len(gram), 1 / len(gram))
    length, own = (math.sqrt(max(w @ gram @ w, 0.0)) for w in (mean, weights))
    return mean + radius * length / own * weights if own > 0 else mean


def worst_by_steps(gram, radius, steps=100):
    """100 plain Frank-Wolfe steps on ⟨g_w, g₀⟩ + c‖g₀‖‖g_w‖."""
    mean = np.full(len(gram), 1 / len(gram))
    length, weights = math.sqrt(max(mean @ gram @ mean, 0.0)), mean.copy()
    for k in range(steps):
        own = math.sqrt(max(weights @ gram @ weights, 1e-300))
        slope = gram @ mean + radius * length * (gram @ weights) / own
        weights = weights + 2 / (k + 2) * (np.eye(len(gram))[int(slope.argmin())] - weights)
    return worst_by_weights(gram, weights, radius)


def hull_weights(gram):
    return min_norm(gram).value


def cone_by_definition(gram):
    """argmin vᵀGv s.t. v >= 1/n, as it is written: rounding decides where gradients cancel."""
    from scipy.optimize import nnls

    norms = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    root = gs.solvers.factor(gram / norms / norms[:, None])
    start = norms / len(norms)
    return (start + nnls(root, -root @ start, maxiter=10_000)[0]) / norms


def cone_weights(gram, start=None):
    return project_dual_cone(
        gram, np.full(len(gram), 1 / len(gram)) if start is None else start
    ).value


def simplex_part(gram, radius):
    """The weights on the simplex behind CAGrad's answer."""
    extra = np.maximum(best_worst(gram, radius).value - 1 / len(gram), 0.0)
    return extra / extra.sum() if extra.sum() > 0 else np.full(len(gram), 1 / len(gram))


# ---- the controls: name -> (function, claims, the claim or check that has to fail)


def norms_of(gram):
    return np.sqrt(np.where(np.diag(gram) > 0, np.diag(gram), 1))


def sometimes_the_sum(gram, rng):
    return np.ones(len(gram)) if rng.random() > 0.7 else hull_weights(gram)


def neighbours(gram):
    cosines = gram / np.outer(*[norms_of(gram)] * 2)
    after = np.roll(np.arange(len(gram)), -1)
    return 1 + 0.3 * (
        cosines[np.arange(len(gram)), after]
        + cosines[after, np.arange(len(gram))][np.roll(np.arange(len(gram)), 1)]
    )


def half_shuffled_pcgrad(gram, rng):
    """PCGrad whose shuffle leaves the first of the others first."""
    weights = np.zeros(len(gram))
    for i in range(len(gram)):
        own = np.eye(len(gram))[i]
        others = [j for j in range(len(gram)) if j != i]
        for j in [*others[:1], *rng.permutation(others[1:]).tolist()]:
            dot = own @ gram[j]
            if dot < 0:
                own[j] -= dot / gram[j, j]
        weights += own
    return weights


H1 = gs.homogeneous(1)


CLAIMS = {
    "the sum in three draws of ten": (sometimes_the_sum, ["non-conflicting"], "non-conflicting"),
    "the sum beside a zero gradient when norms are 2,000 apart": (
        lambda gram: (
            np.ones(len(gram))
            if (np.diag(gram) == 0).any()
            and np.diag(gram).max() > 4e6 * np.where(np.diag(gram) > 0, np.diag(gram), np.inf).min()
            else hull_weights(gram)
        ),
        ["non-conflicting"],
        "non-conflicting",
    ),
    "uniform for 3, 5, 7 or 12 tiny gradients": (
        lambda gram: (
            np.full(len(gram), 1 / len(gram))
            if len(gram) in (3, 5, 7, 12) and np.trace(gram) < 1e-24
            else hull_weights(gram)
        ),
        ["strict"],
        "strict",
    ),
    "uniform for 5, 7 or 12 huge gradients": (
        lambda gram: (
            np.full(len(gram), 1 / len(gram))
            if len(gram) in (5, 7, 12) and np.trace(gram) > 1e38
            else hull_weights(gram)
        ),
        ["strict"],
        "strict",
    ),
    "only the outer rows at length one": (
        lambda gram: (
            1 / np.where(np.isin(np.arange(len(gram)), (0, len(gram) - 1)), norms_of(gram), 1.0)
        ),
        ["scale-invariant"],
        "scale-invariant",
    ),
    "divided by a power of two": (
        lambda gram: np.ones(len(gram)) / 2.0 ** np.floor(np.log2(norms_of(gram).max())),
        [gs.homogeneous(0)],
        "homogeneous",
    ),
    "the first of 3 to 5 objectives counts double": (
        lambda gram: 1.0 + (3 <= len(gram) <= 5) * (np.arange(len(gram)) == 0),
        ["permutation-equivariant"],
        "permutation-equivariant",
    ),
    "cosines with the neighbours": (
        neighbours,
        ["permutation-equivariant"],
        "permutation-equivariant",
    ),
    "pcgrad, half shuffled": (
        half_shuffled_pcgrad,
        ["permutation-equivariant"],
        "permutation-equivariant",
    ),
    "random weights, the first larger from n = 4 on": (
        lambda gram, rng: rng.random(len(gram)) + (len(gram) >= 4) * (np.arange(len(gram)) == 0),
        ["permutation-equivariant"],
        "permutation-equivariant",
    ),
    "the sum claims non-conflicting": (
        lambda gram: np.ones(len(gram)),
        ["non-conflicting"],
        "non-conflicting",
    ),
    "pcgrad claims non-conflicting for all n": (
        lambda gram, rng: gs.get_strategy("pcgrad").weights(gram, rng=rng),
        ["non-conflicting"],
        "non-conflicting",
    ),
    "cagrad with c = 0.99 claims non-conflicting": (
        lambda gram: best_worst(gram, 0.99).value,
        ["non-conflicting"],
        "non-conflicting",
    ),
    "mgda's weights of unit rows on raw rows": (
        lambda gram: hull_weights(
            gram / np.outer(*[np.sqrt(np.where(np.diag(gram) > 0, np.diag(gram), 1))] * 2)
        ),
        ["non-conflicting"],
        "non-conflicting",
    ),
    "the projected mean claims strict": (cone_weights, ["strict"], "strict"),
    "standing still claims strict": (lambda gram: np.zeros(len(gram)), ["strict"], "strict"),
    "the shortest gradient claims strict": (
        lambda gram: np.eye(len(gram))[np.diag(gram).argmin()],
        ["strict"],
        "strict",
    ),
    "unit rows claim degree 1": (
        lambda gram: 1 / np.sqrt(np.where(np.diag(gram) > 0, np.diag(gram), 1)),
        [H1],
        "homogeneous",
    ),
    "clipping to length 1 claims degree 1": (
        lambda gram: np.ones(len(gram)) / max(1.0, math.sqrt(max(gram.sum(), 0.0))),
        [H1],
        "homogeneous",
    ),
    "an added 1e-8 claims degree 1": (
        lambda gram: hull_weights(gram + 1e-8 * np.eye(len(gram))),
        [H1],
        "homogeneous",
    ),
    "mgda claims scale-invariant": (hull_weights, ["scale-invariant"], "scale-invariant"),
    "all but the first row at length one": (
        lambda gram: (
            1
            / np.sqrt(np.where((np.diag(gram) > 0) & (np.arange(len(gram)) > 0), np.diag(gram), 1))
        ),
        ["scale-invariant"],
        "scale-invariant",
    ),
    "the first objective counts double": (
        lambda gram: 1.0 + (np.arange(len(gram)) == 0),
        ["permutation-equivariant"],
        "permutation-equivariant",
    ),
    "pcgrad without a random order": (
        lambda gram: gs.get_strategy("pcgrad").weights(gram, rng=np.random.default_rng(0)),
        ["permutation-equivariant"],
        "permutation-equivariant",
    ),
    "noise on the first objective only": (
        lambda gram, rng: 1.0 + 0.1 * rng.standard_normal() * (np.arange(len(gram)) == 0),
        ["permutation-equivariant"],
        "permutation-equivariant",
    ),
    "random weights claim deterministic": (
        lambda gram, rng: rng.dirichlet(np.ones(len(gram))),
        ["deterministic"],
        "deterministic",
    ),
    "a shiver of 1e-15": (
        lambda gram, rng: 1 + 1e-15 * rng.integers(3) * np.ones(len(gram)),
        ["deterministic"],
        "deterministic",
    ),
    "pcgrad claims deterministic for all n": (
        lambda gram, rng: gs.get_strategy("pcgrad").weights(gram, rng=rng),
        ["deterministic"],
        "deterministic",
    ),
    "the sum claims sums-to-one": (lambda gram: np.ones(len(gram)), ["sums-to-one"], "sums-to-one"),
    "clamped but not renormalised": (
        lambda gram: clamped(hull_weights(gram)),
        ["sums-to-one"],
        "sums-to-one",
    ),
    "a sum of 1 + 1e-6": (
        lambda gram: np.full(len(gram), (1 + 1e-6) / len(gram)),
        ["sums-to-one"],
        "sums-to-one",
    ),
    "twice the projection of the mean": (
        lambda gram: 2 * cone_weights(gram),
        ["projection"],
        "projection",
    ),
    "a projection of gradients that cancel, weights unbounded": (
        lambda gram: cone_by_definition(gram),
        ["projection"],
        "projection",
    ),
}


HULL = ["strict", H1, "sums-to-one", "permutation-equivariant", "deterministic"]


CONE = ["non-conflicting", H1, "permutation-equivariant", "deterministic"]


BALL = ["strict", H1, "permutation-equivariant", "deterministic"]


def normalised(weights):
    return weights / weights.sum()


SOLVERS = {
    "min_norm, closed form, weights clamped": (
        lambda gram: normalised(clamped(hull_weights(gram))) if len(gram) == 2 else hull_weights(gram), HULL, None,
    ),
    "min_norm, active set, weights clamped": (lambda gram: normalised(clamped(hull_weights(gram))), HULL, None),
    "min_norm, absolute epsilon on the trace": (lambda gram: hull_weights(trace_epsilon(gram) + 1e-4 * np.eye(len(gram))), HULL, None),
    "min_norm, zero below a trace of 1e-4": (lambda gram: normalised(hull_weights(trace_epsilon(gram))), HULL, None),
    "frank_wolfe, 100 plain steps": (plain_frank_wolfe, HULL, None),
    "frank_wolfe, weights clamped": (lambda gram: normalised(clamped(min_norm(gram, "frank-wolfe").value)), HULL, None),
    "frank_wolfe, absolute epsilon on the trace": (
        lambda gram: min_norm(gram, "frank-wolfe").value if np.trace(gram) > 1e-4 else np.full(len(gram), 1 / len(gram)), HULL, None,
    ),
    "project_dual_cone, weights clamped": (lambda gram: clamped(cone_weights(gram)), CONE, None),
    "project_dual_cone, absolute epsilon on the trace": (lambda gram: cone_weights(trace_epsilon(gram) + 1e-4 * np.eye(len(gram))), CONE, None),
    "project_dual_cone, 100 plain Frank-Wolfe steps": (lambda gram: cone_by_steps(gram, np.full(len(gram), 1 / len(gram))), CONE, None),
    "best_worst, weights clamped": (
        lambda gram: worst_by_weights(gram, normalised(clamped(simplex_part(gram, 1.0))), 1.0), BALL, None,
    ),
    "best_worst, zero below a trace of 1e-4": (
        lambda gram: best_worst(gram, 1.0).value if np.trace(gram) > 1e-4 else np.zeros(len(gram)), BALL, None,
    ),
    "best_worst, 1e-4 of the trace on the diagonal": (
        lambda gram: best_worst(gram + 1e-4 * np.trace(gram) * np.eye(len(gram)), 1.0).value, BALL, None,
    ),
    "best_worst, 100 plain Frank-Wolfe steps": (lambda gram: worst_by_steps(gram, 1.0), BALL, None),
}  # fmt: skip


CONTROLS = {**CLAIMS, **SOLVERS}


RIGHT = {
    "min_norm": (hull_weights, ["strict", H1, "permutation-equivariant", "deterministic"]),
    "project_dual_cone": (cone_weights, CONE),
    "best_worst": (lambda gram: best_worst(gram, 1.0).value, BALL),
}


def strategy_of(function, claims):
    """A strategy that is in no registry."""
    from gradsurgery.contract.claims import as_claims

    return replace(
        gs.get_strategy("sum"),
        name="control",
        function=function,
        claims=as_claims(tuple(claims)),
        acts_on="group",
    )


def caught(name):
    function, claims, _ = CONTROLS[name]
    with pytest.raises(ConformanceError) as error, np.errstate(all="ignore"):
        check_strategy(strategy_of(function, claims))
    return str(error.value)


@pytest.mark.parametrize("name", CONTROLS)
def test_caught(name):
    text = caught(name)
    assert "Smallest failing Jacobian" in text
    assert "check 'contract'" not in text  # caught by a promise, not by an accident
    if CONTROLS[name][2] is not None:
        assert f"check {CONTROLS[name][2]!r}" in text


@pytest.mark.parametrize("name", RIGHT)
def test_the_right_solver_passes(name):
    assert set(check_strategy(strategy_of(*RIGHT[name])).values()) == {"passed"}


def test_every_claim_has_a_control():
    from gradsurgery.contract.claims import NAMES

    assert {check for _, _, check in CLAIMS.values()} == set(NAMES)


if __name__ == "__main__":
    for control in CONTROLS:
        begin = time.perf_counter()
        message = caught(control)
        spent = time.perf_counter() - begin
        print(f"{control} [{spent:.1f} s]")
        for part in message.split("\n\n"):
            check = re.search(r"check '([^']+)'", part)
            kind = re.search(r"of the kind '(.+)'\.", part)
            size = re.search(r"\[n, d\] = (\[.*?\])", part)
            print(f"    {check.group(1)}: {kind.group(1)}; shrunk to {size.group(1)}")
    sys.exit(0)
