"""Strategies that promise too much: name -> (function, claims, the claim that has to fail).

A table, longer than other files.
"""

import math

import numpy as np

import gradsurgery as gs
from gradsurgery.solvers import best_worst
from tests.support.wrong_pieces import clamped, cone_by_definition, cone_weights, hull_weights


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
    "the projected mean claims strict": (lambda gram: cone_weights(gram), ["strict"], "strict"),
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
