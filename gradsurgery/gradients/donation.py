"""Whose memory a tensor is: what nobody else holds may be written to."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

# none of them part of torch's interface
COUNTS = (
    hasattr(torch.Tensor, "_use_count")
    and hasattr(torch._C, "_storage_Use_Count")
    and hasattr(torch._C, "_is_cached_tensor")
)


def exclusive(held: Sequence[Tensor | None], place: int, like: Tensor) -> Tensor | None:
    """The tensor at a place of a list, if nobody but that list holds it or its memory, and its dtype and layout are those of `like`; or None.

    torch.autograd.grad may give one tensor for two parameters, a part of a larger one, an expanded scalar, or what a custom function keeps. What it
    gives for the weight of a linear layer is a view of a tensor that is gone: it comes back without its being one, like what torch puts into `.grad`.
    What a CUDA graph gave (torch.compile's "reduce-overhead") is the graph's, which writes there again.
    """
    if held[place] is None or _holders(held, place) not in ALONE:
        return None
    tensor = held[place]
    assert tensor is not None
    storage = tensor.untyped_storage()
    fits = (
        storage.nbytes() == tensor.nbytes
        and tensor.dtype == like.dtype
        and tensor.stride() == like.stride()
    )
    # Storage that cannot grow has an owner that no count shows: NumPy, DLPack, a buffer, a file, a process.
    if (
        not fits
        or not storage.resizable()
        or tensor.requires_grad
        or type(tensor) is not Tensor
        or _is_cached(tensor)
    ):
        return None
    if tensor.is_cpu and storage.is_shared():
        return None
    return tensor if tensor._base is None else tensor.detach()


def _is_cached(tensor: Tensor) -> bool:
    cached = torch._C._is_cached_tensor  # type: ignore[attr-defined]  # the stubs lack it
    return bool(cached(tensor) or (tensor._base is not None and cached(tensor._base)))


def _holders(held: Sequence[Any], place: int) -> tuple[int, ...]:
    """How often the tensor, its memory, and the tensor that it is a view of are held, in Python and in torch.

    No variable here refers to any of them: a debugger that reads the variables of a frame would hold them too.
    """
    if not COUNTS:
        return ()
    counts = (
        sys.getrefcount(held[place]),
        held[place]._use_count(),
        sys.getrefcount(held[place].untyped_storage()),
        torch._C._storage_Use_Count(held[place].untyped_storage()._cdata),
    )
    return (
        counts
        if held[place]._base is None
        else (*counts, sys.getrefcount(held[place]._base), held[place]._base._use_count())
    )


def _alone() -> set[tuple[int, ...]]:
    """What these numbers are where nothing else holds anything, which differs between versions of Python and torch.

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
    alone = {_holders([make()], 0) for make in makers}
    for make in makers:
        for other in others:
            held = [make()]
            holder = other(held[0])
            if holder is not None and _holders(held, 0) in alone:
                return set()
    return alone


ALONE = _alone()
