"""Solvers that are subtly wrong: name -> (function, claims, None), and right ones."""

import numpy as np

from gradsurgery.solvers import best_worst, min_norm
from tests.support.wrong_claims import H1
from tests.support.wrong_pieces import (
    clamped,
    cone_by_steps,
    cone_weights,
    hull_weights,
    plain_frank_wolfe,
    simplex_part,
    trace_epsilon,
    worst_by_steps,
    worst_by_weights,
)

HULL = ["strict", H1, "sums-to-one", "permutation-equivariant", "deterministic"]


CONE = ["non-conflicting", H1, "permutation-equivariant", "deterministic"]


BALL = ["strict", H1, "permutation-equivariant", "deterministic"]


def normalised(weights):
    return weights / weights.sum()


SOLVERS = {
    "min_norm, closed form, weights clamped": (
        lambda gram: (
            normalised(clamped(hull_weights(gram))) if len(gram) == 2 else hull_weights(gram)
        ),
        HULL,
        None,
    ),
    "min_norm, active set, weights clamped": (
        lambda gram: normalised(clamped(hull_weights(gram))),
        HULL,
        None,
    ),
    "min_norm, absolute epsilon on the trace": (
        lambda gram: hull_weights(trace_epsilon(gram) + 1e-4 * np.eye(len(gram))),
        HULL,
        None,
    ),
    "min_norm, zero below a trace of 1e-4": (
        lambda gram: normalised(hull_weights(trace_epsilon(gram))),
        HULL,
        None,
    ),
    "frank_wolfe, 100 plain steps": (lambda gram: plain_frank_wolfe(gram), HULL, None),
    "frank_wolfe, weights clamped": (
        lambda gram: normalised(clamped(min_norm(gram, "frank-wolfe").value)),
        HULL,
        None,
    ),
    "frank_wolfe, absolute epsilon on the trace": (
        lambda gram: (
            min_norm(gram, "frank-wolfe").value
            if np.trace(gram) > 1e-4
            else np.full(len(gram), 1 / len(gram))
        ),
        HULL,
        None,
    ),
    "project_dual_cone, weights clamped": (lambda gram: clamped(cone_weights(gram)), CONE, None),
    "project_dual_cone, absolute epsilon on the trace": (
        lambda gram: cone_weights(trace_epsilon(gram) + 1e-4 * np.eye(len(gram))),
        CONE,
        None,
    ),
    "project_dual_cone, 100 plain Frank-Wolfe steps": (
        lambda gram: cone_by_steps(gram, np.full(len(gram), 1 / len(gram))),
        CONE,
        None,
    ),
    "best_worst, weights clamped": (
        lambda gram: worst_by_weights(gram, normalised(clamped(simplex_part(gram, 1.0))), 1.0),
        BALL,
        None,
    ),
    "best_worst, zero below a trace of 1e-4": (
        lambda gram: best_worst(gram, 1.0).value if np.trace(gram) > 1e-4 else np.zeros(len(gram)),
        BALL,
        None,
    ),
    "best_worst, 1e-4 of the trace on the diagonal": (
        lambda gram: best_worst(gram + 1e-4 * np.trace(gram) * np.eye(len(gram)), 1.0).value,
        BALL,
        None,
    ),
    "best_worst, 100 plain Frank-Wolfe steps": (lambda gram: worst_by_steps(gram, 1.0), BALL, None),
}


RIGHT = {
    "min_norm": (hull_weights, ["strict", H1, "permutation-equivariant", "deterministic"]),
    "project_dual_cone": (lambda gram: cone_weights(gram), CONE),
    "best_worst": (lambda gram: best_worst(gram, 1.0).value, BALL),
}
