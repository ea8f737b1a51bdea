"""Experiment trackers: one sink for W&B, MLflow and their like, and means over several Records."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from gradsurgery import Record
from gradsurgery.errors import InputError

if TYPE_CHECKING:
    from gradsurgery.diagnostics.recorder import Sink


def tracker(run: Any) -> "Sink":
    """A sink for an experiment tracker: `Recorder(sink=tracker(run))`.

    W&B's run or module is called as `run.log(values, step=step)`. MLflow's module, and what else
    has it (Comet, the loggers of Lightning), is called as `run.log_metrics(values, step=step)`.
    MLflow refuses "+" and ",", so there "audio+fused/cosine/audio, fused" is named
    "audio.fused/cosine/audio-fused".

    Args:
        run: an object with `log_metrics` or `log`.

    Raises:
        InputError: for an object with neither; and by the sink, for two names that become one.

    Example:
        >>> import gradsurgery as gs
        >>> from gradsurgery.diagnostics import Recorder, tracker
        >>> class Run:  # in place of wandb.init()
        ...     def log(self, values, step):
        ...         print(step, sorted(values)[:2])
        >>> recorder = Recorder(every=1, sink=tracker(Run()))
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> record = recorder.add(gs.backward({"a": weight[0], "b": weight.sum()}, [weight]))
        0 ['a+b/weight/a', 'a+b/weight/b']
    """
    log_metrics, log = getattr(run, "log_metrics", None), getattr(run, "log", None)
    if callable(log_metrics):
        return lambda step, values: log_metrics(_allowed(values), step=step)
    if callable(log):
        return lambda step, values: log(values, step=step)
    function = " A function is a sink by itself: Recorder(sink=function)." if callable(run) else ""
    raise InputError(
        f"tracker: expected an object with log(values, step=) or log_metrics(values, step=), as "
        f"wandb.init() and mlflow are; got {type(run).__name__}.{function}"
    )


def _allowed(values: dict[str, float]) -> dict[str, float]:
    """The values under names of letters, digits and the signs _ - . / and space."""
    found: dict[str, float] = {}
    origin: dict[str, str] = {}
    for name, value in values.items():
        allowed = re.sub(r"[^\w./ -]", "_", name.replace("+", ".").replace(", ", "-"))
        if allowed in found:
            raise InputError(
                f"{origin[allowed]!r} and {name!r} are both {allowed!r} to the tracker: "
                "rename an objective."
            )
        found[allowed], origin[allowed] = value, name
    return found


def mean_scalars(records: Iterable[Record]) -> dict[str, float]:
    """The mean of `Record.scalars` over several steps, each over the Records that have it.

    For loops that log every few steps, such as Trainer's.

    Example:
        >>> import torch, gradsurgery as gs
        >>> from gradsurgery.diagnostics import mean_scalars
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> records = [gs.inspect({"a": scale * weight.sum()}, [weight]) for scale in (1, 3)]
        >>> mean_scalars(records)["loss/a"]
        6.0
    """
    found: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.scalars().items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
