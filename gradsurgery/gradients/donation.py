"""Which gradients may be written to: those whose memory nothing else holds."""

from collections.abc import Callable, Iterable, Sequence
from itertools import compress, repeat
from operator import attrgetter, is_not
from sys import getrefcount
from typing import Any

import torch
from torch import Tensor

# None of these is part of torch's interface. Without them every gradient is copied.
COUNTS = (
    hasattr(torch.Tensor, "_use_count")
    and hasattr(torch._C, "_storage_Use_Count")
    and hasattr(torch._C, "_is_cached_tensor")
)
_uses: Callable[[Tensor], int] = getattr(Tensor, "_use_count", id)
_storage_uses: Callable[[int], int] = getattr(torch._C, "_storage_Use_Count", id)
_is_cached: Callable[[Tensor], bool] = getattr(torch._C, "_is_cached_tensor", bool)
_address, _base = attrgetter("_cdata"), attrgetter("_base")
STRIDED, NONE = torch.strided, torch.zeros(0)


def owned(
    gradients: Sequence[Tensor | None],
    like: Sequence[Tensor],
    places: Sequence[int] | None = None,
) -> list[Tensor | None]:
    """For each gradient a tensor that may be written to and become `.grad`, or None.

    That is the gradient itself, where only `gradients` holds it or its memory, and its dtype and
    layout are those of `like`. Ask as soon as autograd has returned, with what it returned: a
    variable or another list that holds a gradient too would count as a holder.

    torch.autograd.grad may give one tensor for two parameters, a part of a larger one, an expanded
    scalar, or what a custom function keeps. The gradient of a linear layer's weight is a view of a
    tensor that is gone: it comes back without its being one, like what torch puts into `.grad`.
    What a CUDA graph gave (torch.compile's "reduce-overhead") is the graph's, which writes there
    again.

    Args:
        gradients: a list or tuple of gradients, with None where there is none.
        like: for each a tensor of the dtype and strides that it is to have.
        places: which of them are asked for; None is all.

    Returns:
        One per place.
    """
    asked = range(len(gradients)) if places is None else places
    # Sparse tensors have no memory to ask for, and that of a subclass need not be all it has.
    # NONE is held by this module, so that it is never alone.
    some = map(gradients.__getitem__, asked)
    held = [g if type(g) is Tensor and g.layout is STRIDED else NONE for g in some]
    out: list[Tensor | None] = []
    for i, holders, storage, base in zip(asked, *_holders(held), strict=False):
        mine = None
        if holders in ALONE:
            tensor, wanted = gradients[i], like[i]
            if (
                tensor is not None
                and tensor.dtype is wanted.dtype
                and tensor.stride() == wanted.stride()
                and storage.nbytes() == tensor.nbytes
                # Memory that cannot grow belongs to NumPy, DLPack, a buffer, a file or a process.
                and storage.resizable()
                and not tensor.requires_grad
                and not _is_cached(tensor)
                and not (base is not None and _is_cached(base))
                and not (storage.is_shared() and tensor.is_cpu)
            ):
                mine = tensor if base is None else tensor.data  # no view, less work than detach()
        out.append(mine)
    return out


def as_owned(
    gradients: Sequence[Tensor | None],
    like: Sequence[Tensor],
    places: Iterable[int] | None = None,
) -> list[Tensor | None]:
    """Gradients that may become `.grad`: those that are `owned`, and copies of the others.

    Like torch's own accumulation, this takes a gradient over only where nothing else holds it and
    its layout fits.

    Args:
        gradients: a list or tuple of gradients, with None where there is none.
        like: for each a tensor of the dtype and strides that it is to have.
        places: which of them may become `.grad`; None is all. The others come back as they are.
    """
    places = range(len(gradients)) if places is None else places
    asked = [i for i in places if gradients[i] is not None]
    found = owned(gradients, like, asked)
    out = list(gradients)
    for i, mine in zip(asked, found, strict=True):
        gradient = gradients[i]
        if mine is None and gradient is not None:
            if gradient.layout != torch.strided:
                mine = gradient.clone()
            else:
                mine = torch.empty_like(like[i], dtype=gradient.dtype).copy_(gradient)
        out[i] = mine
    return out


def _holders(
    held: list[Tensor],
) -> tuple[Sequence[tuple[int, ...]], Sequence[Any], Sequence[Tensor | None]]:
    """How often each tensor, its memory and its base are held, in Python and in torch.

    Counted by C code: no variable of a frame refers to any of them, since a debugger that reads
    the variables of a frame would hold them too.

    Returns:
        The numbers of each tensor, two more for a view; the storages; the bases, or None.
    """
    if not COUNTS:
        return [()] * len(held), [None] * len(held), [None] * len(held)
    storages, bases = list(map(Tensor.untyped_storage, held)), list(map(_base, held))
    uses = map(_storage_uses, map(_address, storages))
    counts: list[tuple[int, ...]] = list(
        zip(map(getrefcount, held), map(_uses, held), map(getrefcount, storages), uses)  # noqa: B905
    )
    if any(map(is_not, bases, repeat(None))):
        views = list(map(is_not, bases, repeat(None)))
        found = list(compress(bases, views))
        of_bases = zip(map(getrefcount, found), map(_uses, found), strict=True)
        counts = [c + next(of_bases) if v else c for c, v in zip(counts, views, strict=True)]
    return counts, storages, bases


def _alone() -> set[tuple[int, ...]]:
    """The numbers where nothing else holds anything, which differ between Pythons and torches.

    Empty, so that every gradient is copied, where they would be the same with another holder.
    """
    if not COUNTS:
        return set()
    makers: tuple[Callable[[], Tensor], ...] = (
        lambda: torch.zeros(2),
        lambda: torch.zeros(1, 2).t(),
    )
    others: tuple[Callable[[Tensor], Any], ...] = (
        lambda t: t,
        lambda t: t.view(-1),
        Tensor.untyped_storage,
        lambda t: t._base,
    )
    alone = {_numbers([make()]) for make in makers}
    for make in makers:
        for other in others:
            held = [make()]
            holder = other(held[0])
            if holder is not None and _numbers(held) in alone:
                return set()
    return alone


def _numbers(gradients: list[Tensor]) -> tuple[int, ...]:
    """The numbers of one gradient as `owned` sees them, which holds it in a list of its own."""
    return _holders(list(gradients))[0][0]


ALONE = _alone()
