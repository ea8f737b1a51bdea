"""The inputs of strategies: one table, and the context of a step that they are made from.

A strategy names its inputs as positional parameters. Each row of `TABLE` says what an input is and
how it follows from a `Context`: what is known of one group when its strategy is asked. To ask it:

    context = Context(("a", "b"), group="a+b", matrix=..., parameters=..., losses=..., state=...)
    outcome = strategy.decide(context)  # only the inputs that it takes are made

`strategy.decide` makes the inputs, calls the function, checks what it returns, and then changes
`context.state` to what the strategy left in it. A new input is one row here: signatures, one-shot
calls, error texts, the conformance checks and the table in the docs follow from it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract.per_objective import ObjectiveNames
from gradsurgery.contract.state import State
from gradsurgery.errors import InputError, one_of
from gradsurgery.types import Array

Source = Literal["gradients", "losses", "call", "surgery"]


class Gradients(Protocol):
    """The gradients of one group, as far as inputs need them; each is made when it is asked for."""

    @property
    def like(self) -> Sequence[Tensor]: ...
    @property
    def gram(self) -> Array: ...
    @property
    def block_grams(self) -> Array: ...
    @property
    def rows(self) -> Tensor: ...
    @property
    def cross(self) -> Array: ...
    @property
    def splits(self) -> Sequence[int]: ...
    @property
    def eps(self) -> float: ...


@dataclass(slots=True)
class Context:
    """What is known of one group when its strategy is asked.

    Attributes:
        objectives: the names of the group's objectives, in the order of the losses.
        group: the group's name.
        every: the names of all losses of the step; None where only this group is known.
        matrix: the group's gradients; None for strategies that need none.
        parameters: the group's tensors by name.
        losses: name -> value, with the user's own weight in it; None or empty where not known.
        observed: name -> value after the previous step; None or empty where there is none.
        scores: modality -> the user's measure of it.
        seed: of the Surgery; with `step` and `group` it makes the random numbers.
        step: how many steps came before.
        state: what the strategy remembers of this group; None where it keeps nothing.
    """

    objectives: tuple[str, ...]
    group: str = "all"
    every: tuple[str, ...] | None = None
    matrix: Gradients | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    losses: Mapping[str, float] | None = None
    observed: Mapping[str, float] | None = None
    scores: Mapping[str, float] | None = None
    seed: int = 0
    step: int = 0
    state: State | None = None

    @property
    def device(self) -> torch.device:
        """Where the group's parameters are."""
        return next((t.device for t in self.parameters.values()), torch.device("cpu"))


@dataclass(frozen=True)
class Input:
    """One row of the table.

    Attributes:
        name: of the parameter in the signature of a strategy.
        shape: what it is made of, in a few words.
        meaning: what it is, in one plain sentence.
        source: what it comes from: the gradients, the losses, the user's call, or the surgery.
        provide: makes it from a context; None where there is nothing to give.
        read: makes it from what a one-shot call was given: (name, given, objectives) -> value.
        used_up: whether a strategy may change it (its state, random generators).
    """

    name: str
    shape: str
    meaning: str
    source: Source
    provide: Callable[[Context], Any]
    read: Callable[[str, Any, Sequence[str]], Any] | None = None
    used_up: bool = False


def unknown(name: str) -> str:
    """The sentence for an input that does not exist."""
    return one_of("input", name, INPUTS)


def numbers_of(name: str, given: Any, objectives: Sequence[str]) -> Array:
    """Numbers [n] from a dict by name, or from a sequence in the order of the objectives."""
    values = [given[o] for o in objectives] if isinstance(given, Mapping) else given
    numbers = np.array([float(value) for value in values])
    if numbers.shape != (len(objectives),):
        raise InputError(f"{name}: expected {len(objectives)} numbers; got {len(numbers)}.")
    return numbers


def rng_for(seed: int, step: int, group: str) -> np.random.Generator:
    """A generator derived from (seed, step, group), so that nothing is carried between steps."""
    return np.random.default_rng([seed & (2**64 - 1), step, _digest(group)])


