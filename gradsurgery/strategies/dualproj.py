"""dualproj: the projection of gradient episodic memory (GEM)."""

from typing import Any

from gradsurgery.contract import About, Citation, by_objective, homogeneous, strategy, when
from gradsurgery.solvers import Solution, project_dual_cone
from gradsurgery.types import Array


@strategy(
    "dualproj",
    paper="Lopez-Paz & Ranzato 2017, arXiv:1706.08840 (GEM)",
    scale="mean",
    claims=(
        "non-conflicting",
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
        when("no preference is given", lambda options: options["preference"] is None, "projection"),
    ),
    variants=({"preference": {str(i): 1.0 + i for i in range(64)}},),
    also=("dual cone projection",),
    about=About(
        family="projections",
        use=(
            "No objective may rise to first order, and the direction should stay as near to the "
            "mean as that allows."
        ),
        avoid=(
            "Each objective has to improve: one that the mean conflicts with stands still. "
            "`upgrad` moves it."
        ),
        maths=(
            r"d = \arg\min_{\langle g_i, d\rangle \ge 0}\; \left\lVert d - "
            r"\frac1n \sum_i g_i\right\rVert = J^\top v, \qquad v = \arg\min_{v "
            r"\ge u}\; v^\top G v"
        ),
        papers=(
            Citation(
                title="Gradient Episodic Memory for Continual Learning",
                authors=("David Lopez-Paz", "Marc'Aurelio Ranzato"),
                year=2017,
                venue="NIPS",
                arxiv="1706.08840",
                source="README of github.com/facebookresearch/GradientEpisodicMemory",
            ),
        ),
        related={
            "GEM": (
                "it projects the gradient of one task, off those of the memories. dualproj "
                "projects the mean of all gradients; a-gem has one memory."
            ),
        },
        differs=(
            (
                "GEM projects one task's gradient with the memories' as constraints; here the "
                "mean is projected, and all gradients are constraints."
            ),
        ),
    ),
)
def dualproj(
    gram: Array,
    objectives: tuple[str, ...],
    eps: float | None = None,
    *,
    preference: Any = None,
) -> Solution:
    """The mean gradient, projected so that it conflicts with none.

    The nearest direction to the mean in the cone of non-conflicting ones: d = Jᵀv, v = argmin vᵀGv
    s.t. v >= u, u = 1/n.

    Equation 11 of GEM, with all gradients as constraints. An objective whose gradient the
    mean conflicts with has ⟨gᵢ, d⟩ = 0, so it need not improve.

    Args:
        preference: u, a dict from name to number, or numbers in the order of the losses when those
            are a sequence.

    Raises:
        InputError: when an objective has no number, or one is not finite.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("dualproj").weights([[1.0, -2.0], [-2.0, 5.0]]).tolist()
        [1.0, 0.5]
    """
    if preference is None:
        return project_dual_cone(gram, eps=eps)
    return project_dual_cone(gram, by_objective("preference", preference, objectives), eps=eps)
