"""The weights of all mixtures as factors per example, times profiles over an example's tokens.

With losses [B] a mixture's weight Aᵢ_b is such a factor. With [B, T] the weights Aᵢ_bt of example b
are a matrix [n, T] of some rank r: Aᵢ_bt = Σ_k Uᵢ_bk V_kbt. One pass for each k then brings what
all objectives need; r is 1 where the tokens of an example are weighted alike in all mixtures.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.errors import InputError
from gradsurgery.types import Array

ROUNDING = 8  # of given weights, in units of their dtype's: what products leave of rank one
LEAST = 1e-13  # of decompositions in float64


@dataclass(frozen=True, eq=False)
class Examples:
    """What one pass per profile needs to know.

    Attributes:
        losses: ℓ [B] or [B, T].
        profiles: V [r, ...] with the shape of the losses, what each pass starts with.
        factors: U [n, r·B]: how much of each example in each pass an objective has.
        verify: when independence is checked: "first", "always", "never".
        single: whether every example is an objective.
    """

    losses: Tensor
    profiles: Array
    factors: Array
    verify: str
    single: bool

    @property
    def count(self) -> int:
        """B."""
        return len(self.losses)

    def root(self, profile: Array, scale: Tensor | None) -> Tensor:
        """What a pass starts with."""
        root = torch.as_tensor(profile, dtype=torch.float64).to(self.losses.device)
        root = root.to(self.losses.dtype)
        return root if scale is None else (root * scale).to(root.dtype)


def check_examples(strategy: Strategy | None, examples: Examples, several: bool) -> None:
    """Whether a step can take mixtures of per-example losses.

    Raises:
        InputError: for single examples and a strategy that keeps state, and under several
            processes.
    """
    if strategy is not None and examples.single and "state" in strategy.inputs:
        raise InputError(
            f"PerExample: without mixtures every example is an objective, and {strategy.name!r} "
            "keeps state by objective from step to step, where examples are others each time. "
            "Give mixtures by name, or take a strategy without memory."
        )
    if several:
        raise InputError(
            "PerExample: under several processes inner products between examples of different "
            "processes would have to be exchanged, which is not done. Give the objectives as a "
            "dict of scalars, which takes a pass each."
        )


def profiles_of(
    losses: Tensor, weights: Array, eps: float, verify: str, single: bool
) -> Examples | None:
    """The profiles; None where they are as many as objectives, and save nothing.

    Args:
        losses: ℓ [B] or [B, T].
        weights: A [n, ...] with the shape of the losses.
        eps: the rounding of their dtype.
        verify: when independence is checked.
        single: whether every example is an objective.
    """
    n, b = weights.shape[:2]
    if weights.ndim == 2:
        return Examples(losses, np.ones((1, b)), weights, verify, single)
    strongest = np.abs(weights).sum(2).argmax(0)  # [B]
    profile = weights[strongest, np.arange(b)]  # [B, T]
    squares = (profile**2).sum(1)
    factors = np.einsum("nbt,bt->nb", weights, profile) / np.where(squares > 0, squares, 1)
    left = np.abs(weights - factors[..., None] * profile).max(2)  # [n, B]
    scales = np.abs(weights).max(2)
    if (left <= (ROUNDING * eps + LEAST) * scales).all():
        return Examples(losses, profile[None], factors, verify, single)
    # each objective counts by its own scale: none is so small that its weights are rounding
    even = weights / np.where(scales > 0, scales, 1)[..., None]
    u, s, v = np.linalg.svd(even.transpose(1, 0, 2), full_matrices=False)  # by example
    size = (ROUNDING * eps + LEAST) * (weights.shape[0] * weights.shape[2]) ** 0.5
    rank = int((s > size * s[:, :1]).sum(1).max())
    if rank >= n:
        return None
    spread = (u * s[:, None])[..., :rank] * scales.T[..., None]  # [B, n, r]
    return Examples(
        losses,
        v[:, :rank].transpose(1, 0, 2),
        spread.transpose(1, 2, 0).reshape(n, rank * b),
        verify,
        single,
    )
