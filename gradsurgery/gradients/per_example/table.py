"""Embeddings: the gradient per example has a row for each entry of the table that it took."""

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.use import FORMED, Use, sizes


class Table(Use):
    """W_b [entries, width], the sum of Δ_bt at row k_bt.

    Args:
        delta: Δ [B, t, width]; zero where an entry gets no gradient (`padding_idx`).
        indices: k [B, t].
        entries: how many the table has.
    """

    def __init__(self, delta: Tensor, indices: Tensor, entries: int) -> None:
        self.delta, self.indices, self.entries = delta, indices, entries
        self.examples, self.rows, self.width = delta.shape
        self.size = entries * self.width

    @property
    def device(self) -> torch.device:
        return self.delta.device

    def one(self, factors: Tensor) -> Tensor:
        rows = self.delta.to(factors.dtype) * factors.view(-1, 1, 1)
        out = rows.new_zeros(self.entries, self.width)
        out.index_add_(0, self.indices.reshape(-1), rows.flatten(0, 1))
        return out.reshape(-1)

    def many(self, mixture: Tensor) -> Tensor:
        return torch.stack([self.one(row) for row in mixture.to(self._dtype)])

    def along(self, step: Tensor) -> Tensor:
        taken = step.reshape(self.entries, self.width)[self.indices]
        return (self.delta.to(step.dtype) * taken).flatten(1).sum(1)

    def kernel(self, wide: bool) -> Tensor:
        b, t = self.examples, self.rows
        rows, places = self.delta.flatten(0, 1), self.indices.reshape(-1)
        rows = rows.to(torch.float64 if wide else self._dtype)
        total = torch.empty(b, b, dtype=torch.float64, device=self.device)
        some = max(1, FORMED // (b * t * t))
        for start in range(0, b, some):
            own = slice(start * t, (start + some) * t)
            product = (rows[own] @ rows.T) * (places[own, None] == places)
            total[start : start + some] = product.view(-1, t, b, t).sum((1, 3), dtype=torch.float64)
        return total

    def forms(self, n: int) -> bool:
        return False  # a mixture has the size of the table

    def by_rows(self, n: int) -> bool:
        return True

    def bounds(self) -> Tensor:
        return sizes(self.delta.flatten(0, 1)).view(self.delta.shape[:2]).sum(1)

    @property
    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.delta.dtype, torch.float32)
