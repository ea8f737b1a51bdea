"""Which parameters are trained, which losses reach each, and the groups that follow."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from torch import Tensor, nn

from gradsurgery.errors import InputError

GroupKey = str | frozenset[str]
TORCHS_OWN = {name: getattr(nn.Module, name) for name in ("named_parameters", "named_modules", "_named_members")}
Reach = dict[str, frozenset[str]]  # parameter -> every objective that has reached it so far


@dataclass
class Group:
    """Parameters that are solved together; `plain` ones get the sum of their gradients.

    `objectives` are those that reach it in this step, in the order of the losses.
    """

    key: GroupKey
    name: str
    parameters: dict[str, Tensor]
    plain: bool = False
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


class Named:
    """The trainable tensors given, by id, and by what to see that they still are what was found.

    Args:
        found: id -> (name, tensor, group).
        modules: the modules that were asked, or None where one has its own idea of its parameters, and has to be asked again.
        tensors: all that were met, trainable or not.
    """

    def __init__(self, found: dict[int, tuple[str, Tensor, str]], modules: list[nn.Module] | None, tensors: list[Tensor]) -> None:
        self.found = found
        self._tensors = tensors
        self._parts: list[dict[str, Any]] | None = None if modules is None else [part for m in modules for part in (m._parameters, m._modules)]
        self._before = None if self._parts is None else self._now()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has other tensors, under other ids: it does not hold."""
        return Named, ({}, None, [])

    def _now(self) -> tuple[list[Any], ...]:
        parts = self._parts or ()
        values = chain.from_iterable([part.values() for part in parts])
        return [*map(tuple, parts)], [*map(id, values)], [*map(id, self._tensors)], [t.requires_grad for t in self._tensors]

    @property
    def holds(self) -> bool:
        """Whether the same modules hold the same tensors under the same names, and the same of them are trainable."""
        return self._before is not None and self._before == self._now()


class Parameters:
    """The `parameters` argument: a Module, tensors, explicit groups of either, or None for whatever is reached."""

    def __init__(self, given: Any = None) -> None:
        self.explicit = isinstance(given, Mapping)
        self.discover = given is None
        if isinstance(given, nn.Module) or given is None:
            self._parts: dict[str, Any] = {"": given}
        elif isinstance(given, Mapping):
            if not given:
                raise InputError("parameters: an empty dict names no groups; give None for groups by reach.")
            self._parts = {str(name): part if isinstance(part, nn.Module) else self._tensors(part, str(name)) for name, part in given.items()}
        else:
            self._parts = {"": self._tensors(given, "parameters")}
        self._named = self._look()  # errors belong to the constructor

    @staticmethod
    def _tensors(given: Any, where: str) -> list[Tensor]:
        if isinstance(given, Tensor):
            return [given]
        if not isinstance(given, Iterable) or isinstance(given, str | bytes):
            hint = " Give the model, not its optimizer." if hasattr(given, "param_groups") else ""
            if isinstance(given, str):
                hint = f" The strategy goes elsewhere: backward(losses, model, {given!r}) or Surgery({given!r}, model)."
            raise InputError(f"{where}: expected a Module, tensors, or a dict of group name -> either; got {type(given).__name__}.{hint}")
        tensors = list(given)
        for i, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise InputError(f"{where}[{i}]: expected a tensor; got {type(tensor).__name__}. (named_parameters() and optimizer groups are not tensors.)")
        return tensors

    def named(self) -> dict[int, tuple[str, Tensor, str]]:
        """id -> (name, tensor, group) of the trainable tensors given; empty for None. The same dict as long as nothing has changed."""
        if not self._named.holds:
            self._named = self._look()
        return self._named.found

    def _look(self) -> Named:
        found: dict[int, tuple[str, Tensor, str]] = {}
        modules: list[nn.Module] | None = []
        met: list[Tensor] = []
        for group, part in self._parts.items():
            if isinstance(part, nn.Module):
                own = modules_of(part)
                named = named_parameters(own) if own is not None else part.named_parameters()
                modules = None if own is None or modules is None else modules + [module for _, module in own]
            else:
                named = ((str(i), t) for i, t in enumerate(part or ()))
            for name, tensor in named:
                met.append(tensor)
                if not tensor.requires_grad:
                    continue
                if not tensor.is_leaf:
                    raise InputError(f"parameter {name!r}{f' of group {group!r}' if group else ''} is not a leaf: give the tensors that are trained.")
                before = found.setdefault(id(tensor), (f"{group}/{name}" if group else name, tensor, group))
                if before[2] != group:
                    raise InputError(f"parameter {name!r} is in two groups, {before[2]!r} and {group!r}; put it in one.")
        return Named(found, modules, met)


def modules_of(module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """(prefix, module) of a module and those within; None where one has its own idea of its parameters."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[nn.Module] = set()
    stack = [("", module)]
    while stack:
        prefix, owner = stack.pop()
        if owner in seen:
            continue
        seen.add(owner)
        kind = type(owner)
        if any(getattr(kind, name) is not own or name in owner.__dict__ for name, own in TORCHS_OWN.items()):
            return None
        found.append((prefix, owner))
        if owner._modules:
            stack.extend((f"{prefix}{name}.", child) for name, child in reversed(owner._modules.items()) if child is not None)
    return found


def named_parameters(modules: Iterable[tuple[str, nn.Module]]) -> Iterable[tuple[str, Tensor]]:
    """What `named_parameters()` gives of modules within each other, several times faster."""
    found: dict[int, tuple[str, Tensor]] = {}
    for prefix, owner in modules:
        for name, tensor in owner._parameters.items():
            if tensor is not None:
                found.setdefault(id(tensor), (prefix + name, tensor))
    return found.values()


def make_groups(
    parameters: dict[str, Tensor], explicit: Mapping[str, str] | None, reached: Mapping[str, tuple[str, ...]], reach: Reach
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
    titles: dict[str, int] = dict.fromkeys((explicit or {}).values(), 1)
    for name, tensor in parameters.items():
        key: GroupKey = grown[name]
        if explicit is not None and name in explicit:  # features are grouped by reach all the same
            key = explicit[name]
            by_reach.setdefault(key, Group(key, explicit[name], {}))
        elif key not in by_reach:
            title = "+".join(sorted(grown[name]))
            titles[title] = titles.get(title, 0) + 1
            by_reach[key] = Group(key, title if titles[title] == 1 else f"{title} ({titles[title]})", {})
        by_reach[key].parameters[name] = tensor
    return list(by_reach.values()), grown


def is_parameter(tensor: Tensor) -> bool:
    """Whether a leaf is a model parameter, as opposed to an input that requires grad."""
    return isinstance(tensor, nn.Parameter)


def called(name: str, parameter: Tensor) -> str:
    """How messages name a parameter: by its name, or by its shape where it was found without one."""
    prefix, numbered, _ = name.partition("#")
    if numbered and prefix in ("", "others"):
        return f"a parameter of shape {list(parameter.shape)}"
    return f"parameter {name!r}"
