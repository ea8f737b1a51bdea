"""Activations under `retain_grad()`: a batched pass leaves `.grad` that nothing can use."""

import gc
from typing import Any

import torch
from torch import Tensor

YOUNG = (0, 1)  # generations of the garbage collector: what a forward pass has made is mostly there


def drop_batched(everywhere: bool) -> bool:
    """Take away the gradients that a batched pass has left in activations.

    torch keeps no list of such activations. Those that were made lately are found in any case,
    older ones where the search is `everywhere`, which takes some tens of milliseconds in a large
    program.

    Returns:
        Whether there were any.
    """
    functorch = getattr(torch._C, "_functorch", None)
    is_batched = getattr(functorch, "is_legacy_batchedtensor", None)
    if is_batched is None:
        return False
    objects: list[Any] = []
    for generation in (None,) if everywhere else YOUNG:
        objects += gc.get_objects(generation)
    found = False
    for thing in objects:
        if type(thing) is Tensor and not thing.is_leaf and thing.retains_grad:
            gradient = thing.grad
            if gradient is not None and is_batched(gradient):
                thing.grad, found = None, True
    return found
