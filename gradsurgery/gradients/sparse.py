"""Sparse gradients, as of an embedding with sparse=True: their Gram matrix, and their sum."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def gram_sparse(gradients: Sequence[Tensor | None]) -> Tensor:
    """G [n, n] in float64, from the entries that are there: no gradient is made dense.

    Entries of a complex gradient count as pairs of real numbers.

    Args:
        gradients: one per objective, or None where it does not reach the tensor (a zero row).
    """
    found = [None if g is None else _entries(g) for g in gradients]
    device = next(g.device for g in gradients if g is not None)
    gram = torch.zeros(len(found), len(found), dtype=torch.float64, device=device)
    for i, first in enumerate(found):
        for j, second in enumerate(found[: i + 1]):
            if first is not None and second is not None:
                gram[i, j] = gram[j, i] = _inner(*first, *second)
    return gram


@torch.no_grad()
def combine_sparse(gradients: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Σ wᵢgᵢ, sparse, in a tensor of its own; None where no objective reaches the tensor."""
    terms = [(w, g) for w, g in zip(weights, gradients, strict=True) if g is not None]
    if not terms:
        return None
    used = [(w, g) for w, g in terms if w != 0]
    if not used:
        return torch.zeros_like(terms[0][1])
    weight, gradient = used[0]
    out = gradient.clone() if weight == 1 else gradient * weight
    for weight, gradient in used[1:]:
        out = out + (gradient if weight == 1 else gradient * weight)
    return out


def _entries(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The positions of the entries as ascending numbers [k], and the entries as rows [k, m]."""
    gradient = gradient.coalesce()
    indices, sizes = gradient.indices(), gradient.shape[: gradient.sparse_dim()]
    keys = torch.zeros(indices.shape[1], dtype=torch.int64, device=gradient.device)
    for index, size in zip(indices, sizes, strict=True):
        keys = keys * size + index
    values = gradient.values()
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj())
    return keys, values.unsqueeze(-1).flatten(1).double()  # there may be no entry at all


def _inner(keys: Tensor, values: Tensor, other_keys: Tensor, other_values: Tensor) -> Tensor:
    """Σ of the products of entries that both have."""
    if not len(keys) or not len(other_keys):
        return torch.zeros((), dtype=torch.float64, device=keys.device)
    places = torch.searchsorted(other_keys, keys).clamp_(max=len(other_keys) - 1)
    products = (values * other_values[places]).sum(1)
    return torch.where(other_keys[places] == keys, products, 0.0).sum()
