"""What is trained, and under which names."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn

from gradsurgery.engine.naming import joined, plain_names
from gradsurgery.errors import InputError

TORCHS_OWN = (nn.Module.named_parameters, nn.Module.named_modules, nn.Module._named_members)
NAMED_ON_INSTANCE = frozenset({"named_parameters", "named_modules", "_named_members"})
PLAIN_DICTS = (dict, OrderedDict)


class Named:
    """The trainable tensors given, by id, and by what to see that they still are what was found.

    Args:
        found: id -> (name, tensor, group).
        modules: the modules that were asked, or None where one has its own idea of its parameters, and has to be asked again.
        tensors: all that were met, trainable or not.
    """

    def __init__(
        self,
        found: dict[int, tuple[str, Tensor, str]],
        modules: list[nn.Module] | None,
        tensors: list[Tensor],
    ) -> None:
        self.found = found
        self._modules = modules
        self._tensors = tensors
        self._kinds: tuple[type[nn.Module], ...] = tuple(set(map(type, modules or ())))
        self._methods = [TORCHS_OWN] * len(self._kinds)
        # Held, so that no later object can have one of the ids that are compared.
        self._values: list[Any] = []
        self._before = None if modules is None else self._now(self._values)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has other tensors, under other ids: it does not hold."""
        return Named, ({}, None, [])

    def _now(self, values: list[Any]) -> tuple[list[Any], ...]:
        """Kinds, names, ids and `requires_grad` of what the modules hold now; the objects themselves go into `values`."""
        modules = self._modules or ()
        own = [m.__dict__ for m in modules]  # fetched anew, since it may have been swapped
        parts = [part for d in own for part in (d["_parameters"], d["_modules"]) if part]
        values += chain.from_iterable([part.values() for part in parts])
        return (
            [*map(type, modules)],
            [*map(tuple, parts)],
            [*map(id, values)],
            [t.requires_grad for t in self._tensors],
        )

    @property
    def holds(self) -> bool:
        """Whether the same modules hold the same tensors under the same names, and the same of them are trainable."""
        if self._before is None:
            return False
        methods = [
            (kind.named_parameters, kind.named_modules, kind._named_members) for kind in self._kinds
        ]
        if methods != self._methods:
            return False
        for m in self._modules or ():
            own = m.__dict__
            if "named_parameters" in own or "named_modules" in own or "_named_members" in own:
                return False
        try:
            return self._before == self._now([])
        except KeyError:  # another class has taken the module's place
            return False


