"""pcd: priority-constrained descent."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from gradsurgery.contract import (
    SHARE,
    About,
    Citation,
    ObjectiveName,
    PerObjective,
    Range,
    State,
    by_objective,
    equivariant_when_named,
    homogeneous,
    strategy,
)
from gradsurgery.solvers import at_rounding_floor, nearest_above
from gradsurgery.types import Array


@strategy(
    "pcd",
    paper="Priority-Constrained Descent 2026, arXiv:2606.29521",
    scale="own",
    claims=(
        homogeneous(1),
        "scale-invariant",
        "deterministic",
        equivariant_when_named("primary", "the primary objective"),
    ),
    variants=({"primary": "0"}, {"primary": "0", "tau": {str(i): i / 64 for i in range(64)}}),
    also=("priority-constrained descent",),
    about=About(
        family="auxiliary",
        use="One objective leads, and each other one is promised a share of its own progress.",
        avoid="All objectives count alike.",
        maths=(
            r"\min_d \tfrac12 \lVert d - \tilde g_1\rVert^2 \quad\text{s.t.}\quad \langle\tilde "
            r"g_j, d\rangle \ge \tau \lVert\tilde g_j\rVert^2"
        ),
        papers=(
            Citation(
                title=(
                    "Not All Objectives Are Born Equal: Priority-Constrained Descent for "
                    "Hierarchical Multi-Objective Optimization"
                ),
                arxiv="2606.29521",
                source="huggingface.co/DaraV/papers, which has the title and the number",
            ),
        ),
    ),
)
def pcd(
    gram: Array,
    objectives: tuple[str, ...],
    state: State,
    eps: float | None = None,
    *,
    primary: ObjectiveName | None = None,
    tau: Annotated[Any, PerObjective(SHARE)] = 0.02,
    beta: Annotated[float, Range(0, 1, high_open=True)] = 0.999,
) -> Array:
    """The nearest direction to the primary gradient by which every other objective improves.

    min ½‖d − g̃₁‖² s.t. ⟨g̃ⱼ, d⟩ >= τ‖g̃ⱼ‖² for every secondary j, then d rescaled to n₁.

    g̃ᵢ = gᵢ/√v̂ᵢ with v̂ᵢ the bias-corrected running mean of nᵢ² (decay β). Where the constraints
    contradict each other (up to rounding) d = g₁; where the primary gradient is zero, d = 0. On a
    group that the named primary objective does not reach d is the sum.

    Args:
        primary: the primary objective's name; None is the first.
        tau: τ, the share of its own step's progress that each secondary objective is promised, 0
            to 1: one number for all, a dict by their names, or numbers in the order of the losses
            (the primary's is not used).
        beta: β of the running mean of the squared norms.

    Raises:
        InputError: when a secondary objective has no share.

    Example:
        >>> import gradsurgery as gs
        >>> pcd, state = gs.get_strategy("pcd"), gs.State()
        >>> pcd.weights([[1.0, 0.0], [0.0, 4.0]], state=state).round(3).tolist()
        [1.0, 0.01]
    """
    if primary is not None and primary not in objectives:
        return np.ones(len(objectives))
    n, first = len(gram), 0 if primary is None else objectives.index(primary)
    squares = np.diagonal(gram)
    mean = state.vector("squares", 0.0)
    seen = state.vector("steps", 0.0)
    seen += 1
    mean *= beta
    mean += (1 - beta) * squares
    corrected = mean / (1 - beta**seen)
    scale = np.divide(1.0, np.sqrt(corrected), out=np.zeros(n), where=corrected > 0)
    if squares[first] == 0:
        return np.zeros(n)
    scaled = gram * scale * scale[:, None]
    floors = _shares(tau, objectives, first) * np.diagonal(scaled)
    floors[first] = -np.inf
    floors[squares == 0] = -np.inf
    start = np.eye(n)[first]
    found = nearest_above(scaled, start, floors).value
    moved = found - start
    square = float(found @ scaled @ found)
    noise = moved.any() and at_rounding_floor(scaled, moved, eps)
    if noise or at_rounding_floor(scaled, found, eps):
        return np.asarray(start)  # secondaries that contradict each other but for rounding
    return np.asarray(found * scale * np.sqrt(squares[first] / square))


def _shares(tau: Any, objectives: tuple[str, ...], first: int) -> Array | float:
    """τ [n], or one number; the primary's own is not asked for."""
    if isinstance(tau, float):
        return tau
    if not isinstance(tau, Mapping):
        what = "tau (in order: one per loss, the primary's included)"
        return by_objective(what, tau, objectives)
    others = [name for i, name in enumerate(objectives) if i != first]
    return np.insert(by_objective("tau", tau, others), first, 0.0)
