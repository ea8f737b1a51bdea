"""Weight gradients Wᵢ = Δᵢᵀx of a layer that are not formed: their Gram matrix, and their sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gradsurgery.gradients.precision import in_pieces


class Layer(Protocol):
    """What is known of one layer in one step, beside the gradients Δᵢ at its output."""

    def gram(self, deltas: Sequence[Tensor | None], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """⟨Wᵢ, Wⱼ⟩ [n, n] in float64, and ‖x‖²‖Δᵢ‖² [n]."""

    def combine(
        self,
        deltas: Sequence[Tensor | None],
        weights: Sequence[float],
        like: Tensor,
        precise: bool,
    ) -> Tensor | None:
        """Σ wᵢWᵢ; None where no objective reaches the layer."""

    def gradient(self, delta: Tensor) -> Tensor:
        """Wᵢ, formed after all."""


@dataclass(frozen=True)
class Linear:
    """A linear layer with input x [rows, in]."""

    inputs: Tensor

    def gram(self, deltas: Sequence[Tensor | None], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return gram_tapped(deltas, self.inputs, dtype)

    def combine(
        self,
        deltas: Sequence[Tensor | None],
        weights: Sequence[float],
        like: Tensor,
        precise: bool,
    ) -> Tensor | None:
        return combine_tapped(deltas, weights, like, self.inputs, precise)

    def gradient(self, delta: Tensor) -> Tensor:
        return delta.T @ self.inputs


@torch.no_grad()
def gram_tapped(
    deltas: Sequence[Tensor | None], inputs: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """⟨Wᵢ, Wⱼ⟩ = ⟨(xxᵀ)Δᵢ, Δⱼ⟩ [n, n] in float64, and ‖x‖²‖Δᵢ‖² [n].

    The error of float32 products is relative to the latter.

    Args:
        deltas: for each objective Δᵢ [rows, out], or None where it does not reach the layer.
        inputs: x [rows, in].
        dtype: what the products are made in.
    """
    some = next(delta for delta in deltas if delta is not None)
    x = inputs.to(dtype)
    between = x @ x.T
    stacked = torch.stack(
        [
            torch.zeros_like(some, dtype=dtype) if delta is None else delta.to(dtype)
            for delta in deltas
        ]
    )  # [n, rows, out]
    flat = stacked.flatten(1)
    images = torch.empty_like(stacked)
    for delta, image in zip(stacked, images, strict=True):
        torch.mm(between, delta, out=image)
    found = in_pieces(images.flatten(1), flat)
    return (found + found.T) / 2, (between.trace() * flat.square().sum(1)).double()


@torch.no_grad()
def combine_tapped(
    deltas: Sequence[Tensor | None],
    weights: Sequence[float],
    like: Tensor,
    inputs: Tensor,
    precise: bool,
) -> Tensor | None:
    """Σ wᵢ Δᵢᵀx by one product; None where no objective reaches the layer.

    Args:
        deltas: for each objective Δᵢ [rows, out] or None.
        weights: w [n].
        like: the weight [out, in].
        inputs: x [rows, in].
        precise: form it in float64.
    """
    terms = [(w, delta) for w, delta in zip(weights, deltas, strict=True) if delta is not None]
    if not terms:
        return None
    dtype = (
        torch.float64
        if precise or not all(w == 0 or 1e-30 < abs(w) < 1e30 for w, _ in terms)
        else torch.promote_types(like.dtype, torch.float32)
    )
    total = torch.zeros_like(terms[0][1], dtype=dtype)
    for weight, delta in terms:
        if weight != 0:
            total.add_(delta.to(dtype), alpha=weight)
    out = torch.empty_like(like)
    if out.dtype == inputs.dtype == dtype and out.is_contiguous():
        return torch.mm(total.T, inputs, out=out)
    return out.copy_(total.T @ inputs.to(dtype))
