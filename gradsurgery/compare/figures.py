"""The figures of a split: named as the task says, and finite."""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery import InputError, NonFiniteError
from gradsurgery.tasks import Problem
from gradsurgery.tasks.tensors import check_names


@torch.no_grad()
def evaluate(
    problem: Problem, model: nn.Module, split: str, names: Collection[str] = ()
) -> dict[str, float]:
    """The task's figures of a split; the model is left in training mode.

    Args:
        problem: in the protocol.
        model: the trained one.
        split: "validation" or "test".
        names: those that other figures had, where the task does not declare them.

    Raises:
        NonFiniteError: for a figure that is NaN or infinite.
        InputError: for no figures, other names than the task declares, or no numbers.
    """
    assert problem.evaluate is not None
    model.eval()
    found: Any = problem.evaluate(model, split)
    model.train()
    _check_names(found, problem.names, names, split)
    figures = {}
    for name in problem.names or found:
        value = found[name]
        try:
            figures[name] = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the figure of {name!r} on the {split} data is no number: {value!r}."
            ) from error
    for name, figure in figures.items():
        if not math.isfinite(figure):
            raise NonFiniteError(f"the figure of {name!r} on the {split} data is {figure}.")
    return figures


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
