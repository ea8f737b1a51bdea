"""Activations under `retain_grad()`: a batched pass leaves tensors in their `.grad` that no operation takes any more."""

import gc
from typing import Any

import torch
from torch import Tensor

YOUNG = (0, 1)  # generations of the garbage collector: what a forward pass has made is mostly there


def drop_batched(everywhere: bool) -> bool:
    """Take away the gradients that a batched pass has left in activations; whether there were any.

    torch keeps no list of such activations. Those that were made lately are found in any case, older ones where the search is
    `everywhere`, which takes some tens of milliseconds in a large program.
    """
    is_batched = (
        getattr(torch._C._functorch, "is_legacy_batchedtensor", None)
        if hasattr(torch._C, "_functorch")
        else None
    )
    if is_batched is None:
        return False
    found = False
    objects: list[Any] = (
        gc.get_objects()
        if everywhere
        else [o for generation in YOUNG for o in gc.get_objects(generation)]
    )
    for thing in objects:
        if type(thing) is Tensor and not thing.is_leaf and thing.retains_grad:
            gradient = thing.grad
            if gradient is not None and is_batched(gradient):
                thing.grad, found = None, True
    return found
