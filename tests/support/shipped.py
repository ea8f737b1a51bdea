"""All strategies that ship, ready to be called: required options bound, and every input that one
may take.
"""

import torch

import gradsurgery as gs
from gradsurgery.contract.registry import registered

SHIPPED = [name for name in gs.strategy_names() if registered(name).shipped]
SMALL = {
    "krum": {"byzantine": 0},
    "trimmed-mean": {"trim": 0},
}  # so that three objectives, or one, are enough
LEAST = {"krum": 3}  # how many objectives a strategy needs then


def ready(name, objective="0"):
    """The strategy with its required options bound to an objective's name, and made for few
    objectives.
    """
    base = registered(name)
    return gs.get_strategy(name, **dict.fromkeys(base.required, objective), **SMALL.get(name, {}))


def direction(strategy, rows, **inputs):
    """d for gradients [n, d], with fixed positive losses and a fresh state; every batch alike where
    several are taken.
    """
    if isinstance(rows, torch.Tensor):
        batches = rows.expand(3, *rows.shape) if "cross" in strategy.inputs else rows
    else:
        batches = [rows] * 3 if "cross" in strategy.inputs else rows
    given = {
        "losses": [1.0 + 0.5 * i for i in range(len(rows))],
        "scores": {"all": 2.0, "other": 1.0},
        **inputs,
    }
    if "state" in strategy.inputs:
        given.setdefault("state", gs.State())
    return strategy(batches, **given)


def step(surgery, losses, again=None, **arguments):
    """One `backward` of a Surgery: as three batches where the strategy takes several, with scores
    for all groups.
    """
    if "cross" in surgery.strategy.inputs:
        fresh = again or (lambda: losses)
        return surgery.backward([losses, fresh(), fresh()], **arguments)
    return surgery.backward(
        losses,
        scores={"audio": 2.0, "visual": 1.0, "audio+fused": 2.0, "fused+visual": 1.0, "a+b": 1.5},
        **arguments,
    )


def plain(state):
    """A state_dict with its tensors as lists, to be compared."""
    if isinstance(state, torch.Tensor):
        return (str(state.dtype), state.tolist())
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return tuple(map(plain, state))
    return "nan" if state != state else state  # so that two of them are equal
