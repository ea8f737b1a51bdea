"""A sample as a step would know it: what the table of inputs makes a strategy's inputs from."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract import State, Strategy
from gradsurgery.contract.inputs import INPUTS, Context
from gradsurgery.solvers import DEFAULT_EPS
from gradsurgery.testing.circumstances import (
    circumstances,
    losses_of,
    names_of,
    observed_of,
    scores_of,
)
from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array

BATCHES = 3  # independent batches, for strategies that take `cross`; here all of them are alike


@dataclass(frozen=True, eq=False)
class SampleGradients:
    """The gradients of a sample; each call makes a copy, which a strategy may change."""

    sample: Sample
    eps: float

    @property
    def like(self) -> list[Tensor]:
        """The parameter tensors, all flat."""
        return list(_parameters(self.splits).values())

    @property
    def gram(self) -> Array:
        """G [n, n]."""
        return self.sample.gram.copy()

    @property
    def block_grams(self) -> Array:
        """[k, n, n]."""
        return self.sample.block_grams.copy()

    @property
    def rows(self) -> Tensor:
        """J [n, d]."""
        return torch.from_numpy(self.sample.jacobian.copy())

    @property
    def cross(self) -> Array:
        """[m, m, n, n]."""
        gram = self.sample.gram
        return np.broadcast_to(gram, (BATCHES, BATCHES, *gram.shape)).copy()

    @property
    def splits(self) -> tuple[int, ...]:
        """How many coordinates belong to each parameter tensor."""
        return self.sample.splits


def context_of(
    sample: Sample,
    strategy: Strategy,
    *,
    moment: int = 0,
    step: int = 0,
    state: State | None = None,
) -> Context:
    """What a step knows of the sample.

    Args:
        sample: the gradients.
        strategy: the strategy that will be asked; names that its options refer to stay.
        moment: how many steps have gone by: losses change.
        step: chooses among the sample's random numbers.
        state: what the strategy remembers; a fresh state is the default.
    """
    drawn = circumstances(sample.draw)
    names = names_of(strategy, sample)
    eps = drawn.eps if drawn.eps is not None and sample.clear else DEFAULT_EPS
    context = Context(
        names,
        drawn.group,
        matrix=SampleGradients(sample, eps),
        parameters=_parameters(sample.splits),
        scores=scores_of(sample),
        step=sample.draw + step,
    )
    if "losses" in strategy.inputs:
        context.losses = _by_name(names, losses_of(sample, moment))
    if "observed" in strategy.inputs and drawn.observed:
        context.observed = _by_name(names, observed_of(sample, moment))
    if "state" in strategy.inputs:
        context.state = State() if state is None else state
    return context


def inputs_of(sample: Sample, strategy: Strategy) -> dict[str, Any]:
    """What a call of the strategy on the gradients is given by keyword, but for a state."""
    context = context_of(sample, strategy)
    eps = INPUTS["eps"].provide(context)
    found = {"objectives": context.objectives, "group": context.group, "splits": sample.splits}
    for name in strategy.inputs:
        if INPUTS[name].source in ("losses", "call"):
            found[name] = INPUTS[name].provide(context)
    if "eps" in strategy.inputs and eps != DEFAULT_EPS:
        found["eps"] = eps
    return {name: value for name, value in found.items() if value is not None}


def _by_name(names: tuple[str, ...], values: Array) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


@lru_cache(maxsize=256)
def _parameters(splits: tuple[int, ...]) -> dict[str, Tensor]:
    tensors = torch.split(torch.zeros(sum(splits), dtype=torch.float64), list(splits))
    return {str(i): tensor for i, tensor in enumerate(tensors)}
