"""The figures of a split: named as the task says, and finite."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery import InputError, NonFiniteError
from gradsurgery.tasks import Problem
from gradsurgery.tasks.tensors import check_names

Kept = Callable[[Iterable[str]], Collection[str]]


@torch.no_grad()
def evaluate(
    problem: Problem,
    model: nn.Module,
    split: str,
    names: Collection[str] = (),
    kept: Kept = tuple,
) -> dict[str, float | None]:
    """The task's figures of a split; the model is left in training mode.

    Args:
        problem: in the protocol.
        model: the trained one.
        split: "validation" or "test".
        names: those that other figures had, where the task does not declare them.
        kept: from all names to those whose figures say something; the others are None.

    Raises:
        NonFiniteError: for a figure that is NaN or infinite.
        InputError: for no figures, other names than the task declares, or no numbers.
    """
    assert problem.evaluate is not None
    model.eval()
    found: Any = problem.evaluate(model, split)
    model.train()
    _check_names(found, problem.names, names, split)
    figures: dict[str, float | None] = dict.fromkeys(problem.names or found)
    for name in kept(tuple(figures)):
        value = found[name]
        try:
            figures[name] = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the figure of {name!r} on the {split} data is no number: {value!r}."
            ) from error
    for name, figure in figures.items():
        if figure is not None and not math.isfinite(figure):
            raise NonFiniteError(f"the figure of {name!r} on the {split} data is {figure}.")
    return figures


def trained(only: Collection[str], others: Collection[str]) -> Kept:
    """Which figures a run on some of the losses has: an untrained head's is no figure of it.

    They are those that bear the name of a loss it is trained on. Where none does, they are those
    that bear no name of another loss: figures of the whole model.

    Args:
        only: the losses that are trained, and the name that the task gives them together.
        others: the names of all losses, and of all such subsets.
    """

    def kept(names: Iterable[str]) -> Collection[str]:
        names = tuple(names)
        own = [name for name in names if name in only]
        return own or [name for name in names if name not in others]

    return kept


def _check_names(
    found: Any, declared: Collection[str], before: Collection[str], split: str
) -> None:
    if not declared:
        check_names(found, before, split)
        return
    if not isinstance(found, Mapping):
        raise InputError(f"evaluate gave {found!r} on the {split} data: return a figure by name.")
    said = [f"no figure of {name!r}" for name in declared if name not in found]
    unknown = [name for name in found if name not in declared]
    said += [f"a figure of {name!r}, which metrics= does not name" for name in unknown]
    if said:
        raise InputError(
            f"evaluate gave {', '.join(said)} on the {split} data; "
            f"metrics= has {', '.join(map(repr, declared))}."
        )