@lru_cache(maxsize=4096)
def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator_for(seed: int, step: int, group: str, device: torch.device) -> torch.Generator:
    """The same for random numbers that torch draws, on the gradients' device."""
    digest = hashlib.blake2b(f"{seed}/{step}/{group}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def _losses(context: Context) -> Array | None:
    known = context.losses
    return np.array([known[o] for o in context.objectives]) if known else None


def _observed(context: Context) -> Array | None:
    known = context.observed
    return np.array([known.get(o, np.nan) for o in context.objectives]) if known else None


def _objectives(context: Context) -> tuple[str, ...]:
    every = context.every
    return context.objectives if every is None else ObjectiveNames(context.objectives, every)


def _state(context: Context) -> State | None:
    """A working copy for this step, in this order of objectives."""
    if context.state is None:
        return None
    matrix, tensors = context.matrix, context.parameters
    like = list(tensors.values()) if matrix is None else matrix.like
    return context.state.bind(context.objectives, tuple(tensors), like)


TABLE = (
    Input(
        "gram",
        "float64 numpy [n, n]",
        "G = JJᵀ, the inner products of the gradients.",
        "gradients",
        attrgetter("matrix.gram"),
    ),
    Input(
        "block_grams",
        "float64 numpy [k, n, n]",
        "One Gram matrix per parameter tensor; they sum to `gram`.",
        "gradients",
        attrgetter("matrix.block_grams"),
    ),
    Input(
        "rows",
        "torch [n, d], on the gradients' device",
        "J, the gradients themselves, for coordinate-wise methods: the strategy returns d [d].",
        "gradients",
        attrgetter("matrix.rows"),
    ),
    Input(
        "losses",
        "float64 numpy [n]",
        "The values of the losses.",
        "losses",
        _losses,
        numbers_of,
    ),
    Input(
        "observed",
        "float64 numpy [n], or None",
        "The losses on the same data after the previous step; NaN where one was not observed.",
        "call",
        _observed,
        numbers_of,
    ),
    Input(
        "scores",
        "dict of modality -> float, or None",
        "The user's measure of each modality, given with the losses of the step.",
        "call",
        attrgetter("scores"),
    ),
    Input(
        "cross",
        "float64 numpy [m, m, n, n]",
        "Gram matrices between m independent batches; the strategy returns weights [m, n].",
        "gradients",
        attrgetter("matrix.cross"),
    ),
    Input(
        "splits",
        "tuple of k integers",
        "How many of the d coordinates belong to each parameter tensor.",
        "gradients",
        lambda context: None if context.matrix is None else tuple(context.matrix.splits),
    ),
    Input(
        "generator",
        "torch.Generator, on the gradients' device",
        "Random numbers for torch, made from the seed, the step and the group.",
        "surgery",
        lambda context: generator_for(context.seed, context.step, context.group, context.device),
        used_up=True,
    ),
    Input(
        "objectives",
        "tuple of n names",
        "The names of the objectives, in the order of the losses.",
        "losses",
        _objectives,
    ),
    Input("group", "str", "The name of the group.", "surgery", attrgetter("group")),
    Input(
        "state",
        "State",
        "What the strategy remembers between steps, kept by the names of objectives.",
        "surgery",
        _state,
        used_up=True,
    ),
    Input(
        "rng",
        "numpy.random.Generator",
        "Random numbers for numpy, made from the seed, the step and the group.",
        "surgery",
        lambda context: rng_for(context.seed, context.step, context.group),
        used_up=True,
    ),
    Input(
        "eps",
        "float",
        "The accuracy of the entries of `gram`, relative to the product of the two norms.",
        "gradients",
        attrgetter("matrix.eps"),
    ),
)
INPUTS = {row.name: row for row in TABLE}
FROM_GRADIENTS = frozenset(row.name for row in TABLE if row.source == "gradients")
