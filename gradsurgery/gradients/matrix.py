"""Objectives: the gradients of n objectives for one group of parameters, kept tensor by tensor."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.gradients.donation import exclusive
from gradsurgery.gradients.factored import combine_tapped, gram_tapped, in_pieces
from gradsurgery.gradients.sparse import combine_sparse, gram_sparse

Array = NDArray[np.float64]
_flatten: Callable[[Sequence[Tensor]], Tensor] = (
    torch._utils._flatten_dense_tensors
)  # one vector, in one call
CPU = torch.device("cpu")
# Entries of the work buffer: large enough for one matrix product to pay, small beside the gradients.
BUFFER = {"cpu": 1 << 19, "other": 1 << 24}


PIECE = {"cpu": 1 << 15, "other": 1 << 20}
CANCELLING = 4.0  # terms this many times longer than their sum are summed in float64
LARGE = 1 << 19  # gradients with fewer entries than this are worth no shortcut
SQUARES = (1e-24, 1e30)  # squared norms whose terms float32 holds
IN_RANGE = (1e-30, 1e30)  # weights that float32 holds: a gradient of 1e-20 may need others
LOST = 2e3  # ‖x‖²‖Δᵢ‖² beside a squared norm, up to which float32 products of taps are accurate to 1e-6 (measured: 5e-10 times that)
ALONE = (
    1 << 15
)  # gradients with more entries than this are handled one by one, smaller ones together
RUN = 1 << 17  # entries that are copied at a time where small gradients are read together
INDEPENDENT = 1e-2  # least eigenvalue of the cosines down to which an accuracy of 1e-6 is plenty


class Objectives:
    """The gradients of n objectives with respect to k parameter tensors.

    Args:
        gradients: gradients[i][t] is the gradient of objective i with respect to tensor t, of that tensor's shape, or
            None where the objective does not reach it (a zero block).
        like: the k tensors, for their shapes, dtypes and devices; None takes the first gradient of each.
        blocks: keep one Gram matrix per tensor; otherwise only their sum is formed.
        batches: m independent batches, one after the other: `gradients` are then m·n rows.
        inputs: position t -> x [rows, in], for tensors that are the weight [out, in] of a linear layer with that input: `gradients` then
            hold Δᵢ [rows, out], those at the layer's output, in place of Δᵢᵀx.
        formed: Gram matrices of gradients that are not here (all None), each with the rows and columns of it that belong to these n:
            `gram` includes them.
        sparse: positions of tensors whose gradients are sparse; so is d there.

    Products are formed one piece at a time: one read of the gradients, no [n, d] copy. They are summed in float64 whatever the
    gradients' dtype (on the host for devices without it), so that squares of float32 or half gradients stay in range. On the CPU the
    sums over 256 products are first made in float32, which is several times faster and accurate to 1e-6; where the squares do not
    fit, or the gradients are so nearly dependent that 1e-6 might decide something, all is summed again in float64.
    """

    def __init__(
        self,
        gradients: Sequence[Sequence[Tensor | None]],
        like: Sequence[Tensor] | None = None,
        blocks: bool = False,
        batches: int = 1,
        inputs: Mapping[int, Tensor] | None = None,
        formed: Sequence[tuple[Tensor, Sequence[int]]] = (),
        sparse: frozenset[int] = frozenset(),
    ) -> None:
        self.gradients = [list(row) for row in gradients]
        if like is None:
            like = [
                next(g for g in column if g is not None)
                for column in zip(*self.gradients, strict=True)
            ]
        self.like = list(like)
        self.blocks = blocks
        self.batches = batches
        self.inputs = dict(inputs or {})
        self.formed = list(formed)
        self.sparse = sparse
        self._rows: Tensor | None = None
        self._pending: list[tuple[int, Tensor]] | None = None
        self._blocks: Array | None = None
        self._single = self._may_be_single()
        self._lost: dict[int, Tensor] = {}
        self.scale = 1.0  # what the gradients come multiplied by: Grams, `rows` and what `split` takes are without it

    @property
    def count(self) -> int:
        """The number of gradients: n objectives, times m with several batches."""
        return len(self.gradients)

    @property
    def splits(self) -> list[int]:
        """The number of elements of each parameter tensor."""
        return [t.numel() for t in self.like]

    @property
    def gram(self) -> Array:
        """G = JJᵀ [n, n], float64 on the host."""
        blocks = self._host()
        return (
            blocks[0].copy()
            if len(blocks) == 1 and self.scale == 1
            else np.asarray(blocks.sum(0) / self.scale**2)
        )

    @property
    def finite(self) -> bool:
        """Whether every squared norm is finite."""
        blocks, square = self._host(), self.scale**2
        return math.isfinite(float(blocks.sum()) / square) or bool(
            np.isfinite(np.diagonal(blocks.sum(0)) / square).all()
        )

    def bound(self, weights: Array) -> float:
        """Σ |wᵢ| ‖gᵢ‖, times `scale`, which no entry of d exceeds in size; for weights [k, n] the largest over the tensors."""
        blocks = self._host()
        norms = np.sqrt(np.diagonal(blocks[0] if len(blocks) == 1 else blocks.sum(0)))
        with np.errstate(over="ignore"):
            sizes: Array = np.abs(weights) @ norms
        return float(sizes if sizes.ndim == 0 else sizes.max())

    @property
    def block_grams(self) -> Array:
        """[k, n, n], one Gram matrix per parameter tensor; they sum to `gram`."""
        if not self.blocks:
            self.blocks, self._pending, self._blocks, self._single = (
                True,
                None,
                None,
                self._may_be_single(),
            )
        return self._host() / self.scale**2 if self.scale != 1 else self._host()

    @property
    def cross(self) -> Array:
        """[m, m, n, n]: the Gram matrix between the objectives' gradients on batch a and those on batch b."""
        n = self.count // self.batches
        return self.gram.reshape(self.batches, n, self.batches, n).transpose(0, 2, 1, 3)

    @property
    def zero(self) -> NDArray[np.bool_]:
        """Which of the n objectives have a gradient of exactly zero, in every batch.

        A gradient whose square underflows float64 is read to tell.
        """
        blocks = self._host()
        zero: NDArray[np.bool_] = np.diagonal(blocks[0] if len(blocks) == 1 else blocks.sum(0)) == 0
        wide = (
            [t for t, tensor in enumerate(self.like) if tensor.dtype == torch.float64]
            if zero.any()
            else []
        )
        places, found = [], []
        for i in np.flatnonzero(zero).tolist() if wide else ():
            for t in wide:
                if (gradient := self.gradients[i][t]) is not None and gradient.numel():
                    places.append(i)
                    found.append(gradient.T @ self.inputs[t] if t in self.inputs else gradient)
        for i, size in zip(
            places, to_host((), torch._foreach_norm(found, torch.inf)) if found else (), strict=True
        ):
            zero[i] &= size == 0
        return np.asarray(zero.reshape(self.batches, -1).all(axis=0))

    def only(self, rows: Sequence[int]) -> "Objectives":
        """Those of these rows, with their part of the Gram matrix: nothing is formed again."""
        part = Objectives(
            [self.gradients[i] for i in rows], self.like, self.blocks, self.batches, self.inputs
        )
        part._single, part.scale = self._single, self.scale
        part._blocks = self._host()[:, rows][:, :, rows]
        return part

    def not_finite(self) -> list[int]:
        """The gradients that hold a NaN or an infinity, or whose square overflows float64."""
        if self._rows is not None:  # nobody asked for a Gram matrix
            odd = ~torch.isfinite(
                self._rows.sum(1)
            )  # a sum is the cheapest read that they survive; it may overflow by itself
            return (
                [
                    i
                    for i in odd.nonzero()[:, 0].tolist()
                    if not bool(torch.isfinite(self._rows[i]).all())
                ]
                if bool(odd.any())
                else []
            )
        return [int(i) for i in np.flatnonzero(~np.isfinite(np.diagonal(self.gram)))]

    def take_rows(self, rows: Tensor) -> None:
        """Use this [n, d] tensor as `rows`: the gradients are views of it."""
        self._rows = rows

    @property
    def eps(self) -> float:
        """The accuracy of the Gram's entries relative to nᵢnⱼ: 1e-15, or 1e-6 where part of the sums was made in float32."""
        self._host()
        return 1e-6 if self._single else 1e-15

    @property
    def rows(self) -> Tensor:
        """J [n, d] on the gradients' device, a copy unless they lie in one tensor: only for coordinate-wise methods."""
        if self._rows is not None:
            return self._rows
        dtype = self.like[0].dtype
        for tensor in self.like[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
        if self.scale != 1:
            dtype = torch.promote_types(dtype, torch.float32)
        device = self.like[0].device
        rows = torch.zeros(self.count, sum(self.splits), dtype=dtype, device=device)
        for i, row in enumerate(self.gradients):
            for t, (piece, gradient) in enumerate(
                zip(torch.split(rows[i], self.splits), row, strict=True)
            ):
                if gradient is not None:
                    piece.copy_(
                        (gradient.T @ self.inputs[t] if t in self.inputs else gradient).reshape(-1)
                    )
        return rows if self.scale == 1 else rows.div_(self.scale)

    def combine(self, weights: Array, reuse: bool = False) -> list[Tensor | None]:
        """d = Jᵀw tensor by tensor, in tensors of each parameter's dtype that nobody else has; None where no objective reaches one.

        Args:
            weights: [n], or [k, n] with one row per tensor, or [m, n] with one row per batch.
            reuse: whether d may be formed in the memory of a gradient, where nobody else holds it. The gradients are then gone.
        """
        if self.batches > 1:
            weights = np.reshape(weights, self.count)
        rows = weights.tolist() if weights.ndim > 1 else [weights.tolist()] * len(self.like)
        precise = self._cancels(weights)
        out: list[Tensor | None] = [None] * len(self.like)
        plain = (
            not precise
            and weights.ndim == 1
            and all(w == 0 or IN_RANGE[0] < abs(w) < IN_RANGE[1] for w in weights.tolist())
        )
        together = self._alike() if plain else []
        for run in together:
            first = self._first(run[0], rows[0])
            own = (
                [exclusive(self.gradients[first], t, self.like[t]) for t in run]
                if reuse and first is not None
                else [None]
            )
            terms = [[row[t] for t in run] for row in self.gradients]
            mine = [g for g in own if g is not None]
            for t, found in zip(run, _combine_run(terms, rows[0], mine), strict=True):
                out[t] = found if len(mine) == len(run) else _laid_out(found, self.like[t])
        for t in sorted({*range(len(self.like))}.difference(*together)):
            tensor, given = self.like[t], rows[t]
            first = self._first(t, given)
            into = None
            if reuse and first is not None and t not in self.inputs and t not in self.sparse:
                into = exclusive(self.gradients[first], t, tensor)
            column = [row[t] for row in self.gradients]
            if t in self.sparse:
                out[t] = combine_sparse(column, given)
            elif t in self.inputs:
                out[t] = combine_tapped(column, given, tensor, self.inputs[t], precise)
            else:
                out[t] = _combine(column, given, tensor, precise, into)
        if reuse:
            self.gradients = [[None] * len(row) for row in self.gradients]
        return out

    def _first(self, t: int, weights: Sequence[float]) -> int | None:
        """The first objective that has a part in tensor t."""
        return next(
            (
                i
                for i, weight in enumerate(weights)
                if weight != 0 and self.gradients[i][t] is not None
            ),
            None,
        )

    def _alike(self) -> list[list[int]]:
        """Small tensors that the same objectives reach, some of them each, in runs of one dtype that needs no wider one."""
        return [
            run
            for run in self._runs
            if len(run) > 1
            and self.like[run[0]].dtype in (torch.float32, torch.float64)
            and any(row[run[0]] is not None for row in self.gradients)
        ]

    @cached_property
    def _runs(self) -> list[list[int]]:
        """The tensors that are handled together: large and tapped ones alone, small ones that the same objectives reach in runs."""
        runs: list[list[int]] = []
        begun: dict[tuple[object, ...], tuple[list[int], int]] = {}
        for t, tensor in enumerate(self.like):
            count = tensor.numel()
            if count > ALONE or t in self.inputs or t in self.sparse:
                runs.append([t])
                continue
            key = (tensor.dtype, tensor.device, *[row[t] is None for row in self.gradients])
            run, size = begun.get(key, ([], 0))
            if not run or size + count > RUN:
                run, size = [], 0
                runs.append(run)
            run.append(t)
            begun[key] = run, size + count
        return runs

    def _cancels(self, weights: Array) -> bool:
        """Whether d is much shorter than its terms, so that single precision would leave little of what it promises."""
        if (
            self._blocks is None
            or self.count == 1
            or all(t.dtype == torch.float64 for t in self.like)
        ):
            return False
        grams = self._blocks
        if weights.ndim == 1 and len(grams) == 1:
            with np.errstate(over="ignore", invalid="ignore"):
                return bool(weights @ grams[0] @ weights < (self.bound(weights) / CANCELLING) ** 2)
        table = np.broadcast_to(weights, (len(self.like), self.count))
        used = table if len(grams) == len(table) else table[:1]
        length = np.einsum("ki,kij,kj->", used, grams, used) if len(used) == len(grams) else 0.0
        return bool(length < (self.bound(np.abs(table).max(0)) / CANCELLING) ** 2)

    def split(self, direction: Tensor) -> list[Tensor | None]:
        """A direction [d] cut into new tensors shaped like the parameters."""
        pieces = torch.split(direction if self.scale == 1 else direction * self.scale, self.splits)
        return [
            torch.empty_like(t).copy_(p.reshape(t.shape))
            for p, t in zip(pieces, self.like, strict=True)
        ]

    def start(self) -> None:
        """Form the Gram matrices on the gradients' devices, without waiting for them."""
        if self._pending is None and self._blocks is None:
            small = not (self.blocks or self.formed or self.inputs) and sum(self.splits) <= RUN
            small = small and not self.sparse
            if (
                self.count == 1
                and small
                and len(self._runs) == 1
                and self.like[0].device.type != "mps"
            ):
                found = [g for g in self.gradients[0] if g is not None]
                flat = (
                    _flat(found).double() if found else torch.zeros(1, dtype=torch.float64)
                )  # a head: one small square
                self._pending = [(0, torch.dot(flat, flat))]
                return
            dtype = torch.float32 if self._single else torch.float64
            plain = [[t] for t in range(len(self.like))] if self.blocks else self._runs
            apart = {*self.inputs, *self.sparse}
            plain = [run for run in plain if run[0] not in apart] if apart else plain
            self._pending = (
                _products(self.gradients, self.like, plain, self.blocks, dtype) if plain else []
            )
            for t, inputs in self.inputs.items():
                product, self._lost[t] = gram_tapped(
                    [row[t] for row in self.gradients], inputs, dtype
                )
                self._pending.append((t if self.blocks else 0, product))
            for t in self.sparse:
                if any(row[t] is not None for row in self.gradients):
                    product = gram_sparse([row[t] for row in self.gradients])
                    self._pending.append((t if self.blocks else 0, product))
            self._pending += [(0, product) for product, _ in self.formed]

    def _may_be_single(self) -> bool:
        """Whether float32 sums are worth trying: many entries on the CPU, none in float64, and products that are not rounded to fewer bits."""
        used = [g for row in self.gradients for g in row if g is not None]
        many = bool(self.inputs) or sum(g.numel() for g in used) >= LARGE
        return (
            many
            and all(g.device.type == "cpu" and g.dtype != torch.float64 for g in used)
            and products_are_whole()
        )

    def _has_lost(self, blocks: Array) -> bool:
        """Whether the gradients of some layer are so much shorter than ‖x‖‖Δᵢ‖ that its products, made in float32, have lost too much."""
        total = np.diagonal(blocks.sum(0)) if self._lost else 0.0
        return any(
            bool((bound.cpu().numpy() > LOST * total).any()) for bound in self._lost.values()
        )

    def _again(self) -> bool:
        """Whether the sums made in float32 are not good enough here; then the Gram is forgotten."""
        if not self._single or self._blocks is None:
            return False
        blocks = self._blocks
        squares = np.diagonal(blocks, axis1=1, axis2=2)
        if self.blocks:
            squares = squares[
                np.array(
                    [[row[t] is not None for row in self.gradients] for t in range(len(self.like))]
                )
            ]
        if (
            squares.size
            and squares.min() > SQUARES[0]
            and squares.max() < SQUARES[1]
            and not self._has_lost(blocks)
        ):
            gram = blocks[0] if len(blocks) == 1 else blocks.sum(0)
            shrunk = 1 / np.sqrt(np.diagonal(gram))
            # by Gershgorin's circles, and where they do not tell, exactly
            if (
                self.count == 1
                or (np.abs(gram) @ shrunk * shrunk).max() < 2 - INDEPENDENT
                or _least(gram * shrunk * shrunk[:, None]) > INDEPENDENT
            ):
                return False
        self._single, self._blocks = False, None
        return True

    def _host(self) -> Array:
        if self._blocks is None:
            to_host([self])
        assert self._blocks is not None
        return self._blocks


@contextlib.contextmanager
def without_autocast(device: torch.device) -> Iterator[None]:
    """Within a user's autocast region our own products would be rounded to half precision."""
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device.type}:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@torch.no_grad()
def to_host(groups: Iterable[Objectives], values: Sequence[Tensor] = ()) -> list[float]:
    """Move the Gram matrices of all groups, and some scalars, to the host: one transfer per device."""
    groups = list(groups)
    if not groups and len({(value.device, value.dtype) for value in values}) == 1:
        return [
            float(number)
            for number in torch.stack(
                [value if value.ndim == 0 else value.reshape(()) for value in values]
            ).tolist()
        ]
    for group in groups:
        group.start()
    parcels: dict[torch.device, list[Tensor]] = {}
    for group in groups:
        for _, product in group._pending or ():
            parcels.setdefault(product.device, []).append(product.reshape(-1))
    alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, value in enumerate(values):
        alike.setdefault((value.device, value.dtype), []).append(i)
    for (device, _), places in alike.items():
        parcels.setdefault(device, []).append(
            _widen(
                torch.stack(
                    [values[i] if values[i].ndim == 0 else values[i].reshape(()) for i in places]
                )
            )
        )
    arrived = {device: iter(_unpack(parts)) for device, parts in parcels.items()}
    for group in groups:
        if group._pending is not None:
            n = group.count
            blocks = np.zeros((len(group.like) if group.blocks else 1, n, n))
            within: list[list[int] | None] = [
                *[None] * (len(group._pending) - len(group.formed)),
                *(list(index) for _, index in group.formed),
            ]
            for (t, product), index in zip(group._pending, within, strict=True):
                block = next(arrived[product.device]).reshape(
                    product.shape if product.ndim == 2 else (n, n)
                )
                blocks[t] += block if index is None else block[index][:, index]
            group._blocks, group._pending = blocks, None
    if again := [group for group in groups if group._again()]:
        to_host(again)
    numbers = [0.0] * len(values)
    for (device, _), places in alike.items():
        for i, number in zip(places, next(arrived[device]).tolist(), strict=True):
            numbers[i] = number
    return numbers


