"""The one-shot forms: backward() writes .grad, inspect() only looks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from gradsurgery.autograd.compiled import eager
from gradsurgery.autograd.groups import Parameters
from gradsurgery.autograd.losses import LossesLike, parse_losses
from gradsurgery.autograd.memory import Memory
from gradsurgery.autograd.scene import Plan
from gradsurgery.autograd.solve import Call
from gradsurgery.autograd.step import decide
from gradsurgery.autograd.surgery import ParametersLike, Surgery
from gradsurgery.contract import Strategy
from gradsurgery.errors import StrategyError
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
    features: Any = None,
    scaler: Any = None,
    scores: Mapping[str, float] | None = None,
    weights: Any = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    **options: Any,
) -> Record:
    """Combine the gradients of several losses and accumulate the result into `.grad`, in place of `loss.backward()`.

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
    given: dict[str, Any] = {
        "seed": seed, "nonfinite": nonfinite, "others": others, "min_objectives": min_objectives, "method": method, "memory": memory, "protect": protect,
    }  # fmt: skip
    surgery = Surgery(strategy, parameters, **given, **options)
    surgery._plan = replace(surgery._plan, once=True)
    if "state" in surgery.strategy.inputs:
        name = surgery.strategy.name
        raise StrategyError(f"strategy {name!r} remembers between steps: make surgery = Surgery({name!r}, ...) once and call surgery.backward(losses).")
    return surgery.backward(losses, features=features, scaler=scaler, scores=scores, weights=weights, retain_graph=retain_graph, create_graph=create_graph)


@eager
def inspect(
    losses: LossesLike,
    parameters: ParametersLike = None,
    *,
    others: Literal["sum", "ignore"] = "sum",
    weights: Any = None,
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
    plan = Plan(None, Parameters(parameters), check=False, include_others=others == "sum", once=True)
    return decide(plan, parse_losses(losses, weights), Memory(), Call(retain_graph=True)).record
