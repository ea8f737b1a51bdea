"""A model as it was: parameters, `.grad`, buffers, train mode and random numbers."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def random_state() -> tuple[Any, ...]:
    """The states of the random number generators of torch, its CUDA devices, numpy and Python."""
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch has none
    cuda = torch.cuda.get_rng_state_all() if used else None
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()


def set_random_state(state: tuple[Any, ...]) -> None:
    """Bring the generators to what `random_state` gave."""
    own, cuda, numpy, python = state
    torch.set_rng_state(own)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    np.random.set_state(numpy)
    random.setstate(python)


class Buffers:
    """The buffers of a model, as they were when this was made; `restore` brings them back."""

    def __init__(self, model: nn.Module) -> None:
        # The objects too: some layers assign a new tensor in place of writing to the old one.
        self._held = [
            (module, name, buffer, None if buffer is None else buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Every buffer is the tensor that it was, with the numbers that it had."""
        for module, name, buffer, copy in self._held:
            module._buffers[name] = buffer
            if buffer is not None and copy is not None:
                buffer.copy_(copy)


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[Buffers]:
    """A context after which the model and the random numbers are as before, also on an error.

    `.grad` is None within it, so that a function which fills it on its own changes nothing.
    """
    generators, buffers = random_state(), Buffers(model)
    modes = [(module, module.training) for module in model.modules()]
    kept: list[tuple[nn.Parameter, Tensor | None, Tensor, int]] = []
    for parameter in model.parameters():
        copy = parameter.detach().clone()
        kept.append((parameter, parameter.grad, copy, parameter._version))
    try:
        for parameter, *_ in kept:
            parameter.grad = None
        yield buffers
    finally:
        for parameter, grad, copy, version in kept:
            parameter.grad = grad
            # Writing breaks a graph that the caller may hold: only where something was written.
            if parameter._version != version:
                with torch.no_grad():
                    parameter.copy_(copy)
        buffers.restore()
        for module, mode in modes:
            module.training = mode
        set_random_state(generators)
