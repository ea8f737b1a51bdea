"""Uses whose gradient per example is a product of two factors, W_b = Δ_bᵀx_b."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.use import FORMED, Use, between, inner, sizes

READ = 4  # what it costs to write and read an entry, in multiplications


class Product(Use):
    """W_b [g, out, in] = Δ_bᵀx_b, of g groups of channels.

    Four ways lead to the Gram matrix of n mixtures, and counting multiplications says which is
    taken: inner products of all rows of Δ and x; W_b formed piece by piece, and their inner
    products K [B, B] or their mixtures; or one product per mixture.

    Args:
        left: Δ [B, g, out, t], t rows per example.
        right: x [B, g, in, t].
        swapped: whether the parameter is the transpose, [in, out].
    """

    def __init__(self, left: Tensor, right: Tensor, swapped: bool = False) -> None:
        self.left, self.right, self.swapped = left, right, swapped
        self.examples, self.groups, self.out, self.rows = left.shape
        self.inside = right.shape[2]
        self.size = self.groups * self.out * self.inside

    @property
    def device(self) -> torch.device:
        return self.left.device

    def factors(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Δ and x of the examples from start to stop."""
        return self.left[start:stop], self.right[start:stop]

    def one(self, factors: Tensor) -> Tensor:
        dtype = factors.dtype
        left, right = _flat(self.left).to(dtype), _flat(self.right).to(dtype)
        each = factors.view(1, -1, 1).expand(1, -1, self.rows).reshape(1, -1, 1)
        return self._laid((left * each).transpose(1, 2) @ right)

    def many(self, mixture: Tensor) -> Tensor:
        n = len(mixture)
        dtype = torch.promote_types(self.left.dtype, torch.float32)
        if self._counts(n)["products"] <= self._counts(n)["mixed"]:
            return torch.stack([self.one(row) for row in mixture.to(dtype)])
        out = torch.empty(n, self.groups, self.out, self.inside, dtype=dtype, device=self.device)
        for first, formed in self._formed():
            mixed = mixture.to(dtype) @ formed.flatten(1)
            out[:, :, first : first + formed.shape[2]] = mixed.view(n, *formed.shape[1:])
        return self._laid(out)

    def along(self, step: Tensor) -> Tensor:
        whole = step.reshape(self.inside, self.out).T if self.swapped else step
        whole = whole.reshape(self.groups, self.out, self.inside)
        total = torch.empty(self.examples, dtype=step.dtype, device=self.device)
        for start in range(0, self.examples, self._some()):
            left, right = self.factors(start, start + self._some())
            image = whole @ right.to(step.dtype)
            total[start : start + len(left)] = (left * image).flatten(1).sum(1)
        return total

    def kernel(self, wide: bool) -> Tensor:
        counts = self._counts(self.examples)
        if counts["rows"] <= counts["kernel"]:
            return self._by_rows(wide)
        total = torch.zeros(self.examples, self.examples, dtype=torch.float64, device=self.device)
        for _, formed in self._formed():
            total += inner(formed.flatten(1), wide)
        return total

    def gram(self, mixture: Tensor, wide: bool) -> Tensor:
        n, counts = len(mixture), self._counts(len(mixture))
        best = min(counts, key=counts.__getitem__)
        if best in ("rows", "kernel"):
            return between(self.kernel(wide), mixture)
        if best == "products":
            return inner(self.many(mixture), wide)
        total = torch.zeros(n, n, dtype=torch.float64, device=self.device)
        for _, formed in self._formed():
            total += inner(mixture.to(formed.dtype) @ formed.flatten(1), wide)
        return total

    def bounds(self) -> Tensor:
        return sizes(self.left) * sizes(self.right)

    def _counts(self, n: int) -> dict[str, int]:
        """The multiplications for n mixtures, by way."""
        b, size = self.examples, self.size
        rows, entries = b * self.rows, self.out * self.inside
        formed = rows * self.groups * entries + READ * b * size
        counts = {
            "rows": rows * rows * (self.out + self.inside),
            "kernel": formed + b * b * size,
            "mixed": formed + n * b * size + n * n * size,
            "products": n * (rows * self.groups * entries + READ * size) + n * n * size,
        }
        if self.groups > 1:
            counts["rows"] = counts["kernel"] + 1  # rows of groups are not multiplied with others
        return counts

    def _by_rows(self, wide: bool) -> Tensor:
        """K from the inner products of all rows, (ΔΔᵀ)∘(xxᵀ), summed by example."""
        b, t = self.examples, self.rows
        dtype = torch.float64 if wide else torch.promote_types(self.left.dtype, torch.float32)
        left, right = _flat(self.left)[0].to(dtype), _flat(self.right)[0].to(dtype)
        if t == 1:
            return ((left @ left.T) * (right @ right.T)).double()
        total = torch.empty(b, b, dtype=torch.float64, device=self.device)
        some = max(1, FORMED // (b * t * t))
        for start in range(0, b, some):
            own = slice(start * t, (start + some) * t)
            product = (left[own] @ left.T).mul_(right[own] @ right.T)
            total[start : start + some] = product.view(-1, t, b, t).sum((1, 3), dtype=torch.float64)
        return total

    def _formed(self) -> Iterator[tuple[int, Tensor]]:
        """W_b of all examples [B, g, o, in], for pieces of the outputs, each with its first one."""
        b = self.examples
        dtype = torch.promote_types(self.left.dtype, torch.float32)
        outs = max(1, min(self.out, FORMED // max(1, b * self.groups * self.inside)))
        for first in range(0, self.out, outs):
            last = min(first + outs, self.out)
            piece = torch.empty(
                b, self.groups, last - first, self.inside, dtype=dtype, device=self.device
            )
            for start in range(0, b, self._some()):
                left, right = self.factors(start, start + self._some())
                own, target = left[:, :, first:last].to(dtype), piece[start : start + len(left)]
                torch.matmul(own, right.transpose(2, 3).to(dtype), out=target)
            yield first, piece

    def _some(self) -> int:
        """How many examples' factors are taken at a time."""
        return self.examples

    def _laid(self, rows: Tensor) -> Tensor:
        """Gradients [..., g, out, in] flat, in the parameter's order."""
        if self.swapped:
            rows = rows.transpose(-1, -2)
        return rows.reshape(*rows.shape[:-3], self.size)


def _flat(factor: Tensor) -> Tensor:
    """The rows of all examples [g, B·t, ...]."""
    b, g, width, t = factor.shape
    return factor.permute(1, 0, 3, 2).reshape(g, b * t, width)


def joined(uses: Sequence[Product]) -> Product:
    """Several uses of one weight as one, whose examples have the rows of all."""
    left = torch.cat([use.left for use in uses], 3)
    return Product(left, torch.cat([use.right for use in uses], 3), uses[0].swapped)
