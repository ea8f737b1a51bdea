"""The `parameters` argument brought into one form: its parts, by group."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from gradsurgery.errors import InputError


def parts_of(given: Any) -> dict[str, Any]:
    """Group -> Module, tensors or None; without explicit groups one without a name."""
    if isinstance(given, nn.Module) or given is None:
        return {"": given}
    if not isinstance(given, Mapping):
        return {"": _tensors_of(given, "parameters")}
    if not given:
        raise InputError(
            "parameters: an empty dict names no groups; give None for groups by reach."
        )
    parts: dict[str, Any] = {}
    for name, part in given.items():
        text = _group_name(name, part)
        if text in parts:
            raise InputError(
                f"parameters: two groups are named {text!r} (one is given as {name!r}); "
                "give them names that differ as strings."
            )
        parts[text] = part if isinstance(part, nn.Module) else _tensors_of(part, str(name))
    return parts


def _group_name(name: Any, part: Any) -> str:
    """The name of an explicit group as a string.

    Raises:
        InputError: for a name that is empty, or a single tensor in place of a group.
    """
    if isinstance(part, Tensor) and not part.is_leaf:
        raise InputError(
            f"parameters: {name!r} is not a leaf: give the tensors that are trained. "
            "Losses? backward(losses, model) takes them first."
        )
    if isinstance(part, Tensor):
        raise InputError(
            f"parameters: {name!r} is a single tensor, where a dict has a Module or a list of "
            "tensors per group. Give the model, or list(model.parameters()), for groups by reach. "
            f"A group for one tensor is a list of one: {{{name!r}: [tensor]}}."
        )
    if not str(name):
        raise InputError("parameters: the name of a group is a string that is not empty.")
    return str(name)


def _tensors_of(given: Any, where: str) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        hint = " Give the model, not its optimizer." if hasattr(given, "param_groups") else ""
        if isinstance(given, str):
            hint = (
                f" The strategy goes elsewhere: backward(losses, model, {given!r}) "
                f"or Surgery({given!r}, model)."
            )
        raise InputError(
            f"{where}: expected a Module, tensors, or a dict of group name -> either; "
            f"got {type(given).__name__}.{hint}"
        )
    if isinstance(given, Mapping):
        kind = type(given).__name__
        raise InputError(
            f"{where}: expected a Module or tensors; got a {kind}. Give its values, as a list."
        )
    tensors = list(given)
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise InputError(
                f"{where}[{i}]: expected a tensor; got {type(tensor).__name__}. "
                "(named_parameters() and optimizer groups are not tensors.)"
            )
    return tensors
