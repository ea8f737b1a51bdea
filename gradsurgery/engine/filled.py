"""Functions that fill `.grad` in their own backward pass: noticed, undone if possible, raised."""

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gradsurgery.errors import InputError

MOST = 1000  # objects that are searched for modules per node


@contextlib.contextmanager
def nothing_filled(parameters: Mapping[str, Tensor], nodes: Sequence[Any]) -> Iterator[None]:
    """Within, `.grad` stays as it is: of these parameters, and of what functions keep for backward.

    A reversible block or a home-made checkpoint runs a backward pass inside its own, which adds to
    `.grad`. Gradients of single losses do not go through it, so no strategy can decide over its
    parameters.

    Where no node belongs to a function written in Python nothing is watched: another thread, or a
    hook with a step of its own, may then write to `.grad` of parameters that no loss reaches.

    Args:
        parameters: those that were given or are reached, by name.
        nodes: the nodes of functions that are written in Python.

    Raises:
        InputError: when a `.grad` was filled; a new one is taken away again, one that was added to
            stays.
    """
    if not nodes:
        yield
        return
    watched = {id(t): (name, t, t.grad, _version(t.grad)) for name, t in parameters.items()}
    for node in nodes:
        for name, t in _kept_by(node):
            watched.setdefault(id(t), (name, t, t.grad, _version(t.grad)))
    try:
        yield
    except BaseException as error:
        _check(watched.values(), error)
        raise
    else:
        _check(watched.values(), None)


def _version(grad: Tensor | None) -> int:
    return -1 if grad is None or grad.is_inference() else grad._version


def _check(
    watched: Iterable[tuple[str, Tensor, Tensor | None, int]], error: BaseException | None
) -> None:
    filled, added = [], []
    for name, tensor, before, version in watched:
        if tensor.grad is not before:
            tensor.grad = before
            filled.append(name)
        if before is not None and _version(before) != version:
            added.append(name)
    if not filled and not added:
        return
    names = ", ".join(dict.fromkeys([*filled, *added]))
    lost = ""
    if added:
        lost = (
            f" What it added to the .grad of {', '.join(added)} cannot be undone: zero the "
            "gradients."
        )
    raise InputError(
        "a function in the losses' graph fills .grad within its own backward pass (a reversible "
        f"block, a home-made checkpoint): {names}. Gradients of single losses do not reach these "
        "parameters. Use torch.utils.checkpoint(..., use_reentrant=False), or have the function "
        f"return its parameters' gradients.{lost} Nothing was decided."
    ) from error


def _kept_by(node: Any) -> Iterator[tuple[str, Tensor]]:
    """The trainable leaves that a function's context holds.

    Its own, those of modules, and those within containers and closures.
    """
    visited: set[int] = set()
    stack = list(getattr(node, "__dict__", {}).values())
    while stack and len(visited) < MOST:
        value = stack.pop()
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, nn.Module):
            yield from ((name, p) for name, p in value.named_parameters() if p.requires_grad)
        elif isinstance(value, Tensor):
            if value.requires_grad and value.is_leaf:
                yield f"a tensor of shape {list(value.shape)}", value
        elif isinstance(value, Mapping):
            stack.extend(value.values())
        elif isinstance(value, list | tuple):
            stack.extend(value[:MOST])
        elif isinstance(value, functools.partial):
            stack.extend((value.func, value.args, value.keywords))
        else:
            stack.append(getattr(value, "__self__", None))
            stack.extend(_inside(cell) for cell in getattr(value, "__closure__", None) or ())


def _inside(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
