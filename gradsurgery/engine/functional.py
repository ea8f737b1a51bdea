"""The one-shot forms: backward() writes .grad, inspect() writes nothing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from gradsurgery.contract.definition import Strategy
from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.collective import communicator_of
from gradsurgery.engine.communicator import ProcessGroup
from gradsurgery.engine.compiled import eager
from gradsurgery.engine.config import ParametersLike, config_of
from gradsurgery.engine.counts import counted
from gradsurgery.engine.history import History
from gradsurgery.engine.parsing import AnyLosses, parse
from gradsurgery.engine.settings import shows_settings
from gradsurgery.engine.step import run_step
from gradsurgery.engine.surgery import Surgery
from gradsurgery.errors import InputError, StrategyError
from gradsurgery.record import Record


@eager
@shows_settings(without=("every", "measure"))  # these two speak of several steps
def backward(
    losses: AnyLosses,
    parameters: ParametersLike = None,
    strategy: str | Strategy = "sum",
    *,
    features: Any = None,
    scaler: Any = None,
    scores: Mapping[str, float] | None = None,
    weights: Any = None,
    count: Any = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    **settings: Any,
) -> Record:
    """Combine the gradients of several losses into `.grad`, in place of `loss.backward()`.

    Like `loss.backward()` it accumulates. The order is losses, model, strategy. Without a strategy
    it is "sum", the gradient of `sum(losses).backward()`: name one, as in
    `backward(losses, model, "mgda")`.

    Every call is a first step: strategies that remember need a `Surgery`, and randomised ones draw
    the same numbers for the same seed (pass `seed=step` in a loop).

    Args:
        losses: as for `Surgery.backward`.
        parameters: as for `Surgery`.
        strategy: as for `Surgery`.
        {settings}
        features: as for `Surgery.backward`, like all that follow.
        scaler: a `torch.amp.GradScaler`.
        scores: modality -> number, the user's own measure.
        weights: the user's own weight per loss.
        count: how many examples this process's mean losses are of.
        retain_graph: keep the graph for another pass.
        create_graph: not supported.
        **options: the strategy's options.

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
    _check_order(losses, 'backward(losses, model, "mgda")')
    surgery = Surgery(strategy, parameters, **settings)
    surgery._config = replace(surgery._config, once=True)
    if "state" in surgery.strategy.inputs:
        name = surgery.strategy.name
        raise StrategyError(
            f"strategy {name!r} remembers between steps: make surgery = Surgery({name!r}, ...) "
            "once and call surgery.backward(losses)."
        )
    return surgery.backward(
        losses,
        features=features,
        scaler=scaler,
        scores=scores,
        weights=weights,
        count=count,
        retain_graph=retain_graph,
        create_graph=create_graph,
    )


@eager
def inspect(
    losses: AnyLosses,
    parameters: ParametersLike = None,
    *,
    others: Literal["sum", "ignore"] = "sum",
    weights: Any = None,
    count: Any = None,
    process_group: ProcessGroup = "auto",
) -> Record:
    """The Gram matrices, norms, cosines and conflicts of the losses' gradients, group by group.

    Writes nothing, solves nothing, and keeps the graph, so that a backward can follow. A gradient
    that is not finite shows as it is. Arguments are those of `backward`.

    Example:
        >>> import torch, gradsurgery as gs
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> gs.inspect({"up": weight.sum(), "down": -weight.sum()})["down+up"].conflicts
        (('up', 'down'),)
    """
    _check_order(losses, "inspect(losses, model)")
    config = config_of("sum", parameters, others=others, process_group=process_group)
    config = replace(config, strategy=None, nonfinite="ignore", once=True)
    communicator, cache = communicator_of(config), TraceCache()
    try:
        parsed = counted(parse(losses, weights, nothing=communicator.several), count)
        return run_step(config, parsed, History(), communicator, cache, retain_graph=True).record
    except BaseException as error:
        communicator.failed(error)
        raise


def _check_order(losses: Any, form: str) -> None:
    """Swapped arguments are said here, before the parameters are read.

    Raises:
        InputError: for a model, a strategy or an optimizer in the place of the losses.
    """
    if isinstance(losses, nn.Module | str | Strategy) or hasattr(losses, "param_groups"):
        got = type(losses).__name__
        raise InputError(f"losses: the losses come first, {form}; got {got} in their place.")
