"""aligned-mtl: independent component alignment for multi-task learning."""

from typing import Any, Literal

import numpy as np

from gradsurgery.contract import About, Citation, by_objective, homogeneous, strategy
from gradsurgery.solvers import principal_factor, split
from gradsurgery.types import Array

SPREAD = 1e3  # of the norms, above which an ordinary eigendecomposition loses the small components


@strategy(
    "aligned-mtl",
    paper="Senushkin et al. 2023, arXiv:2305.19000",
    scale="mean",
    claims=(homogeneous(1), "permutation-equivariant", "deterministic"),
    variants=(
        {"scale": "median"},
        {"scale": "rmse", "reduction": "sum"},
        {"preference": {str(i): 1.0 + i for i in range(64)}},
    ),
    also=("independent component alignment",),
    about=About(
        family="equal improvement",
        use=(
            "A few dominant principal components drown the others, and no objective may be lost "
            "to the longest gradients."
        ),
        avoid=(
            "Gradients are nearly dependent: the least component sets the length, so steps become "
            "short. Conflict may remain."
        ),
        maths=(
            r"d = J^\top w, \qquad w = \sqrt{s}\, V \Lambda^{-1/2} V^\top u, \qquad G = V \Lambda "
            r"V^\top"
        ),
        papers=(
            Citation(
                title="Independent Component Alignment for Multi-Task Learning",
                authors=(
                    "Dmitry Senushkin",
                    "Nikolay Patakin",
                    "Arseny Kuznetsov",
                    "Anton Konushin",
                ),
                year=2023,
                venue="CVPR",
                arxiv="2305.19000",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
        ),
    ),
)
def aligned_mtl(
    gram: Array,
    objectives: tuple[str, ...],
    *,
    scale: Literal["min", "median", "rmse"] = "min",
    reduction: Literal["mean", "sum"] = "mean",
    preference: Any = None,
) -> Array:
    """The mean of the gradients after their principal components are brought to one length.

    d = Jᵀw with w = √s V Λ^(−½) Vᵀ u, G = VΛVᵀ over the positive eigenvalues, u = 1/n
    (Algorithm 1).

    J is replaced by the matrix with the same singular vectors whose singular values are all √s.
    The linear system of the gradients then has the condition number 1.

    Args:
        scale: s: the least positive eigenvalue, their median, or their mean (the square of the
            root mean square).
        reduction: "mean" (u = 1/n) or "sum" (u = 1).
        preference: u itself, a dict from name to number, or numbers in the order of the losses
            when those are a sequence.

    Raises:
        InputError: when an objective has no number, or one is not finite.

    Example:
        >>> from gradsurgery import get_strategy
        >>> aligned = get_strategy("aligned-mtl")
        >>> aligned.weights([[4.0, 0.0], [0.0, 1.0]]).round(9).tolist()
        [0.25, 0.5]
    """
    n = len(gram)
    wanted = (
        np.full(n, 1 / n if reduction == "mean" else 1.0)
        if preference is None
        else by_objective("preference", preference, objectives)
    )
    roots, vectors = _components(gram)
    if not len(roots):
        return wanted
    if scale == "min":
        length = roots.min()
    elif scale == "median":
        length = np.sort(roots)[(len(roots) - 1) // 2]
    else:
        length = np.sqrt(np.mean(roots**2))
    return np.asarray(vectors @ (length / roots * (vectors.T @ wanted)))


def _components(gram: Array) -> tuple[Array, Array]:
    """The singular values √λ [r] above rounding, and V [n, r]."""
    cosines, norms = split(gram)
    live = norms > 0
    if not live.any():
        return np.zeros(0), np.zeros((len(norms), 0))
    spread = float(norms.max() / norms[live].min())
    if spread <= SPREAD and live.all():
        values, vectors = np.linalg.eigh(gram / norms.max() / norms.max())
        kept = values > len(norms) * 1e-14 * values[-1]
        return np.sqrt(values[kept]) * norms.max(), vectors[:, kept]
    # One-sided Jacobi finds the singular values of L·diag(n), LᵀL the cosines, to high relative
    # accuracy whatever the norms.
    from scipy.linalg.lapack import dgejsv

    on = np.flatnonzero(live)
    root = principal_factor(cosines[np.ix_(on, on)])
    rank = int((np.linalg.norm(root, axis=1) > np.sqrt(len(on) * 1e-14)).sum())
    values, _, right, work, _, _ = dgejsv(root * (norms[on] / norms.max()), joba=0, jobu=3, jobv=0)
    vectors = np.zeros((len(norms), rank))
    vectors[on] = right[:, :rank]
    return np.asarray(values[:rank] * (work[0] / work[1]) * norms.max()), vectors