def _least(matrix: Array) -> float:
    return float(np.linalg.eigvalsh(matrix)[0])


def products_are_whole() -> bool:
    """Whether the CPU multiplies float32 matrices in float32, and not in the fewer bits that a user may have allowed."""
    found = getattr(
        getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision", None
    )  # torch >= 2.9; the older question fails beside it
    return (
        found in ("none", "ieee")
        if found is not None
        else torch.get_float32_matmul_precision() == "highest"
    )


def _unpack(parts: list[Tensor]) -> list[Array]:
    flat = (
        torch.cat(
            [p if p.dtype == torch.float64 or p.device.type != "cpu" else p.double() for p in parts]
        )
        .cpu()
        .double()
        .numpy()
    )
    ends = list(itertools.accumulate(p.numel() for p in parts))
    return [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _widen(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float32 if tensor.device.type == "mps" else torch.float64)


@torch.no_grad()
def grams_by_tensor(
    gradients: list[list[Tensor | None]],
    like: list[Tensor],
    sparse: frozenset[int] = frozenset(),
) -> list[Tensor]:
    """The Gram matrix [n, n] of the gradients for each tensor, summed in float64, on their device.

    `sparse` are the positions of tensors whose gradients are sparse.
    """
    dense = [[t] for t in range(len(like)) if t not in sparse]
    products = dict(_products(gradients, like, dense, True, torch.float64)) if dense else {}
    products |= {t: gram_sparse([row[t] for row in gradients]) for t in sparse}
    return [
        products[t]
        if t in products
        else torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
        for t in range(len(like))
    ]


@torch.no_grad()
def _products(
    gradients: list[list[Tensor | None]],
    like: list[Tensor],
    runs: list[list[int]],
    blocks: bool,
    dtype: torch.dtype,
) -> list[tuple[int, Tensor]]:
    """(block, G [n, n] float64) per block and device, of the tensors in `runs`; dtype is that of the first sums."""
    n = len(gradients)
    sums: dict[tuple[int, torch.device], Tensor] = {}
    buffers: dict[torch.device, Tensor] = {}
    filled: dict[torch.device, int] = {}

    def flush(block: int, device: torch.device) -> None:
        used = buffers[device][:, : filled[device]]
        product = used @ used.T if dtype == torch.float64 else in_pieces(used, used)
        sums[block, device] = sums[block, device] + product if (block, device) in sums else product
        filled[device] = 0

    lengths = [sum([like[t].numel() for t in run]) for run in runs]
    largest = max(lengths) if blocks else sum(lengths)
    for run, length in zip(runs, lengths, strict=True):
        rows = [None if row[run[0]] is None else _flat([row[t] for t in run]) for row in gradients]
        device = next((row.device for row in rows if row is not None), like[run[0]].device)
        device = CPU if device.type == "mps" else device
        if device not in buffers:
            width = max(1024, BUFFER.get(device.type, BUFFER["other"]) // n)
            buffers[device] = torch.empty(
                n, min(width, max(largest, 1)), dtype=dtype, device=device
            )
            filled[device] = 0
        buffer, done, block = buffers[device], 0, run[0] if blocks else 0
        while done < length:
            start = filled[device]
            size = min(buffer.shape[1] - start, length - done)
            for i, row in enumerate(rows):
                target = buffer[i, start : start + size]
                if row is None:
                    target.zero_()
                else:
                    target.copy_(row[done : done + size])
            done, filled[device] = done + size, start + size
            if filled[device] == buffer.shape[1]:
                flush(block, device)
        if blocks and filled[device]:
            flush(block, device)
    for device, used in filled.items():
        if used:
            flush(0, device)
    return [(block, product) for (block, _), product in sums.items()]


def _flat(gradients: Sequence[Tensor | None]) -> Tensor:
    """One vector of several gradients, all of them there."""
    found = [g for g in gradients if g is not None]
    return found[0].reshape(-1) if len(found) == 1 else _flatten(found)


@torch.no_grad()
def _combine_run(
    rows: list[list[Tensor | None]], weights: list[float], own: list[Tensor]
) -> list[Tensor]:
    """`_combine` for tensors of one dtype that the same objectives reach, in one call into torch per objective; `own` are all to write to, or some."""
    terms = [
        (w, [g for g in row if g is not None])
        for w, row in zip(weights, rows, strict=True)
        if row[0] is not None
    ]
    used = [(w, row) for w, row in terms if w != 0]
    if not used:
        return [torch.zeros_like(g) for g in terms[0][1]]
    first, out = used[0]
    if len(own) < len(out):
        out = list(torch._foreach_mul(out, first))
    else:
        out = own
        if first != 1:
            torch._foreach_mul_(out, first)
    for weight, row in used[1:]:
        torch._foreach_add_(out, row, alpha=weight)
    return out


@torch.no_grad()
def _combine(
    column: list[Tensor | None],
    weights: list[float],
    like: Tensor,
    precise: bool,
    into: Tensor | None,
) -> Tensor | None:
    """Σ wᵢgᵢ for one tensor; `into` is the first gradient with a weight, if that may be written to."""
    terms = [(w, g) for w, g in zip(weights, column, strict=True) if g is not None]
    if not terms:
        return None
    terms = [(w, g) for w, g in terms if w != 0]
    if not terms:
        return torch.zeros_like(like)
    wide = torch.float32 if like.dtype in (torch.float16, torch.bfloat16) else like.dtype
    if wide == torch.float32 and not all(IN_RANGE[0] < abs(w) < IN_RANGE[1] for w, _ in terms):
        wide = torch.float64
    if precise and wide == torch.float32 and like.device.type != "mps":
        return _combine_precisely(terms, like)
    first, gradient = terms[0]
    if into is not None and into.dtype == wide:
        out = into if first == 1 else into.mul_(first)
    else:
        out = gradient.to(wide) * first if gradient.dtype != wide else torch.mul(gradient, first)
    for weight, gradient in terms[1:]:
        out.add_(gradient.to(wide), alpha=weight)
    return _laid_out(out.to(like.dtype), like)


def _laid_out(direction: Tensor, like: Tensor) -> Tensor:
    """The same numbers in the parameter's layout, as torch writes them into `.grad`."""
    if direction.stride() == like.stride():
        return direction
    return torch.empty_like(like).copy_(direction)


def _combine_precisely(terms: list[tuple[float, Tensor]], like: Tensor) -> Tensor:
    """Σ wᵢgᵢ summed in float64 and rounded once, piece by piece."""
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    flat, pieces = out.view(-1), [gradient.reshape(-1) for _, gradient in terms]
    step = min(PIECE.get(like.device.type, PIECE["other"]), max(like.numel(), 1))
    for start in range(0, like.numel(), step):
        total = torch.mul(pieces[0][start : start + step].double(), terms[0][0])
        for (weight, _), piece in zip(terms[1:], pieces[1:], strict=True):
            total.add_(piece[start : start + step].double(), alpha=weight)
        flat[start : start + step] = total
    return out if like.is_contiguous() else torch.empty_like(like).copy_(out)
