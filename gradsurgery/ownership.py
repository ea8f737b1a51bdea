"""Whose memory a tensor is: what nobody else holds may be written to."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

# none of them part of torch's interface
COUNTS = hasattr(torch.Tensor, "_use_count") and hasattr(torch._C, "_storage_Use_Count") and hasattr(torch._C, "_is_cached_tensor")


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
    fits = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.dtype == like.dtype and tensor.stride() == like.stride()
    if not fits or tensor.requires_grad or type(tensor) is not Tensor or _is_cached(tensor):
        return None
    return tensor if tensor._base is None else tensor.detach()


def _is_cached(tensor: Tensor) -> bool:
    cached = torch._C._is_cached_tensor  # type: ignore[attr-defined]  # the stubs lack it
    return bool(cached(tensor) or (tensor._base is not None and cached(tensor._base)))


def _holders(held: Sequence[Tensor | None], place: int) -> tuple[int, ...]:
    """How often the tensor, its memory, and the tensor that it is a view of are held, in Python and in torch."""
    if not COUNTS:
        return ()
    count = sys.getrefcount(held[place])
    tensor = held[place]
    assert tensor is not None
    counts = count, tensor._use_count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)  # type: ignore[attr-defined]  # the stubs lack it
    base = tensor._base
    return counts if base is None else (*counts, sys.getrefcount(base), base._use_count())  # type: ignore[attr-defined]  # likewise


# what these numbers are where nobody else holds anything, which differs between versions of Python and torch
ALONE = {_holders([torch.zeros(2)], 0), _holders([torch.zeros(1, 2).t()], 0)} if COUNTS else set()
