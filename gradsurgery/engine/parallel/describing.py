"""What this rank has before a step, in the form in which ranks compare it."""

from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.communicator import Scores
from gradsurgery.engine.config import Config
from gradsurgery.engine.described import described
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parallel.agreement import Said, digest_of
from gradsurgery.engine.saved import as_saved
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import InputError

SETTINGS = (  # each under its own name
    "seed",
    "every",
    "nonfinite",
    "others",
    "min_objectives",
    "memory",
    "protect",
    "measure",
    "zero",
    "length",
)
KEPT = 4  # descriptions of single steps that are known again: those of micro-batches and steps


class Describing:
    """Describes steps; those that are as before are not described again."""

    def __init__(self) -> None:
        self._known: list[tuple[tuple[Any, ...], Said, int]] = []
        self._origin = 0

    def __deepcopy__(self, _: Any) -> "Describing":
        new = Describing()
        new._origin = self._origin
        return new

    def said(
        self,
        losses: Losses,
        trace: Trace,
        scores: Scores,
        call: str,
        config: Config,
        history: History,
        scale: Tensor | None,
    ) -> tuple[Said, int]:
        """What is compared, and a digest of all that seldom changes.

        Raises:
            InputError: for losses that reach what was not given.
        """
        given = config.parameters.named()
        weights = tuple(losses.weights.tolist())
        kinds = [(tensor.dtype, tensor.shape) for _, tensor, _ in given.values()]
        key = config, given, trace, call, losses.names, weights
        found = next((known for known in self._known if _same(known[0], (*key, kinds))), None)
        if found is None:
            made = _described(*key, losses.batches)
            found = (*key, kinds), made, digest_of(made)
            if not trace.features:  # their graph is not held on to
                self._known = [found, *self._known[: KEPT - 1]]
        _, before, digest = found
        factor = None if scale is None else float(scale.reshape(-1)[-1])
        own = before.fixed, before.parameters, before.names, weights, before.reach
        return Said(*own, losses.counts, scores, history.step, factor, self._origin), digest

    def resumed(self, history: History) -> None:
        """Steps go on from this history, which no step has left."""
        self._origin = digest_of_state(history)


def _same(known: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
    return all(a is b for a, b in zip(known[:3], key, strict=False)) and known[3:] == key[3:]


def digest_of_state(history: History) -> int:
    """The same number for the same steps, reach and states, in whatever order they are kept."""
    saved = as_saved(history, named=True)
    fields = {name: _plain(value) for name, value in saved.items()}
    return digest_of(
        sorted(
            (name, sorted(map(repr, value)) if isinstance(value, tuple) else value)
            for name, value in fields.items()
        )
    )


def _plain(saved: Any) -> Any:
    """A part of a saved state as what has the same text for the same bits."""
    if isinstance(saved, Tensor):
        raw = saved.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return str(saved.dtype), tuple(saved.shape), raw.numpy().tobytes()
    if isinstance(saved, dict):
        return tuple(sorted((name, _plain(value)) for name, value in saved.items()))
    if isinstance(saved, tuple):
        return tuple(map(_plain, saved))
    return saved


def _described(
    config: Config,
    given: dict[int, tuple[str, Tensor, str]],
    trace: Trace,
    call: str,
    names: tuple[str, ...],
    weights: tuple[float, ...],
    batches: int,
) -> Said:
    for others in (trace.others.values(), trace.trunk_others):
        for tensor in others:
            raise InputError(
                f"the losses reach a leaf tensor of shape {list(tensor.shape)} that was not given, "
                "so that ranks have no name for it: with a process group give all that is trained "
                "as parameters=, or others='ignore'."
            )
    strategy = config.strategy
    plain = [("what is called", call), *((f"{n}=", str(getattr(config, n))) for n in SETTINGS)]
    if strategy is not None:
        own = described(strategy, config.parameters)
        plain += [("the strategy", own["strategy"]), ("its options", str(dict(own["options"])))]
        plain += [("the explicit groups", str(own["explicit"]))]
    trunk = {id(tensor) for tensor in trace.trunk}
    chosen = () if config.decide_on is None else config.decide_on.named()
    plain += [
        ("decide_on=", str([n for key, (n, _, _) in given.items() if key in chosen])),
        ("the number of batches", str(batches)),
        ("the features", str(tuple(trace.features))),
        ("what the features come from", str([n for k, (n, _, _) in given.items() if k in trunk])),
    ]
    tensors = tuple((n, f"{t.dtype} {list(t.shape)}") for n, t, _ in given.values())
    return Said(tuple(plain), tensors, names, weights, tuple(trace.reach.bits()))
