"""The parameters that modules hold, found as `named_parameters()` finds them, but faster."""

from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor, nn

from gradsurgery.engine.naming import plain_names

TORCHS_OWN = (nn.Module.named_parameters, nn.Module.named_modules, nn.Module._named_members)
NAMED_ON_INSTANCE = frozenset({"named_parameters", "named_modules", "_named_members"})
PLAIN_DICTS = (dict, OrderedDict)


def modules_of(module: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """(prefix, module) of a module and all within; None where one names parameters in its way."""
    found: list[tuple[str, nn.Module]] = []
    visited: set[nn.Module] = set()
    stack = [("", module)]
    while stack:
        prefix, owner = stack.pop()
        if owner in visited:
            continue
        visited.add(owner)
        own = owner.__dict__
        if methods_of(type(owner)) != TORCHS_OWN or not own.keys().isdisjoint(NAMED_ON_INSTANCE):
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


def methods_of(kind: type[nn.Module]) -> tuple[object, ...]:
    """What a class of modules names its parameters with; `TORCHS_OWN` for most."""
    return kind.named_parameters, kind.named_modules, kind._named_members


def parameters_of(modules: Iterable[tuple[str, nn.Module]]) -> Iterable[tuple[str, Tensor]]:
    """What `named_parameters()` gives for modules within each other, several times faster."""
    found: dict[int, tuple[str, Tensor]] = {}
    for prefix, owner in modules:
        for name, tensor in owner._parameters.items():
            if tensor is not None:
                found.setdefault(id(tensor), (prefix + name, tensor))
    return found.values()


def without_wrappers(
    part: object, named: Iterable[tuple[str, Tensor]]
) -> Iterable[tuple[str, Tensor]]:
    """Parameters under their names without those of wrappers, such as torch.compile's."""
    if not isinstance(part, nn.Module):
        return named
    pairs = list(named)
    names = plain_names(part, [name for name, _ in pairs])
    return zip(names, [tensor for _, tensor in pairs], strict=True)
