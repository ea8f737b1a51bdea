"""The losses of one step: names, scalars, and the user's own weights for them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.per_objective import ObjectiveNames, by_objective
from gradsurgery.engine.levels import by_index, elements, not_a_tensor, several_elements
from gradsurgery.errors import InputError, NonFiniteError, one_of

LossesLike = Mapping[str, Tensor] | Sequence[Tensor] | Tensor | Sequence[Mapping[str, Tensor]]
T = TypeVar("T")
DICTS, LISTS = (
    (dict, Mapping),
    (list, tuple, Sequence),
)  # the usual types first: asking an abstract one takes longer
FINFO = {
    dtype: torch.finfo(dtype).max
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
}


@dataclass(frozen=True)
class Losses:
    """n named scalars that require grad, and the user's weight of each [n].

    With m independent batches there are m·n tensors, one batch after the other, and m·n weights.
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    weights: NDArray[np.float64]
    batches: int = 1

    def by_batch(self, items: Sequence[T]) -> list[Sequence[T]]:
        """m·n items as m sequences of n."""
        n = len(self.names)
        return [items[b * n : (b + 1) * n] for b in range(self.batches)]

    def detached(self) -> "Losses":
        """The same without graph."""
        return replace(self, tensors=tuple(loss.detach() for loss in self.tensors))

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
        return named_values(self.names, self.batches, numbers)


def named_values(names: Sequence[str], batches: int, numbers: Sequence[float]) -> dict[str, float]:
    """name -> value of each loss, the mean over the batches, which lie one after the other."""
    if batches == 1:
        return dict(zip(names, numbers, strict=True))
    return dict(
        zip(names, np.reshape(numbers, (batches, len(names))).mean(0).tolist(), strict=True)
    )


def parse_losses(
    losses: LossesLike, weights: Any = None, earlier: Callable[[], Iterable[str]] = tuple
) -> Losses:
    """Check the losses and bring them into one form.

    Args:
        losses: a dict by name, a sequence, a tensor, or a list of dicts.
        weights: the user's own weight of each loss.
        earlier: gives the names of the losses of earlier steps, which weights may be for too.

    Raises:
        InputError: for no losses, something that is not a real scalar tensor, one that does not require grad, losses
            on different devices, or weights that do not fit; the message names the loss.
    """
    names: tuple[str, ...]
    if (
        isinstance(losses, LISTS)
        and len(losses) > 0
        and not isinstance(losses[0], Tensor)
        and all(isinstance(part, DICTS) for part in losses)
    ):
        return _independent([parse_losses(part, weights, earlier) for part in losses])
    if isinstance(losses, DICTS):
        wrong = [k for k in losses if not isinstance(k, str)]
        if wrong:
            raise InputError(f"losses: the names are strings; got {wrong[0]!r}.")
        names, tensors = tuple(losses), tuple(losses.values())
    elif isinstance(losses, Tensor):
        if losses.ndim == 0:
            raise InputError(
                "losses: a tensor of losses has at least one dimension; got shape []. A single loss goes in a list or dict."
            )
        if losses.ndim == 1:
            names, tensors = tuple(map(str, range(len(losses)))), tuple(losses.unbind())
        else:
            weights = by_index(losses.shape, weights)
            names, tensors = (
                tuple(",".join(map(str, index)) for index in np.ndindex(*losses.shape)),
                tuple(elements(losses)),
            )
    elif isinstance(losses, LISTS) and not isinstance(losses, str | bytes):
        names, tensors = tuple(map(str, range(len(losses)))), tuple(losses)  # type: ignore[arg-type]  # each is checked below
    else:
        accepted = "a dict of name -> scalar (or a list of such, one per independent batch), a sequence of scalars, or a tensor of losses"
        raise InputError(f"losses: expected {accepted}; got {type(losses).__name__}.")
    if not names:
        raise InputError("losses: at least one is needed; got none.")
    for name, loss in zip(names, tensors, strict=True):
        if not isinstance(loss, Tensor):
            several = (
                " For independent batches give one dict of losses per batch."
                if all(isinstance(part, list | tuple) for part in tensors)
                else ""
            )
            raise InputError(f"loss {name!r}: " + not_a_tensor(loss) + several)
        if loss.numel() != 1:
            raise InputError(f"loss {name!r}: " + several_elements(loss))
        if loss.dtype not in FINFO:
            hint = " Widen it first: loss.float()." if loss.is_floating_point() else ""
            if not loss.requires_grad:
                hint = " A number that nothing trainable reaches is no loss: leave it out."
            wanted = "expected real floating point of 16 bits or more"
            raise InputError(f"loss {name!r}: {wanted}; got {loss.dtype}.{hint}")
        if not loss.requires_grad:
            raise InputError(
                f"loss {name!r} does not require grad: nothing trainable reaches it (detached, or computed under no_grad?). Leave it out."
            )
        if loss.device != tensors[0].device:
            raise InputError(
                f"loss {name!r} is on {loss.device}, {names[0]!r} on {tensors[0].device}: move them to one device first."
            )
    if isinstance(weights, Mapping) and any(name not in names for name in weights):
        known = {*names, *earlier()}
        if unknown := [name for name in weights if name not in known]:
            raise InputError(
                "weights: "
                + one_of("loss", str(unknown[0]), names)
                + " Give the weights of this step's losses."
            )
    if weights is None:
        return Losses(names, tensors, np.ones(len(names)))
    return Losses(names, tensors, by_objective("weights", weights, ObjectiveNames(names, names)))


def _independent(parts: list[Losses]) -> Losses:
    """The losses of several independent batches."""
    names = parts[0].names
    for i, part in enumerate(parts):
        if set(part.names) != set(names):
            raise InputError(
                f"losses: every batch has the same objectives; batch 0 has {', '.join(names)}, batch {i} {', '.join(part.names)}."
            )
    order = [[part.names.index(name) for name in names] for part in parts]
    tensors = tuple(
        part.tensors[i] for part, indices in zip(parts, order, strict=True) for i in indices
    )
    weights = np.concatenate(
        [part.weights[indices] for part, indices in zip(parts, order, strict=True)]
    )
    return Losses(names, tensors, weights, len(parts))


def root_gradients(
    losses: Losses, weights: Sequence[float], scale: Tensor | None = None
) -> list[Tensor]:
    """The gradient each loss starts its backward pass with: its weight, times a GradScaler's factor, in the loss's dtype.

    Raises:
        NonFiniteError: for a weight that does not fit into it.
    """
    for name, t, w in zip(losses.names * losses.batches, losses.tensors, weights, strict=True):
        if abs(w) > FINFO[t.dtype]:
            raise NonFiniteError(
                f"the weight of loss {name!r}, {w:.3g}, is beyond the range of its dtype {t.dtype}, in which a backward pass starts from it."
            )
    roots = [torch.full_like(t, w) for t, w in zip(losses.tensors, weights, strict=True)]
    return roots if scale is None else [(root * scale).to(root.dtype) for root in roots]
