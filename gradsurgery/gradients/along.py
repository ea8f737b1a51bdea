"""How far a step goes along each gradient, Ju, and products in a diagonal metric, JPJᵀ."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsurgery.gradients.blocks import Block, Factored, gradient_of
from gradsurgery.gradients.combine import IN_RANGE, PIECE, directions
from gradsurgery.gradients.gram import one_vector
from gradsurgery.gradients.per_example.block import Mixed
from gradsurgery.types import Array

# Float32 sums tell the sign of a product that is at least this part of ‖gᵢ‖‖u‖: on 8 million
# entries they were wrong by 1e-8, and in the worst case, terms of one sign, by about 1e-5.
DOUBTFUL = 1e-4
# Where a number's exponent is: alone it is the largest power of two that is not above the number.
EXPONENT = {
    torch.float32: (torch.int32, 0x7F80_0000),
    torch.float64: (torch.int64, 0x7FF0_0000_0000_0000),
}
Ends = Callable[[int], tuple[Tensor, Tensor] | None]  # tensor t -> after the step and before
# Entries of the work buffer: u is made and read piece by piece, within a cache.
BUFFER = {"cpu": 1 << 18, "other": 1 << 24}


@dataclass(eq=False)
class Along:
    """⟨gᵢ, u⟩ of n gradients and ‖u‖², on their way to the host (`transfer.to_host`).

    Args:
        blocks: the gradients, tensor by tensor.
        runs: which tensors are handled together.
        ends: each tensor after the step and before it, when it is asked for; None without a step.
        norms: ‖gᵢ‖ [n], of whole gradients.
        portions: what the products of each tensor count, where processes have parts of them.
        precise: sum in float64 from the start.

    Attributes:
        products: ⟨gᵢ, u⟩ [n], once they have arrived.
        square: ‖u‖².
        rounding: what rounding can add to the products [n], once that was asked for.
    """

    blocks: Sequence[Block]
    runs: Sequence[Sequence[int]]
    ends: Ends
    norms: Array
    portions: Sequence[float]
    precise: bool = False
    rounding: Array | None = None

    def start(self) -> list[Tensor]:
        """The sums per device [n + 1], ‖u‖² last."""
        with torch.no_grad():
            sums: dict[torch.device, Tensor] = {}
            for run in self.runs:
                for portion in dict.fromkeys(self.portions[t] for t in run):
                    found = self._products([t for t in run if self.portions[t] == portion])
                    if found is None:
                        continue
                    if portion != 1:
                        found *= portion
                    known = sums.get(found.device)
                    sums[found.device] = found if known is None else known.add_(found)
            return list(sums.values())

    def arrive(self, found: list[Array]) -> bool:
        """Take them; False where a sum in float32 is too near to zero to be believed."""
        total = sum(found, torch.zeros(len(self.norms) + 1).double().numpy())
        self.products, self.square = total[:-1], float(total[-1])
        if self.precise:
            return True
        with np.errstate(invalid="ignore"):  # of a zero gradient, where ‖u‖² left float32's range
            sizes = self.norms * self.size
        near = (abs(self.products) <= DOUBTFUL * sizes).any()
        # terms may have left the range of float32, which a size of one of them shows
        inside = [IN_RANGE[0] < x < IN_RANGE[1] for x in (self.square, *sizes[self.norms > 0])]
        self.precise = bool(near) or not all(inside)
        return not self.precise

    @property
    def size(self) -> float:
        """‖u‖."""
        return float(self.square**0.5)

    def _products(self, run: Sequence[int]) -> Tensor | None:
        """⟨gᵢ, u⟩ of some tensors [n], and ‖u‖², in float64; None where none of them moves."""
        moving = [(self.blocks[t], ends) for t in run if (ends := self.ends(t)) is not None]
        if not moving:
            return None
        block, (now, old) = moving[0]
        wide = _widest(now) if self.precise else torch.promote_types(now.dtype, torch.float32)
        n = len(block.gradients)
        if type(block) is Factored:
            step = now.to(wide) - old.to(wide)
            image = block.layer.image(step)
            if image is not None:  # ⟨Δᵢᵀx, U⟩ = ⟨Δᵢ, xUᵀ⟩: no gradient is formed
                along, flat = image.reshape(-1), step.reshape(-1)
                zero = along.new_zeros(())
                found = [
                    zero if g is None else _dot(g.reshape(-1), along, wide) for g in block.gradients
                ]
                return _host_wide(torch.stack([*found, torch.dot(flat, flat)]))
        if type(block) is Mixed:
            step = now.to(wide) - old.to(wide)
            products = block.along(step)
            if products is not None:
                flat = step.reshape(-1)
                return torch.cat([_host_wide(products), _host_wide(torch.dot(flat, flat))[None]])
        rows = [one_vector([_flat(own, i) for own, _ in moving]) for i in range(n)]
        after, before = (one_vector([pair[k] for _, pair in moving]) for k in (0, 1))
        assert after is not None
        assert before is not None
        return _by_pieces(rows, after, before, wide)


def _by_pieces(
    rows: Sequence[Tensor | None], now: Tensor, old: Tensor, wide: torch.dtype
) -> Tensor:
    """⟨gᵢ, u⟩ [n] and ‖u‖², where u = now − old is never held as a whole."""
    there = [row for row in rows if row is not None]
    size = min(BUFFER.get(now.device.type, BUFFER["other"]), max(now.numel(), 1))
    buffer = now.new_empty(size, dtype=wide)
    sums: list[Tensor] = []
    for after, before, *pieces in zip(
        *[torch.split(vector, size) for vector in (now, old, *there)], strict=True
    ):
        u = buffer[: len(after)]
        if after.dtype == before.dtype == wide:
            torch.sub(after, before, out=u)
        else:
            u.copy_(after).sub_(before)
        sums += [_dot(piece, u, wide) for piece in pieces]
        sums.append(torch.dot(u, u))
    total = torch.stack(sums).view(-1, len(there) + 1)
    total = _host_wide(total).sum(0)
    if len(there) == len(rows):
        return total
    whole = total.new_zeros(len(rows) + 1)
    whole[[*[i for i, row in enumerate(rows) if row is not None], len(rows)]] = total
    return whole


def _widest(tensor: Tensor) -> torch.dtype:
    """Float64, where the tensor's device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _host_wide(sums: Tensor) -> Tensor:
    """Sums in float64; on the host for a device without it."""
    return (sums.cpu() if sums.device.type == "mps" else sums).double()


