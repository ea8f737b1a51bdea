"""The losses of one step, parsed: names, scalars, and the user's own weights for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.per_objective import ObjectiveNames, by_objective
from gradsurgery.engine.not_losses import what_is_wrong
from gradsurgery.errors import InputError, NonFiniteError, one_of

LossesLike = Mapping[str, Tensor] | Sequence[Tensor] | Tensor | Sequence[Mapping[str, Tensor]]
T = TypeVar("T")
# The usual types first: asking an abstract one takes longer.
MAPPINGS, SEQUENCES = (dict, Mapping), (list, tuple, Sequence)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
LARGEST = {dtype: torch.finfo(dtype).max for dtype in DTYPES}


@dataclass(frozen=True)
class Losses:
    """n named scalars that require grad, and the user's weight of each [n].

    With m independent batches there are m·n tensors, one batch after the other, and m·n weights.
    `counts` are the numbers of examples behind the n losses, where they were given. `examples` are
    the `Examples` of which the losses are mixtures, where one pass is to do for all. `origin` is
    what mixtures were made of, and `method` how their gradients are had where no pass does so.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    weights: NDArray[np.float64]
    batches: int = 1
    counts: tuple[float, ...] | None = None
    examples: Any = None
    origin: Any = None
    method: str | None = None

    def detached(self) -> "Losses":
        """The same without graph."""
        plain = tuple(loss.detach() for loss in self.tensors)
        return replace(self, tensors=plain, examples=None)

    def copied(self) -> tuple[tuple[str, ...], int, Tensor]:
        """Names, batches, and a copy of the values on their device [m·n].

        A copy, since losses may be changed in place, and without their graph.
        """
        plain = [loss.detach() for loss in self.tensors]
        if not all(loss.dtype == plain[0].dtype and loss.ndim == 0 for loss in plain):
            plain = [loss.reshape(()).double() for loss in plain]
        return self.names, self.batches, torch.stack(plain)

    def values(self, numbers: Sequence[float]) -> dict[str, float]:
        """name -> value of each loss; with several batches the mean over them."""
        if self.batches == 1:
            return dict(zip(self.names, numbers, strict=True))
        means = np.reshape(numbers, (self.batches, len(self.names))).mean(0).tolist()
        return dict(zip(self.names, means, strict=True))


def parse_losses(
    losses: LossesLike,
    weights: Any = None,
    earlier: Callable[[], Iterable[str]] = tuple,
    nothing: bool = False,
) -> Losses:
    """Check the losses and bring them into one form.

    Args:
        losses: a dict by name, a sequence, a tensor, or a list of dicts.
        weights: the user's own weight of each loss.
        earlier: gives the names of the losses of earlier steps, which weights may be for too.
        nothing: whether there may be none, as on one of several processes.

    Raises:
        InputError: for no losses, something that is not a real scalar tensor, one that does not
            require grad, losses on different devices, or weights that do not fit; the message
            names the loss.
    """
    if type(losses) is not dict and _are_batches(losses):
        return _independent([parse_losses(part, weights, earlier) for part in losses])
    if isinstance(losses, Tensor) and losses.ndim > 1:
        weights = _by_index(losses.shape, weights)
    named: Mapping[str, Any] = losses if isinstance(losses, MAPPINGS) else by_name(losses)
    names, tensors = tuple(named), tuple(named.values())
    if not names and nothing:
        return Losses((), (), np.ones(0))
    if not names:
        raise InputError("losses: at least one is needed; got none.")
    for name, loss in named.items():
        if not (
            isinstance(name, str)
            and isinstance(loss, Tensor)
            and loss.numel() == 1
            and loss.dtype in LARGEST
            and loss.requires_grad
            and loss.device == tensors[0].device
        ):
            raise InputError(what_is_wrong(named, LARGEST))
    if weights is None:
        return Losses(names, tensors, np.ones(len(names)))
    if isinstance(weights, Mapping) and any(name not in named for name in weights):
        known = {*names, *earlier()}
        if unknown := [name for name in weights if name not in known]:
            raise InputError(
                f"weights: {one_of('loss', str(unknown[0]), names)} Give the weights of this "
                "step's losses."
            )
    return Losses(names, tensors, by_objective("weights", weights, ObjectiveNames(names, names)))


