"""Optimizers that a comparison takes in place of a task's own."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from gradsurgery import UnknownNameError
from gradsurgery.errors import one_of

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
}


def optimizer_of(name: str | None, own: Callable[..., Any]) -> Callable[..., Any]:
    """The optimizer of this name; None is the task's own."""
    return own if name is None else OPTIMIZERS[name]


def known_optimizers(names: Iterable[str]) -> tuple[str, ...]:
    """The names, in lower case and each once.

    Raises:
        UnknownNameError: for another one.
    """
    found = tuple(dict.fromkeys(str(name).lower() for name in names))
    for name in found:
        if name not in OPTIMIZERS:
            raise UnknownNameError(one_of("optimizer", name, OPTIMIZERS))
    return found