def _dot(left: Tensor, right: Tensor, wide: torch.dtype) -> Tensor:
    """The product of two vectors, in a dtype that one of them need not have."""
    if left.dtype == right.dtype == wide:
        return torch.dot(left, right)
    size = PIECE.get(left.device.type, PIECE["other"])
    total = left.new_zeros((), dtype=wide)
    for one, other in zip(torch.split(left, size), torch.split(right, size), strict=True):
        total += torch.dot(one.to(wide), other.to(wide))
    return total


def _flat(block: Block, i: int) -> Tensor | None:
    """The gradient of objective i as a vector; a factored one is formed, a sparse one dense."""
    gradient = gradient_of(block, i)
    if gradient is None:
        return None
    if gradient.layout != torch.strided:
        gradient = gradient.to_dense()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient.resolve_conj())
    return gradient.reshape(-1)


@torch.no_grad()
def metric_products(block: Block, scale: Tensor | float, square: bool = True) -> Tensor:
    """JPJᵀ and JP²Jᵀ of one tensor [2, n, n], in float64.

    Args:
        block: its gradients.
        scale: the diagonal of P, a number where it is constant.
        square: whether the second is wanted: [1, n, n] without it.
    """
    rows = [_flat(block, i) for i in range(len(block.gradients))]
    first = next((row for row in rows if row is not None), None)
    if first is None or (isinstance(scale, float) and scale == 0):
        return torch.zeros(1 + square, len(rows), len(rows), dtype=torch.float64)
    out = torch.zeros(1 + square, len(rows), len(rows), dtype=_widest(first), device=first.device)
    size = PIECE.get(first.device.type, PIECE["other"])
    diagonal = scale.reshape(-1) if isinstance(scale, Tensor) else None
    for start in range(0, first.numel(), size):
        stop = min(start + size, first.numel())
        used = out.new_zeros(len(rows), stop - start)
        for row, target in zip(rows, used, strict=True):
            if row is not None:
                target.copy_(row[start:stop])
        scaled = used * (scale if diagonal is None else diagonal[start:stop].to(used.dtype))
        out[0] += scaled @ used.T
        if square:
            out[1] += scaled @ scaled.T
    return _host_wide(out)


@torch.no_grad()
def rounding(block: Block | None, parameter: Tensor) -> Tensor:
    """Σₖ |gᵢₖ| ulp(θₖ) [n] in float64: what the rounding of stored parameters can add to ⟨gᵢ, u⟩.

    Args:
        block: the gradients of one tensor. None gives Σₖ ulp(θₖ)² [1], of which the root times
            ‖gᵢ‖ is never less, and which reads no gradient.
        parameter: the tensor, in real numbers.
    """
    flat = parameter.reshape(-1)
    eps = torch.finfo(flat.dtype).eps
    flat = flat if flat.dtype == torch.float64 else flat.float()
    integer, exponent = EXPONENT[flat.dtype]
    rows = [] if block is None else [_flat(block, i) for i in range(len(block.gradients))]
    size = PIECE.get(flat.device.type, PIECE["other"])
    buffer = torch.empty(min(size, len(flat)), dtype=_widest(flat), device=flat.device)
    found = torch.zeros(len(rows) or 1, dtype=buffer.dtype, device=flat.device)
    for start in range(0, len(flat), size):
        piece = slice(start, start + size)
        ulp = (flat[piece].view(integer) & exponent).view(flat.dtype).to(buffer.dtype).mul_(eps)
        if block is None:
            found += torch.dot(ulp, ulp)
        for i, row in enumerate(rows):
            if row is not None:
                found[i] += torch.dot(buffer[: len(ulp)].copy_(row[piece]).abs_(), ulp)
    return _host_wide(found)


def correction(block: Block, weights: Array, scale: Tensor | float) -> Tensor | None:
    """P Σ λᵢgᵢ of one tensor, summed in float64 and rounded to its dtype; None where it is zero."""
    if isinstance(scale, float) and scale == 0:
        return None
    found = directions([block], [[0]], weights, True)[0]
    if found is None:
        return None
    if found.layout != torch.strided:
        found = found.to_dense()
    wide = found if found.dtype in (torch.float32, torch.float64) else found.float()
    return wide.mul_(scale)