def by_name(losses: Any) -> Mapping[str, Any]:
    """Losses without names by name: those of a sequence by position, of a tensor by index ("0,1").

    Raises:
        InputError: for what is neither.
    """
    if isinstance(losses, Tensor):
        if losses.ndim == 0:
            raise InputError(
                "losses: a tensor of losses has at least one dimension; got shape []. A single "
                "loss goes in a list or dict. Surgery needs the losses apart, not their sum."
            )
        return dict(_elements(losses))
    if isinstance(losses, SEQUENCES) and not isinstance(losses, str | bytes):
        return {str(i): loss for i, loss in enumerate(losses)}
    raise InputError(
        "losses: expected a dict of name -> scalar (or a list of such, one per independent batch), "
        f"a sequence of scalars, or a tensor of losses; got {type(losses).__name__}."
    )


def _are_batches(losses: Any) -> TypeGuard[Sequence[Mapping[str, Tensor]]]:
    """Whether these are the losses of independent batches: a sequence of dicts."""
    if not isinstance(losses, SEQUENCES) or not len(losses) or isinstance(losses[0], Tensor):
        return False
    return all(isinstance(part, MAPPINGS) for part in losses)


def _elements(losses: Tensor, index: str = "") -> Iterable[tuple[str, Tensor]]:
    """The elements of a tensor: `unbind` keeps the way back to stacked losses."""
    for i, part in enumerate(losses.unbind()):
        if part.ndim:
            yield from _elements(part, f"{index}{i},")
        else:
            yield f"{index}{i}", part


def _by_index(shape: tuple[int, ...], weights: Any) -> Any:
    """Weights of the losses' shape, by name; anything else as it is.

    Raises:
        InputError: for numbers of another shape.
    """
    one_for_all = isinstance(weights, int | float) or getattr(weights, "ndim", None) == 0
    if weights is None or isinstance(weights, Mapping) or one_for_all:
        return weights
    plain = weights.detach().cpu() if isinstance(weights, Tensor) else weights
    wanted = f"weights: expected numbers of the losses' shape {list(shape)}"
    try:
        given = np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{wanted}; got {weights!r}.") from error
    if given.shape != tuple(shape):
        raise InputError(f"{wanted}; got {list(given.shape)}.")
    return {",".join(map(str, index)): given[index] for index in np.ndindex(*given.shape)}


def _independent(parts: list[Losses]) -> Losses:
    """The losses of several independent batches."""
    names = parts[0].names
    for i, part in enumerate(parts):
        if set(part.names) != set(names):
            raise InputError(
                f"losses: every batch has the same objectives; batch 0 has {', '.join(names)}, "
                f"batch {i} {', '.join(part.names)}."
            )
    orders = [[part.names.index(name) for name in names] for part in parts]
    ordered = list(zip(parts, orders, strict=True))
    tensors = tuple(part.tensors[i] for part, order in ordered for i in order)
    weights = np.concatenate([part.weights[order] for part, order in ordered])
    return Losses(names, tensors, weights, len(parts))


def root_gradients(
    losses: Losses,
    weights: Sequence[float] | None = None,
    scale: Tensor | None = None,
    together: bool = False,
) -> list[Tensor]:
    """What each loss's backward pass starts with: the user's weight, times the other factors.

    Args:
        losses: the losses, with the user's own weights.
        weights: one per loss, or None.
        scale: a GradScaler's factor, or None.
        together: whether one pass starts from all of them: equal ones may then be one tensor, as
            in the pass of a sum.

    Raises:
        NonFiniteError: for a weight that does not fit into the loss's dtype.
    """
    own = losses.weights.tolist()
    weights = own if weights is None else [w * o for w, o in zip(weights, own, strict=True)]
    for name, t, w in zip(losses.names * losses.batches, losses.tensors, weights, strict=True):
        if abs(w) > LARGEST[t.dtype]:
            raise NonFiniteError(
                f"the weight of loss {name!r}, {w:.3g}, is beyond the range of its dtype "
                f"{t.dtype}, in which a backward pass starts from it."
            )
    first = losses.tensors[0]
    if together and all(
        w == weights[0] and t.ndim == first.ndim and t.dtype == first.dtype
        for t, w in zip(losses.tensors, weights, strict=True)
    ):
        roots = [torch.full_like(first, weights[0])] * len(weights)
    else:
        roots = [torch.full_like(t, w) for t, w in zip(losses.tensors, weights, strict=True)]
    return roots if scale is None else [(root * scale).to(root.dtype) for root in roots]
