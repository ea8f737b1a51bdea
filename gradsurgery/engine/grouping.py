"""Groups: the parameters that are solved together, from the reach of the losses."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from gradsurgery.engine.naming import distinct
from gradsurgery.engine.reach import Reach

GroupKey = str | frozenset[str]
OTHERS = "others"


@dataclass(frozen=True)
class Group:
    """Parameters that are solved together.

    Attributes:
        key: what its state is kept under: an explicit group's name, or the objectives so far.
        name: what users know it by.
        parameters: name -> tensor.
        objectives: those that reach it in this step, in the order of the losses.
        plain: whether it gets the sum of its gradients, whatever the strategy.
        unchecked: whether its gradients may be what they are, NaN too.
    """

    key: GroupKey
    name: str
    parameters: dict[str, Tensor]
    objectives: tuple[str, ...] = ()
    plain: bool = False
    unchecked: bool = False

    def several(self, least: int, names: Sequence[str] | None = None) -> bool:
        """Whether a strategy is applied: enough objectives, of `names` where some are left out."""
        return not self.plain and len(self.objectives if names is None else names) >= least


def make_groups(
    trained: Mapping[str, Tensor],
    others: Mapping[str, Tensor],
    unchecked: frozenset[str],
    explicit: Mapping[str, str] | None,
    reach: Reach,
    before: Reach,
) -> tuple[list[Group], Reach]:
    """Explicit groups, or one group per set of objectives that has reached some parameter so far.

    Args:
        trained: name -> tensor of what was given, and of the features.
        others: name -> tensor of what was not given and is reached.
        unchecked: those of the others that are no parameters.
        explicit: name -> group, or None.
        reach: of this step.
        before: the reach of the steps before.

    Returns:
        The groups in the order of the parameters, and the reach with this step added.
    """
    found = {name: tensor for name, tensor in trained.items() if reach.ordered(name)}
    grown = before.united(reach, found)
    by_reach = {name: grown[name] for name in found}
    titles = _titles(explicit, grown)
    groups: dict[GroupKey, tuple[str, dict[str, Tensor]]] = {}
    for name, tensor in found.items():
        key: GroupKey = by_reach[name]
        if explicit is not None and name in explicit:  # features are grouped by reach all the same
            key = explicit[name]
            title = key
        elif key not in groups:
            title = titles.get(by_reach[name]) or "+".join(sorted(by_reach[name]))
        groups.setdefault(key, (title, {}))[1][name] = tensor
    made = [
        Group(key, title, parameters, _present(parameters, reach))
        for key, (title, parameters) in groups.items()
    ]
    return made + _of_others(made, others, unchecked, explicit, reach, grown), grown


def _of_others(
    made: list[Group],
    others: Mapping[str, Tensor],
    unchecked: frozenset[str],
    explicit: Mapping[str, str] | None,
    reach: Reach,
    grown: Reach,
) -> list[Group]:
    """Up to two plain groups of what was not given: parameters, and other leaves."""
    reached = {name: tensor for name, tensor in others.items() if reach.ordered(name)}
    if not reached:
        return []
    taken = {group.name for group in made} | set((explicit or {}).values())
    if any(objectives == {OTHERS} for objectives in grown.values()):
        taken.add(OTHERS)
    found: list[Group] = []
    for leaves in (False, True):
        parameters = {n: t for n, t in reached.items() if (n in unchecked) == leaves}
        if not parameters:
            continue
        numbered = (f"{OTHERS} ({i})" for i in range(2, len(taken) + 3))
        title = next(t for t in (OTHERS, *numbered) if t not in taken)
        taken.add(title)
        present = _present(parameters, reach)
        found.append(Group(title, title, parameters, present, plain=True, unchecked=leaves))
    return found


def _present(parameters: Iterable[str], reach: Reach) -> tuple[str, ...]:
    present = {o for name in parameters for o in reach.ordered(name)}
    return tuple(o for o in reach.objectives if o in present)


def _titles(explicit: Mapping[str, str] | None, reach: Reach) -> dict[frozenset[str], str]:
    """The titles of groups by reach, where joined names may coincide.

    They may with one another, or with an explicit group's. They follow from all that was ever
    reached, so that a group has one title in every step.
    """
    known = list(dict.fromkeys(reach.values()))
    if explicit is None and not any("+" in o for key in known for o in key):
        return {}
    titles = ["+".join(sorted(key)) for key in known]
    return dict(zip(known, distinct(titles, set((explicit or {}).values())), strict=True))
