"""GradientMatrix: the gradients of n objectives for one group of parameters, tensor by tensor."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import mul

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.gradients.blocks import Block, Dense, Factored, GramOnly, Sparse, gradient_of
from gradsurgery.gradients.combine import directions, needs_float64
from gradsurgery.gradients.factored import Layer
from gradsurgery.gradients.gram import Product, products, runs_of
from gradsurgery.gradients.per_example.block import Mixed
from gradsurgery.gradients.precision import single_sufficed
from gradsurgery.gradients.rows import kept_only, rows_of, worth_float32
from gradsurgery.gradients.rules.linear import Linear
from gradsurgery.gradients.transfer import Total, to_host
from gradsurgery.types import Array

NOTHING: frozenset[int] = frozenset()


class GradientMatrix:
    """The gradients of n objectives with respect to k parameter tensors.

    J [n, d] is kept as a list of blocks, one per tensor, and never as one matrix. Its Gram matrix
    G = JJᵀ is formed when it is first asked for, or with those of other groups by `to_host`.

    Args:
        gradients: gradients[i][t] is the gradient of objective i with respect to tensor t, of that
            tensor's shape, or None where the objective does not reach it (a zero block).
        like: the k tensors, for their shapes, dtypes and devices; None takes the first gradient of
            each.
        blocks: keep one Gram matrix per tensor; otherwise only their sum is formed.
        batches: m independent batches, one after the other: `gradients` are then m·n rows.
        inputs: position t -> a layer, for tensors that are its weight: `gradients` then hold Δᵢ,
            those at the layer's output, in place of the weight's. For a linear layer with weight
            [out, in] it may be x [rows, in], and Δᵢ is [rows, out].
        formed: Gram matrices of gradients that are not here (all None), each with the rows and
            columns of it that belong to these n: `gram` includes them.
        sparse: positions of tensors whose gradients are sparse; so is d there.
        writable: for each tensor the gradient of the first objective that reaches it, where d may
            be formed in its memory (see `donation.owned`), or None.

        mixed: position t -> what all mixtures of per-example gradients of a tensor follow from.

    Attributes:
        count: the number of gradients: n objectives, times m with several batches.
        splits: the number of elements of each tensor.
        total: sums numbers on their way to the host over the processes; None for one process.
        form: forms the Gram matrices; `counted` where tensors count differently in `total`.
        some_zero: whether some squared norm is zero; `zero` says which.
        scale: what the gradients come multiplied by (a GradScaler's factor). Grams, `rows` and
            what `split` takes are without it.

    Example:
        >>> import numpy as np, torch
        >>> from gradsurgery import GradientMatrix
        >>> matrix = GradientMatrix([[torch.tensor([1.0, 0.0])], [torch.tensor([1.0, 2.0])]])
        >>> matrix.gram.tolist()
        [[1.0, 1.0], [1.0, 5.0]]
        >>> matrix.combine(np.array([0.5, 0.5]))
        [tensor([1., 1.])]
    """

    def __init__(
        self,
        gradients: Sequence[Sequence[Tensor | None]],
        like: Sequence[Tensor] | None = None,
        blocks: bool = False,
        batches: int = 1,
        inputs: Mapping[int, Layer | Tensor] | None = None,
        formed: Sequence[tuple[Tensor, Sequence[int]]] = (),
        sparse: frozenset[int] = NOTHING,
        writable: Sequence[Tensor | None] | None = None,
        mixed: Mapping[int, Mixed] | None = None,
    ) -> None:
        self.count = len(gradients)
        columns = [list(column) for column in zip(*gradients, strict=True)]
        if like is None:
            like = [next(g for g in column if g is not None) for column in columns]
        columns = columns or [[] for _ in like]  # no objective is left
        self.like = list(like)
        self.splits = [t.numel() for t in self.like]
        self.batches = batches
        self.blocks: list[Block] = []
        for t, (column, tensor) in enumerate(zip(columns, self.like, strict=True)):
            if mixed and t in mixed:
                self.blocks.append(mixed[t])
            elif inputs and t in inputs:
                layer = inputs[t]
                layer = Linear(layer) if isinstance(layer, Tensor) else layer
                self.blocks.append(Factored(column, tensor, layer))
            elif t in sparse:
                self.blocks.append(Sparse(column, tensor))
            else:
                self.blocks.append(Dense(column, tensor, writable[t] if writable else None))
        self.mixed = all(type(block) is Mixed for block in self.blocks)
        self.formed = [GramOnly(product, places) for product, places in formed]
        self.per_tensor = blocks
        self.scale = 1.0
        self.total: Total | None = None
        self.form = products
        self._rows: Tensor | None = None
        self.runs = runs_of(self.blocks, self.splits)
        self._single = False  # whether sums were made in float32
        self._wide = False  # whether they have to be made in float64
        self._pending: list[Product] | None = None
        self._lost: list[Tensor] = []
        self._grams: Array | None = None  # [1, n, n], or [k, n, n] with one per tensor
        self.some_zero = True

    @cached_property
    def _total(self) -> Array:
        """Their sum. Like `eps` set by `arrive`, which this waits for where it is asked before."""
        to_host([self], total=self.total)
        return self._total

    @property
    def gram(self) -> Array:
        """G = JJᵀ [n, n], float64 on the host."""
        return self._total.copy() if self.scale == 1 else self._total / self.scale**2

    @property
    def block_grams(self) -> Array:
        """[k, n, n], one Gram matrix per parameter tensor; they sum to `gram`."""
        if self._grams is None or not self.per_tensor:
            self.per_tensor, self._wide = True, False
            self._pending, self._grams = None, None
            to_host([self], total=self.total)
        grams = self._grams
        assert grams is not None
        return grams / self.scale**2 if self.scale != 1 else grams

    @property
    def cross(self) -> Array:
        """[m, m, n, n]: the Gram matrix between the gradients on batch a and those on batch b."""
        n = self.count // self.batches
        return self.gram.reshape(self.batches, n, self.batches, n).transpose(0, 2, 1, 3)

    @cached_property
    def eps(self) -> float:
        """The accuracy of the Gram's entries relative to ‖gᵢ‖‖gⱼ‖.

        It is 1e-15, or 1e-6 where part of the sums was made in float32.
        """
        to_host([self], total=self.total)
        return self.eps

    @property
    def finite(self) -> bool:
        """Whether every squared norm is finite."""
        total, square = self._total, self.scale**2
        if math.isfinite(float(total.sum()) / square):
            return True
        return bool(np.isfinite(np.diagonal(total) / square).all())

    @property
    def zero(self) -> NDArray[np.bool_]:
        """Which of the n objectives have a gradient of exactly zero, in every batch.

        A gradient whose square underflows float64 is read to tell.
        """
        squares = np.diagonal(self._total)
        if squares.all():
            return np.zeros(self.count // self.batches, np.bool_)
        zero: NDArray[np.bool_] = squares == 0
        wide = [block for block in self.blocks if block.like.dtype == torch.float64]
        found = [
            (i, formed)
            for i in np.flatnonzero(zero).tolist()
            for block in wide
            if (formed := gradient_of(block, i)) is not None and formed.numel()
        ]
        sizes = torch._foreach_norm([g for _, g in found], torch.inf) if found else ()
        for (i, _), size in zip(found, to_host((), sizes, total=self.total), strict=True):
            zero[i] &= size == 0
        return np.asarray(zero.reshape(self.batches, -1).all(axis=0))

    @property
    def rows(self) -> Tensor:
        """J [n, d] on the gradients' device: only for coordinate-wise methods.

        A copy, unless the gradients lie in one tensor.
        """
        if self._rows is not None:
            return self._rows
        return rows_of(self.blocks, self.like, self.splits, self.count, self.scale)

    def take_rows(self, rows: Tensor) -> None:
        """Use this [n, d] as `rows`: the gradients are views of it."""
        self._rows = rows

    def only(self, rows: Sequence[int]) -> "GradientMatrix":
        """Those of these rows, with their part of the Gram matrix: nothing is formed again."""
        layers = {t: b.layer for t, b in enumerate(self.blocks) if isinstance(b, Factored)}
        sparse = frozenset(t for t, block in enumerate(self.blocks) if isinstance(block, Sparse))
        mixed = {t: b.only(rows) for t, b in enumerate(self.blocks) if isinstance(b, Mixed)}
        columns = [kept_only(block, rows) for block in self.blocks]
        gradients = [[column[k] for column in columns] for k in range(len(rows))]
        part = GradientMatrix(
            gradients, self.like, self.per_tensor, self.batches, layers, (), sparse, None, mixed
        )
        part.eps, part.scale = self.eps, self.scale
        part._total = self._total[np.ix_(rows, rows)]
        assert self._grams is not None
        part._grams = self._grams[:, rows][:, :, rows]
        part.some_zero = self.some_zero
        return part

    def not_finite(self) -> list[int]:
        """The gradients that hold a NaN or an infinity, or whose square overflows float64."""
        if self._rows is None:
            return [int(i) for i in np.flatnonzero(~np.isfinite(np.diagonal(self.gram)))]
        odd = (~torch.isfinite(self._rows.sum(1))).nonzero()[:, 0].tolist()
        return [i for i in odd if not bool(torch.isfinite(self._rows[i]).all())]

    def bound(self, weights: Array) -> float:
        """Σ |wᵢ| ‖gᵢ‖, times `scale`, which no entry of d exceeds in size.

        For weights [k, n] the largest over the tensors.
        """
        norms = np.sqrt(np.diagonal(self._total)).tolist()
        rows = np.atleast_2d(np.abs(weights)).tolist()
        sizes = [sum(map(mul, row, norms)) for row in rows]  # floats overflow without a warning
        return float(max(sizes, default=0.0))

    def combine(self, weights: Array, reuse: bool = False) -> list[Tensor | None]:
        """d = Jᵀw tensor by tensor; None where no objective reaches one.

        The tensors are of each parameter's dtype, and nothing else holds them.

        Args:
            weights: [n], or [k, n] with one row per tensor, or [m, n] with one row per batch.
            reuse: whether the gradients are not needed after this: they are gone then, and d is
                formed in the memory of those that are `writable`.
        """
        if self.batches > 1:
            weights = np.reshape(weights, self.count)
        bound = 0.0 if self._grams is None else self.bound(weights)
        precise = needs_float64(weights, self._grams, bound, self.like, self.mixed)
        return directions(self.blocks, self.runs, weights, precise, reuse)

    def split(self, direction: Tensor) -> list[Tensor | None]:
        """A direction [d] cut into new tensors shaped like the parameters."""
        whole = direction if self.scale == 1 else direction * self.scale
        pieces = zip(torch.split(whole, self.splits), self.like, strict=True)
        return [torch.empty_like(t).copy_(piece.reshape(t.shape)) for piece, t in pieces]

    def start(self) -> list[Tensor]:
        """Form the Gram matrices on the gradients' devices, without waiting for them."""
        if self._grams is not None:
            return []
        if self._pending is None:
            blocks = self.blocks
            if not self._wide:
                self._single = worth_float32(blocks, self.count * sum(self.splits))
            dtype = torch.float32 if self._single else torch.float64
            self._pending, lost = self.form(blocks, self.splits, self.runs, self.per_tensor, dtype)
            self._lost = lost if self._single else []
        grams = [kept.gram for kept in self.formed]
        return [*[product for _, product in self._pending], *grams, *self._lost]

    def arrive(self, found: list[Array]) -> bool:
        """Take the Gram matrices; False where sums made in float32 are not good enough."""
        if self._pending is None:
            return True
        n, pieces = self.count, iter(found)
        grams = np.zeros((len(self.blocks) if self.per_tensor else 1, n, n))
        for t, _ in self._pending:
            grams[t] += next(pieces).reshape(n, n)
        for kept in self.formed:
            grams[0] += next(pieces)[np.ix_(kept.places, kept.places)]
        total = grams[0] if len(grams) == 1 else grams.sum(0)
        self._pending = None
        if self._single:
            squares = np.diagonal(grams, axis1=1, axis2=2)
            if self.per_tensor:
                squares = squares[[[g is not None for g in b.gradients] for b in self.blocks]]
            if not single_sufficed(total, squares, list(pieces), self.mixed):
                self._wide, self._single, self._lost = True, False, []
                return False
        self._grams, self._total, self.eps = grams, total, 1e-6 if self._single else 1e-15
        self.some_zero = not total.diagonal().all()
        return True


Objectives = GradientMatrix  # its public name so far
