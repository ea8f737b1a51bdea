"""epo: exact Pareto optimal search."""

from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    NON_NEGATIVE,
    POSITIVE,
    About,
    Citation,
    PerObjective,
    by_objective,
    homogeneous,
    positive_losses,
    strategy,
)
from gradsurgery.solvers import DEFAULT_EPS, Solution, min_norm, split
from gradsurgery.types import Array

TIE = 1e-9  # relative losses as near as this to the largest are largest too
ACCURACY = 1e-10  # of the linear programme, in units of each gradient; the least that HiGHS takes


@strategy(
    "epo",
    paper="Mahapatra & Rajan 2020, ICML (EPO Search)",
    scale="convex",
    claims=(homogeneous(1), "deterministic", "sums-to-one"),
    variants=({"preference": {str(i): 1.0 + i for i in range(64)}}, {"tolerance": 10.0}),
    also=("EPO search", "exact Pareto optimal"),
    about=About(
        family="min-norm",
        use="One point of the Pareto front is wanted, where losses times preferences are equal.",
        avoid="Losses can be zero or negative, or zero is far below what is possible.",
        maths=(
            r"d = J^\top \beta, \qquad \beta = \arg\max_{\beta \in \Delta}\; "
            r"\beta^\top G t"
        ),
        papers=(
            Citation(
                title=(
                    "Multi-Task Learning with User Preferences: Gradient Descent with Controlled "
                    "Ascent in Pareto Optimization"
                ),
                authors=("Debabrata Mahapatra", "Vaibhav Rajan"),
                year=2020,
                venue="ICML",
                source="readme of github.com/dbmptr/EPOSearch",
            ),
        ),
        related={
            "PMGDA": (
                "it looks for a given preference by other means, which are not in this library; "
                "epo does so by a linear programme."
            ),
            "ParetoMTL": (
                "it looks for several points of the front, each in a sector of its own, which is "
                "not in this library; epo goes to one point."
            ),
        },
        differs=(
            (
                "On the preferred ray the official code has one more constraint, unless "
                "`relax=True` is given there; it multiplies d by n in training."
            ),
        ),
    ),
)
def epo(
    gram: Array,
    losses: Array,
    objectives: tuple[str, ...],
    eps: float | None = None,
    *,
    preference: Annotated[Any, PerObjective(POSITIVE)] | None = None,
    tolerance: Annotated[float, NON_NEGATIVE] = 1e-4,
) -> Solution:
    """Towards the point of the Pareto front where losses times preferences are all equal.

    d = Jᵀβ with β = argmax βᵀGt over the simplex, a linear programme (equation 24). With the shares
    l̂ = rL/Σ rL and their distance from equal ones μ = Σⱼ l̂ⱼ log(n l̂ⱼ) (equation 9):

    - μ above `tolerance`: t = a, aⱼ = rⱼ(log(n l̂ⱼ) − μ) (equation 13), so that μ falls. An
      objective with (Ga)ⱼ <= 0 may rise, ⟨gⱼ, d⟩ >= (Ga)ⱼ; those with the largest rL may not.
      Where (Ga)ⱼ <= 0 for every j none may rise.
    - else: t = 1, and none may rise.

    Some objectives rise on purpose, which is how the search moves along the front; by how much at
    most grows with r. The losses have to be above zero, and zero has to be their best value. β need
    not be unique, so that d may depend on the order.

    In the second case the official code also asks for ⟨d, Jᵀa⟩ >= min(0, maxⱼ (Ga)ⱼ), unless
    `relax=True` is given there, and falls back to β = r/Σr where that cannot be. It multiplies d by
    n in training.

    Args:
        preference: r > 0: a number, a dict by name, or numbers in the order of the losses. A larger
            one asks for a smaller loss. None is 1 for all.
        tolerance: up to which μ counts as zero; the official code's 1e-4, the paper's 0.

    Raises:
        InputError: when a loss is not positive, or an objective has no preference.

    Example:
        >>> import numpy as np, gradsurgery as gs
        >>> epo = gs.get_strategy("epo")
        >>> epo.weights(np.eye(2), losses=[3.0, 1.0]).tolist()
        [1.0, 0.0]
        >>> gram = [[1.0, -0.5], [-0.5, 2.0]]
        >>> epo.weights(gram, losses=[1.0, 1.0]).round(3).tolist()
        [0.333, 0.667]
    """
    n = len(gram)
    sizes = positive_losses("strategy 'epo'", losses, objectives)
    wanted = (
        np.ones(n) if preference is None else by_objective("preference", preference, objectives)
    )
    shares = wanted / wanted.max() * (sizes / sizes.max())
    shares = shares / shares.sum()
    logs = np.log(n * shares)
    spread = float(shares @ logs)
    cosines, norms = split(gram)
    lengths = norms / (norms.max() or 1.0)
    inner = cosines * lengths * lengths[:, None]
    floors = np.zeros(n)
    aim = np.ones(n)
    if spread > tolerance:
        aim = wanted * (logs - spread)
        along = inner @ aim
        noise = 10 * (eps or DEFAULT_EPS) * lengths * float(np.abs(aim) @ lengths)
        falls = along > noise
        if falls.any():
            floors = np.where(falls, -np.inf, along)
            floors[shares >= shares.max() * (1 - TIE)] = 0.0
    return _programme(inner, lengths, inner @ aim, floors)


def _programme(inner: Array, lengths: Array, target: Array, floors: Array) -> Solution:
    """argmax βᵀt over the simplex s.t. Gβ >= floors."""
    n, size = len(target), float(np.abs(target).max())
    asked = (lengths > 0) & (floors > -np.inf)
    matrix = inner[asked] / lengths[asked, None]
    bounds = floors[asked] / lengths[asked]
    best = np.eye(n)[int(np.argmax(target))]
    if size > 0 and (matrix @ best >= bounds).all():  # no other point of the simplex is better
        return Solution(best, 0.0, 0, True)
    if size > 0 and n == 2:
        return _on_a_segment(matrix, bounds, best)
    if size > 0:
        from scipy.optimize import linprog

        found = linprog(
            -target / size,
            A_ub=-matrix,
            b_ub=-bounds,
            A_eq=np.ones((1, n)),
            b_eq=[1.0],
            bounds=(0.0, 1.0),
            options={
                "primal_feasibility_tolerance": ACCURACY,
                "dual_feasibility_tolerance": ACCURACY,
            },
        )
        if found.status == 0:
            value = np.maximum(found.x, 0.0)
            return Solution(value / value.sum(), 0.0, int(found.nit), True)
    # every gradient is orthogonal to what is wanted, or rounding left no point at all
    return min_norm(inner)


def _on_a_segment(matrix: Array, bounds: Array, best: Array) -> Solution:
    """For two objectives: the point nearest to the better end of the segment that is allowed."""
    other = best[::-1]
    start, end = matrix @ best - bounds, matrix @ other - bounds
    # each floor is reached from some share of the other end on, or up to one
    late = (start < 0) & (end > start)
    share = np.divide(-start, end - start, out=np.zeros_like(start), where=late).max(initial=0.0)
    share = min(float(share), 1.0)
    return Solution((1 - share) * best + share * other, 0.0, 0, True)
