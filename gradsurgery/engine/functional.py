"""The one-shot forms: backward() writes .grad, inspect() only looks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from gradsurgery.contract.definition import Strategy
from gradsurgery.engine.communicator import ProcessGroup, check_setting
from gradsurgery.engine.compiled import eager
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import LossesLike, parse_losses
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.scene import Plan
from gradsurgery.engine.solve import Call
from gradsurgery.engine.step import decide
from gradsurgery.engine.surgery import ParametersLike, Surgery
from gradsurgery.errors import InputError, StrategyError
from gradsurgery.record import Record


@eager
def backward(
    losses: LossesLike,
    parameters: ParametersLike = None,
    strategy: str | Strategy = "sum",
    *,
    seed: int = 0,
    nonfinite: Literal["error", "ignore"] = "error",
    others: Literal["sum", "ignore"] = "sum",
    min_objectives: int = 2,
    method: Literal["auto", "taps", "gradients", "batched"] = "auto",
    memory: Literal["auto", "low"] = "auto",
    protect: str | None = None,
    process_group: ProcessGroup = "auto",
    zero: Literal["keep", "absent"] = "keep",
    features: Any = None,
    scaler: Any = None,
    scores: Mapping[str, float] | None = None,
    weights: Any = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    **options: Any,
) -> Record:
    """Combine the gradients of several losses and accumulate the result into `.grad`, in place of `loss.backward()`.

    The order is losses, model, strategy. Without a strategy it is "sum", the gradient of
    `sum(losses).backward()`: name one, as in `backward(losses, model, "mgda")`.

    Arguments are those of `Surgery` and of `Surgery.backward`. Every call is a first step: strategies that remember
    need a `Surgery`, and randomised ones draw the same numbers for the same seed (pass `seed=step` in a loop).

    Returns:
        The `Record` of what was decided, group by group.

    Raises:
        InputError: for losses, parameters or settings that cannot be used.
        UnknownNameError: for an unknown strategy or option.
        StrategyError: for a strategy that keeps state.
        NonFiniteError: for NaN or inf, naming the objective and the group; `.grad` stays as it was.

    Example:
        >>> import torch, gradsurgery as gs
        >>> model = torch.nn.Linear(3, 2)
        >>> first, second = model(torch.ones(3))
        >>> record = gs.backward({"first": first, "second": second}, model, "mgda")
        >>> record["first+second"].objectives
        ('first', 'second')
    """
    _in_order(losses, 'backward(losses, model, "mgda")')
    given: dict[str, Any] = {
        "seed": seed, "nonfinite": nonfinite, "others": others, "min_objectives": min_objectives, "method": method, "memory": memory, "protect": protect,
        "process_group": process_group,
        "zero": zero,
    }  # fmt: skip
    surgery = Surgery(strategy, parameters, **given, **options)
    surgery._plan = replace(surgery._plan, once=True)
    if "state" in surgery.strategy.inputs:
        name = surgery.strategy.name
        raise StrategyError(
            f"strategy {name!r} remembers between steps: make surgery = Surgery({name!r}, ...) once and call surgery.backward(losses)."
        )
    return surgery.backward(
        losses,
        features=features,
        scaler=scaler,
        scores=scores,
        weights=weights,
        retain_graph=retain_graph,
        create_graph=create_graph,
    )


@eager
def inspect(
    losses: LossesLike,
    parameters: ParametersLike = None,
    *,
    others: Literal["sum", "ignore"] = "sum",
    weights: Any = None,
    process_group: ProcessGroup = "auto",
) -> Record:
    """The Gram matrices, norms, cosines and conflicts of the losses' gradients, group by group.

    Writes nothing, solves nothing, and keeps the graph, so that a backward can follow. A gradient that is not finite
    shows as it is.

    Example:
        >>> import torch, gradsurgery as gs
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> gs.inspect({"up": weight.sum(), "down": -weight.sum()})["down+up"].conflicts
        (('up', 'down'),)
    """
    _in_order(losses, "inspect(losses, model)")
    check_setting(process_group)
    plan = Plan(
        None,
        Parameters(parameters),
        check=False,
        include_others=others == "sum",
        process_group=process_group,
        once=True,
    )
    return decide(plan, parse_losses(losses, weights), History(), Call(retain_graph=True)).record


def _in_order(losses: Any, form: str) -> None:
    """Swapped arguments are said here, before the parameters are read.

    Raises:
        InputError: for a model, a strategy or an optimizer in the place of the losses.
    """
    if isinstance(losses, nn.Module | str | Strategy) or hasattr(losses, "param_groups"):
        got = type(losses).__name__
        raise InputError(f"losses: the losses come first, {form}; got {got} in their place.")
