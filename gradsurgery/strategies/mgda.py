"""mgda: multiple gradient descent algorithm."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np

from gradsurgery.contract import (
    POSITIVE,
    SHARE,
    About,
    Citation,
    PerObjective,
    by_objective,
    homogeneous,
    positive_losses,
    strategy,
    when,
)
from gradsurgery.errors import InputError
from gradsurgery.solvers import Solution, at_rounding_floor, boxed_min_norm, min_norm
from gradsurgery.solvers.min_norm import EXACT, Method
from gradsurgery.types import Array

ROUND = 1e-9  # by as much numbers with a sum of 1 may miss it


def _exact(options: dict[str, Any]) -> bool:
    return options["solver"] in EXACT


def _whole(options: dict[str, Any]) -> bool:
    return _exact(options) and options["radius"] in (None, 1) and options["floors"] is None


def _unit(options: dict[str, Any]) -> bool:
    return options["normalize"] in ("l2", "loss+")


@strategy(
    "mgda",
    paper="Désidéri 2012; Sener & Koltun 2018, arXiv:1810.04650",
    scale="convex",
    claims=(
        "deterministic",
        when(
            "the solver is exact, radius is None or 1 and there are no floors",
            _whole,
            "non-conflicting",
            "strict",
        ),
        when("the solver is exact", _exact, "permutation-equivariant"),
        when(
            "normalize is none or loss and the solver is exact",
            lambda options: not _unit(options) and _exact(options),
            homogeneous(1),
        ),
        when(
            "normalize is l2 or loss+ and the solver is exact",
            lambda options: _unit(options) and _exact(options),
            homogeneous(0),
            "scale-invariant",
        ),
        when("normalize is none", lambda options: options["normalize"] == "none", "sums-to-one"),
    ),
    inputs=lambda options: (
        {"gram", "eps"}
        | ({"losses", "objectives"} if options["normalize"] in ("loss", "loss+") else set())
        | (set() if options["center"] is options["floors"] is None else {"objectives"})
    ),
    variants=(
        {"normalize": "l2"},
        {"normalize": "loss"},
        {"normalize": "loss+"},
        {"solver": "active-set"},
        {"solver": "frank-wolfe"},
        {"radius": 0.2},
        {"radius": 0.1, "normalize": "l2", "center": {str(i): 1.0 + i for i in range(64)}},
        {"floors": {str(i): (1 + i % 3) / 200 for i in range(64)}},
    ),
    also=("min-norm", "multiple gradient descent", "multiple gradient descent algorithm"),
    about=About(
        family="min-norm",
        use=(
            "Every objective has to improve, and training may stop where no direction improves all."
        ),
        avoid=(
            "Progress on the mean loss counts, or one gradient is much shorter: the min-norm "
            "point follows that one."
        ),
        maths=r"d = J^\top w, \qquad w = \arg\min_{w \in \Delta}\; w^\top G w",
        papers=(
            Citation(
                title="Multi-Task Learning as Multi-Objective Optimization",
                authors=("Ozan Sener", "Vladlen Koltun"),
                year=2018,
                venue="NeurIPS",
                arxiv="1810.04650",
                source="README of github.com/Baijiong-Lin/Awesome-Multi-Objective-Deep-Learning",
            ),
            Citation(
                title="Multiple-gradient descent algorithm (MGDA) for multiobjective optimization",
                authors=("Jean-Antoine Désidéri",),
                year=2012,
                venue="Comptes Rendus. Mathématique",
                source="comptes-rendus.academie-sciences.fr, 10.1016/j.crma.2012.03.014",
                journal=True,
            ),
        ),
        related={
            "Frank-Wolfe": (
                "it is the solver of MGDA's official code; mgda finds the same min-norm point to "
                "rounding."
            ),
            "MGDA-UB": (
                "it is mgda on the gradients at the shared representation z: backward(losses, "
                "features=z)."
            ),
            "FedMGDA+": "it is mgda with normalize='l2' and radius=.",
            "PE-LTR": "it is mgda with floors=, solved exactly.",
            "log_mgda": "it is mgda with normalize='loss'.",
            "PSMGD": "weights are used again between solves: Surgery('mgda', every=k).",
            "MultiBalance": (
                "it balances the gradients at shared representations (arXiv:2411.11871): "
                "backward(losses, features=z) with mgda or another strategy."
            ),
            "WC-MGDA": "it weighs the norm against weighted losses, which is not in this library.",
        },
        differs=(
            (
                "Some code finds weights on scaled gradients and applies them to the raw ones, "
                "which loses the guarantee; here the scaled ones are combined."
            ),
            (
                "The usual Frank-Wolfe solver stops early: at 30 gradients its norm has been seen "
                "to be 277 % above the least. The default here is exact."
            ),
        ),
    ),
)
def mgda(
    gram: Array,
    losses: Array | None = None,
    objectives: tuple[str, ...] | None = None,
    eps: float | None = None,
    *,
    normalize: Literal["none", "l2", "loss", "loss+"] = "none",
    solver: Method = "auto",
    radius: Annotated[float, SHARE] | None = None,
    center: Annotated[Any, PerObjective(POSITIVE)] | None = None,
    floors: Annotated[Any, PerObjective(SHARE)] | None = None,
) -> Solution:
    """The min-norm point of the convex hull of the gradients.

    d = Jᵀw, w = argmin wᵀGw over the simplex (w >= 0, Σw = 1): equation 3 of Sener & Koltun.

    ⟨gᵢ, d⟩ >= ‖d‖² for every i, so that d is non-conflicting. Where the gradients are Pareto
    stationary up to rounding (‖d‖² <= 10·eps·(Σ wⱼnⱼ)²) the direction is exactly zero and so are
    the weights.

    With a normalisation the problem is solved on gᵢ/cᵢ, and the same scaled gradients are
    combined, d = Σ αᵢ gᵢ/cᵢ. Weights found on scaled gradients but applied to the raw ones would
    lose the guarantee.

    With a radius ρ every weight also stays within ρ of a given one, |wᵢ − uᵢ| <= ρ. So ρ = 0 is the
    weighted mean and ρ = 1 the min-norm point; in between d may conflict. With `normalize="l2"` it
    is FedMGDA+ (Hu et al. 2022, arXiv:2006.11489).

    With floors b every weight is at least its own, wᵢ >= bᵢ: the priorities of PE-LTR (Lin et al.
    2019, RecSys), whose problem is solved exactly here. Floors with a sum of 1 are the weights.
    Unlike `weights=`, which multiply the losses, floors change no gradient; d may conflict.

    There is no `preference=`: the least ‖Σ αᵢrᵢgᵢ‖ is what `weights=r` give. There rᵢ⟨gᵢ, d⟩ = ‖d‖²
    wherever αᵢ > 0, so that a loss with a larger r falls less. WC-MGDA (Momma et al. 2022, ICML)
    therefore weighs that norm against the weighted losses, Σ αᵢrᵢLᵢ, and is not in this library.

    Args:
        normalize: cᵢ: "none" 1, "l2" nᵢ, "loss" Lᵢ, "loss+" Lᵢ·nᵢ. Losses have to be positive
            where they are used.
        solver: the method of `gradsurgery.solvers.min_norm`. "frank-wolfe" is accurate to 1e-6, so
            d may conflict by as much. "auto" is the one with a radius or floors.
        radius: ρ; None is no bound.
        center: u > 0, divided by its sum: a dict by name, or numbers in the order of the losses.
            None is 1/n for all.
        floors: b from 0 to 1, with a sum of at most 1 over a group: a number, a dict by name, or
            numbers in the order of the losses. None is 0 for all.

    Raises:
        InputError: when a loss is not positive under "loss" or "loss+"; the message names it. When
            an objective has no number in `center` or `floors`, floors sum to more than 1, or there
            is a `center` without a radius or a radius beside floors.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("mgda").weights([[1.0, 0.0], [0.0, 3.0]]).round(2).tolist()
        [0.75, 0.25]
    """
    divisor: Array | float = 1.0
    if normalize in ("loss", "loss+"):
        divisor = divisor * positive_losses(
            f"strategy 'mgda' with normalize={normalize!r}", losses, objectives
        )
    if normalize in ("l2", "loss+"):
        norms = np.sqrt(np.diagonal(gram))
        divisor = divisor * np.where(norms > 0, norms, 1.0)
    scaled = gram if isinstance(divisor, float) else gram / divisor / divisor[:, None]
    if radius is None and center is None and floors is None:
        solution = min_norm(scaled, solver)
    elif floors is None:
        solution = _within(scaled, solver, radius, center, objectives)
    else:
        solution = _above(scaled, solver, radius, center, floors, objectives)
    if at_rounding_floor(scaled, solution.value, eps):
        return replace(solution, value=np.zeros(len(gram)))
    return replace(solution, value=solution.value / divisor)


def _within(
    gram: Array,
    solver: Method,
    radius: float | None,
    center: Any,
    objectives: tuple[str, ...] | None,
) -> Solution:
    """The min-norm point whose weights are within a radius of given ones."""
    if radius is None or solver != "auto":
        raise InputError(
            f"strategy 'mgda': center= is that of radius=, with solver='auto'; got "
            f"radius={radius!r}, solver={solver!r}."
        )
    middle = np.full(len(gram), 1 / len(gram))
    if center is not None:
        assert objectives is not None
        given = by_objective("center", center, objectives)
        middle = np.asarray(given / given.sum())
    return boxed_min_norm(gram, np.maximum(middle - radius, 0), np.minimum(middle + radius, 1))


def _above(
    gram: Array,
    solver: Method,
    radius: float | None,
    center: Any,
    floors: Any,
    objectives: tuple[str, ...] | None,
) -> Solution:
    """The min-norm point whose weights are at least given ones."""
    if radius is not None or center is not None or solver != "auto":
        raise InputError(
            f"strategy 'mgda': floors= stand alone, with solver='auto'; got radius={radius!r}, "
            f"center={center!r}, solver={solver!r}."
        )
    assert objectives is not None
    least = by_objective("floors", floors, objectives)
    total = float(least.sum())
    if total > 1 + ROUND:
        given = dict(zip(objectives, least.tolist(), strict=True))
        raise InputError(f"strategy 'mgda': floors sum to at most 1 in a group; got {given}.")
    return boxed_min_norm(gram, least / max(total, 1.0), np.ones(len(gram)))
