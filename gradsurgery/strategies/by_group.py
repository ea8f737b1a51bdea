"""by-group: fixed weights of the objectives, others in each group."""

from collections.abc import Mapping
from typing import Any

from gradsurgery.contract import About, by_objective, homogeneous, strategy
from gradsurgery.errors import InputError
from gradsurgery.types import Array

GROUPS = ("all", "encoder", "audio+fused", "0")  # the names under which the checks ask


@strategy(
    "by-group",
    paper="weighted sum of gradients",
    scale="own",
    claims=(homogeneous(1), "deterministic", "permutation-equivariant"),
    variants=({"preference": {g: {str(i): 1.0 + i for i in range(64)} for g in GROUPS}},),
    about=About(
        family="baselines",
        use="Fixed weights per group are known, such as the mean weights of an earlier run.",
        avoid=(
            "One weight per loss does: `constant` then needs one backward pass for all parameters."
        ),
        maths=r"d = \sum_i p_i\, g_i",
    ),
)
def by_group(
    objectives: tuple[str, ...], group: str | None = None, *, preference: Any = None
) -> Array:
    """The sum of the gradients with a fixed weight per group and objective.

    d = Σᵢ pᵢ gᵢ with the weights p of this group. `constant` has one weight per loss, for all
    parameters.

    A run's mean weights are given so (`gradsurgery.diagnostics.distil`), to train on without a
    gradient per loss: the weights are known beforehand.

    Args:
        preference: p, a dict from a group's name to what `constant` takes: a dict from objective to
            number. None is one for each, which is `sum`.

    Raises:
        InputError: for a group or an objective without a number.

    Example:
        >>> from gradsurgery import get_strategy
        >>> weights = {"trunk": {"a": 1.0, "b": 0.5}}
        >>> by_group = get_strategy("by-group", preference=weights)
        >>> gram = [[1.0, 0.0], [0.0, 4.0]]
        >>> by_group.weights(gram, objectives=("a", "b"), group="trunk").tolist()
        [1.0, 0.5]
    """
    if preference is None:
        return by_objective("preference", None, objectives, 1.0)
    if not isinstance(preference, Mapping) or group not in preference:
        given = ", ".join(map(repr, preference)) if isinstance(preference, Mapping) else preference
        raise InputError(
            f"preference: nothing given for the group {group!r}; given: {given}. "
            "Give {group: {objective: number}}."
        )
    return by_objective(f"preference[{group!r}]", preference[group], objectives)
