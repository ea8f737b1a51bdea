"""The groups of a step, from which objectives have reached each parameter."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from gradsurgery.engine.naming import apart

GroupKey = str | frozenset[str]
Reach = dict[str, frozenset[str]]  # parameter -> every objective that has reached it so far


@dataclass
class Group:
    """Parameters that are solved together; `plain` ones get the sum of their gradients.

    `objectives` are those that reach it in this step, in the order of the losses. Gradients of
    `unchecked` ones may be what they are, NaN too.
    """

    key: GroupKey
    name: str
    parameters: dict[str, Tensor]
    plain: bool = False
    unchecked: bool = False
    objectives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grouping:
    """The groups of a step, the reach so far with this step's, and for each parameter the objectives that reach it now."""

    groups: list[Group]
    reach: Reach
    reached: dict[str, tuple[str, ...]]

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The parameters of all groups."""
        return {name: t for group in self.groups for name, t in group.parameters.items()}

    @cached_property
    def outline(self) -> list[tuple[str, tuple[str, ...], int]]:
        """Name, objectives and number of parameters of each group: what a Record may keep."""
        return [(group.name, group.objectives, len(group.parameters)) for group in self.groups]


def make_groups(
    parameters: dict[str, Tensor],
    explicit: Mapping[str, str] | None,
    reached: Mapping[str, tuple[str, ...]],
    reach: Reach,
) -> tuple[list[Group], Reach]:
    """Explicit groups, or one group for each set of objectives that has reached some parameter so far.

    Args:
        parameters: name -> tensor of what is trained in this step.
        explicit: name -> group, or None.
        reached: name -> the objectives that reach it in this step.
        reach: what was known before; it is not changed.

    Returns:
        The groups in the order of the parameters, and the reach with this step added.
    """
    grown: Reach = dict(reach)
    joined = dict[tuple[frozenset[str], tuple[str, ...]], frozenset[str]]()
    for name in parameters:
        both = reach.get(name, frozenset()), reached[name]
        if both not in joined:
            joined[both] = both[0].union(both[1])
        grown[name] = joined[both]
    if grown == reach:
        grown = reach  # the same one, by which later steps see that nothing has changed
    by_reach: dict[GroupKey, Group] = {}
    titles = _titles(explicit, grown)
    for name, tensor in parameters.items():
        key: GroupKey = grown[name]
        if explicit is not None and name in explicit:  # features are grouped by reach all the same
            key = explicit[name]
            by_reach.setdefault(key, Group(key, explicit[name], {}))
        elif key not in by_reach:
            by_reach[key] = Group(key, titles.get(grown[name]) or "+".join(sorted(grown[name])), {})
        by_reach[key].parameters[name] = tensor
    return list(by_reach.values()), grown


def _titles(explicit: Mapping[str, str] | None, reach: Reach) -> dict[frozenset[str], str]:
    """The titles of groups by reach, where joined names may coincide: with one another, or with an explicit group's.

    They follow from all that was ever reached, so that a group has one title in every step.
    """
    known = list(dict.fromkeys(reach.values()))
    if explicit is None and not any("+" in o for key in known for o in key):
        return {}
    return dict(
        zip(
            known,
            apart(["+".join(sorted(key)) for key in known], set((explicit or {}).values())),
            strict=True,
        )
    )
