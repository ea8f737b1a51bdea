"""Optimizers within wrappers, and those whose step the parameters alone do not tell."""

import inspect
from typing import Any

import torch

from gradsurgery.engine.preconditioners import plain_function

# Attributes in which apex, Megatron and DeepSpeed keep weights in float32, or say that they do.
MASTERS = (
    "master_weights",
    "use_master",
    "fp32_from_fp16_groups",
    "fp32_from_float16_groups",
    "shard_fp32_from_float16_groups",
    "fp32_groups_flat",
    "fp32_groups_flat_partition",
    "single_partition_of_fp32_groups",
)

CLOSURE = "calls a closure, which evaluates the losses within its step"


def unwrapped(optimizer: Any) -> Any:
    """The optimizer within the wrappers of Lightning, Fabric and accelerate, by `.optimizer`."""
    return _layers(optimizer)[-1]


def refused(optimizer: Any) -> str | None:
    """Why the parameters alone do not say where an optimizer stands; None where they do."""
    for layer in reversed(_layers(optimizer)):  # a wrapper may imitate the class of the inner one
        reason = _reason(layer)
        if reason is not None:
            return f"{type(layer).__name__} {reason}"
    return None


def needing_closure(optimizer: Any) -> str | None:
    """Why an optimizer cannot step without a closure; None where it can."""
    own = unwrapped(optimizer)
    if isinstance(own, torch.optim.LBFGS) or _needs_closure(own):
        return f"{type(own).__name__} {CLOSURE}"
    return None


def _layers(optimizer: Any) -> list[Any]:
    """An optimizer and what it wraps, the innermost last."""
    layers = [optimizer]
    while hasattr(layers[-1], "param_groups"):  # schedulers and trainers have none
        inner = getattr(layers[-1], "optimizer", None)
        if not hasattr(inner, "param_groups") or any(inner is layer for layer in layers):
            break
        layers.append(inner)
    return layers


def _reason(optimizer: Any) -> str | None:
    if isinstance(optimizer, torch.optim.LBFGS) or _needs_closure(optimizer):
        return CLOSURE
    if isinstance(optimizer, torch.optim.ASGD):
        return "keeps an average of its iterates, which a correction would not reach"
    if any(base.__name__ == "Lookahead" for base in type(optimizer).__mro__):
        return "keeps slow weights, to which it sets the parameters back"
    if _switches(optimizer):
        return "has train() and eval(), which switch the parameters between iterates that it keeps"
    stash = getattr(optimizer, "_amp_stash", None)  # what apex.amp adds to an optimizer
    if any(_given(getattr(optimizer, name, None)) for name in MASTERS) or _given(
        getattr(stash, "fp32_from_fp16_groups", None)
    ):
        return "keeps weights in float32, with which it overwrites the parameters"
    return None


def _needs_closure(optimizer: Any) -> bool:
    """Whether step() has an argument without a default."""
    try:
        given = inspect.signature(plain_function(optimizer.step)).parameters.values()
    except (TypeError, ValueError):  # a step that is not Python's
        return False
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.default is p.empty and p.kind in named for p in list(given)[1:])


def _switches(optimizer: Any) -> bool:
    """Schedule-free optimizers: the parameters are one of three sequences, as the mode is.

    accelerate's wrapper has both methods too, and hands the call on to what it wraps.
    """
    kind = type(optimizer)
    own = [base for base in kind.__mro__ if {"train", "eval"} <= vars(base).keys()]
    return any(base.__module__.partition(".")[0] != "accelerate" for base in own)


def _given(value: Any) -> bool:
    return len(value) > 0 if isinstance(value, list | tuple) else value is True
