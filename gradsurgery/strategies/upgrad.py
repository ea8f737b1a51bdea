"""upgrad: unconflicting projection of gradients."""

from typing import Any

import numpy as np

from gradsurgery.contract import About, Citation, by_objective, homogeneous, strategy
from gradsurgery.errors import InputError
from gradsurgery.solvers import Solution, project_each
from gradsurgery.types import Array


@strategy(
    "upgrad",
    paper="Quinton & Rey 2024, arXiv:2406.16232",
    scale="mean",
    claims=(
        "non-conflicting",
        "strict",
        homogeneous(1),
        "permutation-equivariant",
        "deterministic",
    ),
    variants=({"preference": {str(i): 1.0 + i for i in range(64)}},),
    also=("unconflicting projection of gradients",),
    about=About(
        family="projections",
        use=(
            "No objective may rise to first order and each should improve; without conflict it is "
            "the mean."
        ),
        avoid="One pass has to do, or the sum's larger step is wanted.",
        maths=(
            r"d = \sum_i \pi(u_i g_i), \qquad \pi \text{ the projection onto } \{d : \langle g_j, "
            r"d\rangle \ge 0\ \forall j\}"
        ),
        papers=(
            Citation(
                title="Jacobian Descent For Multi-Objective Optimization",
                authors=("Pierre Quinton", "Valérian Rey"),
                year=2024,
                arxiv="2406.16232",
                source="README of github.com/TorchJD/torchjd",
            ),
        ),
        related={
            "Jacobian descent": (
                "it is descent by any aggregator of the Jacobian; its authors' own aggregator is "
                "upgrad."
            ),
        },
        differs=(
            (
                "TorchJD adds a regulariser to the Gram matrix, by which conflict remains where "
                "norms differ much; here none is added."
            ),
        ),
    ),
)
def upgrad(
    gram: Array,
    objectives: tuple[str, ...],
    eps: float | None = None,
    *,
    preference: Any = None,
) -> Solution:
    """The mean of the gradients, each first projected so that it conflicts with none.

    d = Σᵢ of the projections of uᵢgᵢ onto the cone of non-conflicting directions, u = 1/n
    (definition 5). Each projection is Jᵀv with v = argmin vᵀGv s.t. v >= uᵢeᵢ (proposition 1).

    d is non-conflicting, and the mean where no gradients conflict.

    Args:
        preference: u > 0, a dict from name to number, or numbers in the order of the losses when
            those are a sequence.

    Raises:
        InputError: when an objective has no number, or one that is not positive.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("upgrad").weights([[1.0, -0.5], [-0.5, 1.0]]).tolist()
        [0.75, 0.75]
    """
    if preference is None:
        return project_each(gram, eps=eps)
    wanted = by_objective("preference", preference, objectives)
    if not (wanted > 0).all():
        raise InputError(
            "strategy 'upgrad': preference is positive; "
            f"got {dict(zip(objectives, wanted.tolist(), strict=True))}."
        )
    return project_each(gram, np.asarray(wanted), eps)