class Parameters:
    """The `parameters` argument: a Module, tensors, explicit groups of either, or None for whatever is reached."""

    def __init__(self, given: Any = None) -> None:
        self.explicit = isinstance(given, Mapping)
        self.discover = given is None
        if isinstance(given, nn.Module) or given is None:
            self._parts: dict[str, Any] = {"": given}
        elif isinstance(given, Mapping):
            if not given:
                raise InputError(
                    "parameters: an empty dict names no groups; give None for groups by reach."
                )
            self._parts = {}
            for name, part in given.items():
                self._parts[self._group(name, part)] = (
                    part if isinstance(part, nn.Module) else self._tensors(part, str(name))
                )
        else:
            self._parts = {"": self._tensors(given, "parameters")}
        self._named = self._look()  # errors belong to the constructor

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that were given."""
        return [part for part in self._parts.values() if isinstance(part, nn.Module)]

    def _group(self, name: Any, part: Any) -> str:
        """The name of an explicit group as a string.

        Raises:
            InputError: for a name that is empty or comes again, or a single tensor in place of a group.
        """
        if isinstance(part, Tensor) and not part.is_leaf:
            raise InputError(
                f"parameters: {name!r} is not a leaf: give the tensors that are trained. Losses? backward(losses, model) takes them first."
            )
        if isinstance(part, Tensor):
            raise InputError(
                f"parameters: {name!r} is a single tensor, where a dict has a Module or a list of tensors per group. Give the model, or "
                f"list(model.parameters()), for groups by reach. A group for one tensor is a list of one: {{{name!r}: [tensor]}}."
            )
        text = str(name)
        if not text:
            raise InputError("parameters: the name of a group is a string that is not empty.")
        if text in self._parts:
            raise InputError(
                f"parameters: two groups are named {text!r} (one is given as {name!r}); give them names that differ as strings."
            )
        return text

    @staticmethod
    def _tensors(given: Any, where: str) -> list[Tensor]:
        if isinstance(given, Tensor):
            return [given]
        if not isinstance(given, Iterable) or isinstance(given, str | bytes):
            hint = " Give the model, not its optimizer." if hasattr(given, "param_groups") else ""
            if isinstance(given, str):
                hint = f" The strategy goes elsewhere: backward(losses, model, {given!r}) or Surgery({given!r}, model)."
            raise InputError(
                f"{where}: expected a Module, tensors, or a dict of group name -> either; got {type(given).__name__}.{hint}"
            )
        if isinstance(given, Mapping):
            raise InputError(
                f"{where}: expected a Module or tensors; got a {type(given).__name__}. Give its values, as a list."
            )
        tensors = list(given)
        for i, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise InputError(
                    f"{where}[{i}]: expected a tensor; got {type(tensor).__name__}. (named_parameters() and optimizer groups are not tensors.)"
                )
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
                modules = (
                    None
                    if own is None or modules is None
                    else modules + [module for _, module in own]
                )
            else:
                named = ((str(i), t) for i, t in enumerate(part or ()))
            for name, tensor in _plainly(part, named):
                met.append(tensor)
                if not tensor.requires_grad:
                    continue
                if not tensor.is_leaf:
                    where = f" of group {group!r}" if group else ""
                    hint = ": give the tensors that are trained."
                    if tensor.numel() == 1:
                        hint += " Losses? backward(losses, model) takes them first."
                    raise InputError(f"parameter {name!r}{where} is not a leaf{hint}")
                before = found.setdefault(id(tensor), (joined(group, name), tensor, group))
                if before[2] != group:
                    raise InputError(
                        f"parameter {name!r} is in two groups, {before[2]!r} and {group!r}; put it in one."
                    )
        names = {name for name, _, _ in found.values()}
        if len(names) < len(found):
            for name, _, _ in found.values():
                if name not in names:
                    raise InputError(
                        f"two parameters are named {name!r} by named_parameters(): give them names of their own."
                    )
                names.remove(name)
        return Named(found, modules, met)

    def everything(self) -> dict[str, Tensor]:
        """All given tensors by name, also those that are not trainable now."""
        found: dict[str, Tensor] = {}
        seen: set[int] = set()
        for group, part in self._parts.items():
            named = (
                part.named_parameters()
                if isinstance(part, nn.Module)
                else ((str(i), t) for i, t in enumerate(part or ()))
            )
            for name, tensor in _plainly(part, named):
                if id(tensor) not in seen:
                    found[joined(group, name)] = tensor
                seen.add(id(tensor))
        return found

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of explicit groups."""
        return tuple(self._parts) if self.explicit else ()


def _plainly(part: Any, named: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    """Parameters under their names without those of wrappers."""
    if not isinstance(part, nn.Module):
        return named
    pairs = list(named)
    return zip(
        plain_names(part, [name for name, _ in pairs]), [tensor for _, tensor in pairs], strict=True
    )


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
        own = owner.__dict__
        if asks_itself(type(owner)) or not own.keys().isdisjoint(NAMED_ON_INSTANCE):
            return None
        if (
            type(own.get("_parameters")) not in PLAIN_DICTS
            or type(own.get("_modules")) not in PLAIN_DICTS
        ):
            return None  # a scripted module keeps them elsewhere
        found.append((prefix, owner))
        if owner._modules:
            stack.extend(
                (f"{prefix}{name}.", child)
                for name, child in reversed(owner._modules.items())
                if child is not None
            )
    return found


def asks_itself(kind: type[nn.Module]) -> bool:
    """Whether a class of modules names its parameters in its own way."""
    return (kind.named_parameters, kind.named_modules, kind._named_members) != TORCHS_OWN


def named_parameters(modules: Iterable[tuple[str, nn.Module]]) -> Iterable[tuple[str, Tensor]]:
    """What `named_parameters()` gives of modules within each other, several times faster."""
    found: dict[int, tuple[str, Tensor]] = {}
    for prefix, owner in modules:
        for name, tensor in owner._parameters.items():
            if tensor is not None:
                found.setdefault(id(tensor), (prefix + name, tensor))
    return found.values()


def is_parameter(tensor: Tensor) -> bool:
    """Whether a leaf is a model parameter, as opposed to an input that requires grad."""
    return isinstance(tensor, nn.Parameter)
