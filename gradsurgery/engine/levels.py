"""Losses of several elements: tensors of any shape one by one, and what to say of nested and empty values."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from gradsurgery.errors import InputError


def elements(losses: Tensor) -> Iterator[Tensor]:
    """The elements of a tensor, row by row: `unbind` keeps the way back to stacked losses."""
    if losses.ndim == 0:
        yield losses
        return
    for part in losses.unbind():
        yield from elements(part)


def by_index(shape: tuple[int, ...], weights: Any) -> Any:
    """Weights of the losses' shape, by name; anything else as it is.

    Raises:
        InputError: for numbers of another shape.
    """
    if (
        weights is None
        or isinstance(weights, Mapping | int | float)
        or getattr(weights, "ndim", None) == 0
    ):
        return weights
    try:
        given = np.asarray(
            weights.detach().cpu() if isinstance(weights, Tensor) else weights, dtype=np.float64
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"weights: expected numbers of the losses' shape {list(shape)}; got {weights!r}."
        ) from error
    if given.shape != tuple(shape):
        raise InputError(
            f"weights: expected numbers of the losses' shape {list(shape)}; got {list(given.shape)}."
        )
    return {",".join(map(str, index)): given[index] for index in np.ndindex(*given.shape)}


def in_order(what: str, losses: Iterable[Any], known: Iterable[str]) -> dict[str, Any]:
    """Losses without names by their positions, which those in `known` have for names.

    Raises:
        InputError: where names and positions may differ.
    """
    if isinstance(losses, Tensor) and losses.ndim > 1:
        given = {",".join(map(str, index)): losses[index] for index in np.ndindex(*losses.shape)}
    else:
        given = {str(i): loss for i, loss in enumerate(losses)}
    names = list(known)
    if set(given) == set(names) and list(given) != names:
        raise InputError(
            f"{what}: the losses are {', '.join(map(repr, names))}, which are no positions in order; give a dict by name."
        )
    return given


def not_a_tensor(loss: Any) -> str:
    """What to do with a value that a dict of losses holds in place of a scalar tensor."""
    kind = type(loss).__name__
    if isinstance(loss, Mapping | list | tuple | set | frozenset):
        if len(loss) == 0:
            return f"got an empty {kind}: leave it out."
        inside = "its values" if isinstance(loss, Mapping) else "the levels"
        return (
            f"expected a scalar tensor; got a {kind} of {len(loss)}. Sum {inside}, for example with "
            f"sum({'d.values()' if isinstance(loss, Mapping) else 'levels'}), or give each a name of its own."
        )
    if loss is None:
        return "expected a scalar tensor; got None: leave it out."
    if isinstance(loss, int | float | complex | np.generic | np.ndarray):
        shown = f" {loss!r}" if np.ndim(loss) == 0 else ""
        return (
            f"expected a scalar tensor; got {kind}{shown}, which has no gradient: leave it out. "
            "(A loss that has one is a tensor, without .item(), float() or .numpy().)"
        )
    return f"expected a scalar tensor; got {kind}."


def several_elements(loss: Tensor) -> str:
    """What to do with a tensor of several elements, or of none."""
    shape = list(loss.shape)
    if loss.numel() == 0:
        return f"expected a scalar; got shape {shape}, which has no elements: leave it out."
    return (
        f"expected a scalar; got shape {shape}. Reduce it first, for example with .mean(), or give each "
        "element a name of its own: {f'name.{i}': x for i, x in enumerate(loss.flatten())}."
    )
