"""What is trained, and under which names."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from operator import is_
from typing import Any

from torch import Tensor, nn

from gradsurgery.engine.modules import (
    methods_of,
    modules_of,
    parameters_of,
    without_wrappers,
)
from gradsurgery.engine.naming import in_group
from gradsurgery.engine.parallel.dtensor import some_dtensor
from gradsurgery.engine.parallel.fsdp import shards_of_whole
from gradsurgery.engine.parts import parts_of
from gradsurgery.errors import InputError

requires_grad = Tensor.requires_grad.__get__  # type: ignore[attr-defined]  # the getter, in C


def is_parameter(tensor: Tensor) -> bool:
    """Whether a leaf is a model parameter, as opposed to an input that requires grad."""
    return isinstance(tensor, nn.Parameter)


def _check_distinct(names: list[str]) -> None:
    if len(set(names)) == len(names):
        return
    twice = next(name for i, name in enumerate(names) if name in names[:i])
    raise InputError(
        f"two parameters are named {twice!r} by named_parameters(): give them names of their own."
    )


class Parameters:
    """The `parameters` argument: a Module, tensors, groups of either, or None for what is reached.

    What was found is kept with what it was found in, and holds until one of these has changed.
    """

    def __init__(self, given: Any = None) -> None:
        self.explicit = isinstance(given, Mapping)
        self.discover = given is None
        self._parts: dict[str, Any] = parts_of(given)
        self._found: dict[int, tuple[str, Tensor, str]] = {}
        self._find()  # errors belong to the constructor

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that were given."""
        return [part for part in self._parts.values() if isinstance(part, nn.Module)]

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of explicit groups."""
        return tuple(self._parts) if self.explicit else ()

    def named(self) -> dict[int, tuple[str, Tensor, str]]:
        """id -> (name, tensor, group) of the trainable tensors given; empty for None.

        The same dict as long as nothing has changed.
        """
        if not self._unchanged():
            self._find()
        return self._found

    def everything(self) -> dict[str, Tensor]:
        """All given tensors by name, also those that are not trainable now."""
        found: dict[str, Tensor] = {}
        ids: set[int] = set()
        for group, part in self._parts.items():
            named = (
                part.named_parameters()
                if isinstance(part, nn.Module)
                else ((str(i), t) for i, t in enumerate(part or ()))
            )
            for name, tensor in without_wrappers(part, named):
                if id(tensor) not in ids:
                    found[in_group(group, name)] = tensor
                ids.add(id(tensor))
        return found

    def _find(self) -> None:
        """Read what was given; shards in place of what fully_shard has gathered from them."""
        found: dict[int, tuple[str, Tensor, str]] = {}
        shards = shards_of_whole()
        modules: list[nn.Module] | None = []
        tensors: list[Tensor] = []
        for group, part in self._parts.items():
            named: Iterable[tuple[str, Tensor]]
            if isinstance(part, nn.Module):
                own = modules_of(part)
                if own is None:
                    named, modules = part.named_parameters(), None
                else:
                    named = parameters_of(own)
                    modules = None if modules is None else modules + [m for _, m in own]
            else:
                named = ((str(i), t) for i, t in enumerate(part or ()))
            for name, held in without_wrappers(part, named):
                tensor = shards.get(id(held), held)
                tensors.append(tensor)
                if not tensor.requires_grad:
                    continue
                if not tensor.is_leaf:
                    where = f" of group {group!r}" if group else ""
                    hint = ": give the tensors that are trained."
                    if tensor.numel() == 1:
                        hint += " Losses? backward(losses, model) takes them first."
                    raise InputError(f"parameter {name!r}{where} is not a leaf{hint}")
                before = found.setdefault(id(tensor), (in_group(group, name), tensor, group))
                if before[2] != group:
                    raise InputError(
                        f"parameter {name!r} is in two groups, {before[2]!r} and {group!r}; "
                        "put it in one."
                    )
        _check_distinct([name for name, _, _ in found.values()])
        self._found = found
        self._keep(modules, tensors)

    def _keep(self, modules: list[nn.Module] | None, tensors: list[Tensor]) -> None:
        """Hold what was read, so that no later object can have the identity of one of it.

        Args:
            modules: None where one names its parameters in its own way, and is asked every time.
            tensors: trainable or not.
        """
        self._ask_again = modules is None
        dicts = [(m, m.__dict__["_parameters"], m.__dict__["_modules"]) for m in modules or ()]
        both = [part for _, *parts in dicts for part in parts]
        self._modules, self._dicts = [m for m, _, _ in dicts], dicts
        self._kinds = list(map(type, self._modules))
        kinds: set[Any] = set(self._kinds)
        self._methods = [(kind, methods_of(kind)) for kind in kinds]
        self._empty = [part for part in both if not part]
        self._filled = [part for part in both if part]
        self._keys = list(map(tuple, self._filled))
        self._views = [part.values() for part in self._filled]
        self.spread = some_dtensor(tensors)
        self._values = list(self._held())
        self._tensors, self._trainable = tensors, list(map(requires_grad, tensors))

    def _unchanged(self) -> bool:
        """Whether the same modules hold the same tensors by the same names, trainable as before.

        In every step: nothing here allocates per parameter but the lists that are compared.
        """
        if self._ask_again or list(map(type, self._modules)) != self._kinds:
            return False
        for kind, methods in self._methods:
            if (kind.named_parameters, kind.named_modules, kind._named_members) != methods:
                return False
        for module, parameters, children in self._dicts:
            own = module.__dict__  # fetched every time: it may have been swapped
            if (
                own.get("_parameters") is not parameters
                or own.get("_modules") is not children
                or "named_parameters" in own
                or "named_modules" in own
                or "_named_members" in own
            ):
                return False
        return (
            not any(self._empty)
            and list(map(tuple, self._filled)) == self._keys
            and all(map(is_, self._held(), self._values))
            and list(map(requires_grad, self._tensors)) == self._trainable
        )

    def _held(self) -> Iterator[Any]:
        """What the modules hold, shards in place of what fully_shard has gathered from them."""
        held = chain.from_iterable(self._views)
        if not self.spread:
            return held
        shards = shards_of_whole()
        return (shards.get(id(value), value) for value in held)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has other tensors, under other ids: it finds its own."""
        return {"explicit": self.explicit, "discover": self.discover, "_parts": self._parts}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__dict__.update(saved)
        self._found = {}
        self._keep(None, [])
