"""Uses whose gradient per example is a product of two factors, W_b = Δ_bᵀx_b."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.layout import Layout
from gradsurgery.gradients.per_example.use import FORMED, Use, inner, sizes
from gradsurgery.gradients.precision import in_pieces

PIECE = 1 << 19  # entries that a cache holds
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
        flat: Δ [rows, out] and x [rows, in] as they lay in memory, and where examples are there.
    """

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        swapped: bool = False,
        flat: tuple[Tensor, Tensor, Layout] | None = None,
    ) -> None:
        self.left, self.right, self.swapped, self.flat = left, right, swapped, flat
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
        if self.flat is not None:  # no copy of what lies in another order
            delta, x, layout = self.flat
            return self._laid((layout.times(delta.to(dtype), factors).T @ x.to(dtype))[None])
        left, right = _flat(self.left).to(dtype), _flat(self.right).to(dtype)
        each = factors.view(1, -1, 1).expand(1, -1, self.rows).reshape(1, -1, 1)
        return self._laid((left * each).transpose(1, 2) @ right)

    def many(self, mixture: Tensor) -> Tensor:
        n, counts = len(mixture), self._counts(len(mixture))
        if counts["products"] <= counts["mixed"]:
            return torch.stack([self.one(row) for row in mixture.to(self._dtype)])
        out = torch.zeros(n, self.size, dtype=self._dtype, device=self.device)
        weights = mixture.to(self._dtype)
        # as many examples as mixtures at least, so that what is added to is read no more than they
        some = self._some(self.size, min(FORMED, max(PIECE, n * self.size)))
        formed = torch.empty(
            some, self.groups, self.out, self.inside, dtype=self._dtype, device=self.device
        )
        for start in range(0, self.examples, some):
            left, right = self.factors(start, start + some)
            own = formed[: len(left)]
            torch.bmm(*_pairs(left, right, self._dtype), out=own.flatten(0, 1))
            out.addmm_(weights[:, start : start + some], own.flatten(1))
        return self._laid(out.view(n, self.groups, self.out, self.inside))

    def along(self, step: Tensor) -> Tensor:
        whole = step.reshape(self.inside, self.out).T if self.swapped else step
        whole = whole.reshape(self.groups, self.out, self.inside)
        total = torch.empty(self.examples, dtype=step.dtype, device=self.device)
        some = self._some(self.groups * self.rows * (self.inside + self.out))
        for start in range(0, self.examples, some):
            left, right = self.factors(start, start + some)
            image = whole @ right.to(step.dtype)
            total[start : start + len(left)] = (left * image).flatten(1).sum(1)
        return total

    def kernel(self, wide: bool) -> Tensor:
        counts = self._counts(self.examples)
        if counts["rows"] <= counts["kernel"]:
            return self._by_rows(wide)
        b = self.examples
        total = torch.zeros(b, b, dtype=torch.float64, device=self.device)
        outs = max(1, min(self.out, FORMED // max(1, b * self.groups * self.inside)))
        some = self._some(self.groups * outs * self.inside, PIECE)
        for first in range(0, self.out, outs):
            last = min(first + outs, self.out)
            shape = b, self.groups, last - first, self.inside
            formed = torch.empty(shape, dtype=self._dtype, device=self.device)
            for start in range(0, b, some):
                left, right = self.factors(start, start + some)
                own = formed[start : start + some].flatten(0, 1)
                torch.bmm(*_pairs(left[:, :, first:last], right, self._dtype), out=own)
            total += inner(formed.flatten(1), wide)
        return total

    def forms(self, n: int) -> bool:
        counts = self._counts(n)
        return min(counts, key=counts.__getitem__) in ("mixed", "products")

    def by_rows(self, n: int) -> bool:
        counts = self._counts(self.examples)
        return not (self.forms(n) and n < self.examples) and counts["rows"] <= counts["kernel"]

    def bounds(self) -> Tensor:
        return sizes(self.left) * sizes(self.right)

    def _counts(self, n: int) -> dict[str, int]:
        """The multiplications for n mixtures, by way."""
        b, size = self.examples, self.size
        rows, entries = b * self.rows, self.out * self.inside
        formed = rows * self.groups * entries + READ * b * size
        last = rows * self.groups * entries  # of the direction, where no mixture was formed
        counts = {
            "rows": rows * rows * (self.out + self.inside) + last,
            "kernel": formed + b * b * size + last,
            "mixed": formed + n * b * size + n * n * size,
            "products": n * (rows * self.groups * entries + READ * size) + n * n * size,
        }
        if self.groups > 1:
            counts["rows"] = counts["kernel"] + 1  # rows of groups are not multiplied with others
        return counts

    def _by_rows(self, wide: bool) -> Tensor:
        """K from the inner products of all rows, (ΔΔᵀ)∘(xxᵀ), summed by example."""
        b, t = self.examples, self.rows
        dtype = torch.float64 if wide else self._dtype
        left, right = _flat(self.left)[0].to(dtype), _flat(self.right)[0].to(dtype)
        if t == 1:
            return in_pieces(left, left) * in_pieces(right, right)
        total = torch.empty(b, b, dtype=torch.float64, device=self.device)
        some = max(1, FORMED // (b * t * t))
        for start in range(0, b, some):
            own = slice(start * t, (start + some) * t)
            product = (left[own] @ left.T).mul_(right[own] @ right.T)
            total[start : start + some] = product.view(-1, t, b, t).sum((1, 3), dtype=torch.float64)
        return total

    @property
    def _dtype(self) -> torch.dtype:
        return torch.promote_types(self.left.dtype, torch.float32)

    def _some(self, each: int, room: int = PIECE) -> int:
        """How many examples are taken at a time, of which so many entries each are formed."""
        return max(1, min(self.examples, room // max(1, each)))

    def _laid(self, rows: Tensor) -> Tensor:
        """Gradients [..., g, out, in] flat, in the parameter's order."""
        if self.swapped:
            rows = rows.transpose(-1, -2)
        return rows.reshape(*rows.shape[:-3], self.size)


def _pairs(left: Tensor, right: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The factors of each example and group, to be multiplied."""
    return left.flatten(0, 1).to(dtype), right.flatten(0, 1).transpose(1, 2).to(dtype)


def _flat(factor: Tensor) -> Tensor:
    """The rows of all examples [g, B·t, ...]."""
    b, g, width, t = factor.shape
    return factor.permute(1, 0, 3, 2).reshape(g, b * t, width)


def joined(uses: Sequence[Product]) -> Product:
    """Several uses of one weight as one, whose examples have the rows of all."""
    left = torch.cat([use.left for use in uses], 3)
    return Product(left, torch.cat([use.right for use in uses], 3), uses[0].swapped)
