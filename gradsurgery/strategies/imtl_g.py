"""imtl-g: impartial multi-task learning, its part for gradients."""

import numpy as np

from gradsurgery.contract import About, Citation, homogeneous, strategy, when
from gradsurgery.solvers import DEFAULT_EPS, equalizing, split
from gradsurgery.types import Array


@strategy(
    "imtl-g",
    paper="Liu et al. 2021, ICLR (IMTL)",
    scale="convex",
    claims=(
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
        "sums-to-one",
        when("n <= 2", lambda n: n <= 2, "non-conflicting", "strict", "scale-invariant"),
    ),
    about=About(
        family="equal improvement",
        use=(
            "Two objectives should improve at the same rate whatever the sizes of their gradients."
        ),
        avoid="There are three or more: weights may be negative, and every loss may rise.",
        maths=(
            r"d = J^\top w, \qquad \frac{\langle d, g_i\rangle}{\lVert g_i\rVert} \text{ equal "
            r"for all } i, \quad \sum_i w_i = 1"
        ),
        papers=(
            Citation(
                title="Towards Impartial Multi-task Learning",
                authors=(
                    "Liyang Liu",
                    "Yi Li",
                    "Zhanghui Kuang",
                    "Jing-Hao Xue",
                    "Yimin Chen",
                    "Wenming Yang",
                    "Qingmin Liao",
                    "Wayne Zhang",
                ),
                year=2021,
                venue="ICLR",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
        related={
            "IMTL": (
                "its two halves are imtl-g, which balances gradients, and imtl-l, which scales "
                "losses; nash-mtl's is imtl-g; the paper's and LibMTL's are imtl-g on losses that "
                "imtl-l has scaled."
            ),
            "log_imtl": "give the logarithms of the losses.",
        },
        differs=(
            (
                "At rank n − 1 the paper's formula gives d = 0; here projections are as nearly "
                "equal as they can be, so that training goes on."
            ),
        ),
    ),
)
def imtl_g(gram: Array, eps: float | None = None) -> Array:
    """The direction whose projections onto all gradients are equal.

    d = Jᵀw with ⟨d, gᵢ⟩/nᵢ equal for all i and Σw = 1 (equation 6): wᵢ ∝ (C⁺1)ᵢ/nᵢ, C the matrix
    of cosines.

    For two objectives w₁ = n₂/(n₁ + n₂), and d is non-conflicting. From three on weights may be
    negative, and d even an ascent direction for every objective: that is the method. Where some
    gradients are zero they take all the weight, so that d is zero. Where the unit gradients sum to
    zero up to rounding, or the weights do (they cannot be brought to sum to one), all weights are
    zero.

    At rank n − 1 only d = 0 has equal projections onto all gradients, unless the weights of the
    combination that vanishes sum to zero themselves. The formula of the paper, which inverts an [n
    − 1, n − 1] matrix, gives that d = 0. Here C⁺ gives projections that are as nearly equal as
    they can be, so that training goes on.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("imtl-g").weights([[1.0, -0.5], [-0.5, 9.0]]).tolist()
        [0.75, 0.25]
    """
    cosines, norms = split(gram)
    zero = norms == 0
    if zero.any():
        return np.asarray(zero / zero.sum())
    scale = norms.min() / norms
    if len(norms) == 2:
        return np.asarray(scale / scale.sum())
    weights = scale * equalizing(cosines, np.ones(len(norms)), eps)
    total = float(weights.sum())
    if abs(total) <= 10 * (eps or DEFAULT_EPS) * float(np.abs(weights).sum()):
        return np.zeros(len(norms))
    return np.asarray(weights / total)
