"""Which strategies and settings go together."""

from typing import Any

from gradsurgery.contract.definition import Strategy
from gradsurgery.errors import InputError

# Inputs of strategies that do not give one weight per objective.
WITHOUT_WEIGHTS = {"rows", "block_grams", "cross"}


def check_fit(chosen: Strategy, every: int, protect: Any, method: str, memory: str) -> None:
    """The strategy and the settings against each other.

    Raises:
        InputError: naming what cannot be together.
    """
    who, odd = f"strategy {chosen.name!r}", sorted(WITHOUT_WEIGHTS & chosen.inputs)
    if protect is not None and "cross" in chosen.inputs:
        raise InputError(f"protect: not for {who}, which takes losses of several batches.")
    if every > 1 and odd:
        raise InputError(
            f"every: {who} takes `{odd[0]}`, so it has no weights per objective to use again; "
            "leave every=1."
        )
    if every > 1 and "observed" in chosen.inputs:
        raise InputError(
            f"every: {who} learns from the losses of each step, which cost it one pass; "
            "leave every=1."
        )
    if memory == "low" and method == "batched":
        raise InputError(
            "method='batched' keeps the gradients of all losses: leave memory='auto', or take "
            "another method."
        )
    if memory == "low" and odd:
        raise InputError(
            f"memory='low': {who} takes `{odd[0]}`, for which all gradients are kept; "
            "leave memory='auto'."
        )
