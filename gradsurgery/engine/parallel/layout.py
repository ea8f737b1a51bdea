"""How gradients travel: each tensor is cut into as many pieces of one length as there are ranks.

A rank's share of a tensor is then a vector, 1/W of it, filled up with zeros at the end. All ranks
hold as many numbers of each tensor, so that everything that follows from sizes is the same.
"""

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from gradsurgery.engine.communicator import Gradients, Wanted
from gradsurgery.errors import InputError
from gradsurgery.gradients.coordinates import called, gradient_dtype

FAILED, ODD = (
    1,
    2,
)  # what a rank says beside its gradients: the pass raised; it gave NaN or infinity


class Parcel:
    """What is sent at once: gradients of one dtype, none of them of the same tensor.

    Row r, which goes to rank r, begins with one number per rank, what each says of its gradients,
    one per gradient, which counts the ranks that have it, and one per tapped weight, which counts
    those that cannot tap it after all.
    """

    def __init__(self, world: int, dtype: torch.dtype, device: torch.device) -> None:
        self.world, self.dtype, self.device = world, dtype, device
        self.entries: list[tuple[int, str]] = []  # loss and parameter
        self.tensors: list[Tensor] = []
        self.lengths: list[int] = []
        self.local: set[str] = set()
        self.tapped: list[str] = []
        self.apart: set[str] = set()  # the names in either

    def add(self, loss: int, name: str, tensor: Tensor, local: bool, tapped: bool = False) -> None:
        """One more gradient; of one that is local, or has factors, only whether it is there."""
        self.entries.append((loss, name))
        self.tensors.append(tensor)
        self.lengths.append(0 if local or tapped else length_of(tensor, self.world))
        if local:
            self.local.add(name)
        if tapped:
            self.tapped.append(name)
        if local or tapped:
            self.apart.add(name)

    @property
    def losses(self) -> list[int]:
        """The losses whose gradients are in it."""
        return list(dict.fromkeys(loss for loss, _ in self.entries))

    @property
    def head(self) -> int:
        """How many numbers come before the gradients."""
        return self.world + len(self.entries) + len(self.tapped)

    def pack(
        self,
        gradients: Gradients,
        rank: int,
        odd: Collection[str] = (),
        beside: Sequence[Tensor] = (),
    ) -> Tensor:
        """The rows [world, s] of a pass, with this rank's word on them.

        Args:
            gradients: what the pass gave.
            rank: this one.
            odd: the tapped weights that it cannot tap after all.
            beside: what is sent beside them, for the word whether all is finite.

        Raises:
            InputError: for sparse gradients.
        """
        world, count = self.world, len(self.entries)
        head = torch.zeros(world, self.head, dtype=self.dtype, device=self.device)
        pieces = [head]
        for k, (loss, name) in enumerate(self.entries):
            gradient = gradients.get(loss, {}).get(name)
            if gradient is None and name not in self.apart:
                pieces.append(head.new_zeros(world, self.lengths[k]))
            if gradient is None:
                continue
            head[:, world + k] = 1
            if name not in self.apart:
                pieces.append(self._rows(gradient, name, k))
        for j, name in enumerate(self.tapped):
            head[:, world + count + j] = name in odd
        rows = torch.cat(pieces, 1)
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        sums = [each.sum(dtype=wide) for each in (rows, *beside)]
        rows[:, rank] = torch.isfinite(sum(sums[1:], sums[0])).logical_not() * ODD
        return rows

    def nothing(self, rank: int) -> Tensor:
        """The rows of a rank whose pass failed."""
        rows = torch.zeros(
            self.world, self.head + sum(self.lengths), dtype=self.dtype, device=self.device
        )
        rows[:, rank] = FAILED
        return rows

    def unpack(self, share: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The words of all ranks and the counts, and this rank's share of each gradient."""
        pieces = torch.split(share[self.head :], self.lengths)
        return share[: self.head], [
            _as_complex(piece) if tensor.is_complex() else piece
            for piece, tensor in zip(pieces, self.tensors, strict=True)
        ]

    def _rows(self, gradient: Tensor, name: str, k: int) -> Tensor:
        if gradient.layout != torch.strided:
            raise InputError(
                f"the gradient of {called(name, self.tensors[k])} is sparse, which is not sent "
                "between ranks: make it dense with sparse=False."
            )
        return cut(gradient.to(gradient_dtype(self.tensors[k])), self.world)


def parcels_of(
    wanted: Sequence[Wanted], local: Collection[str], world: int, tapped: Collection[str] = ()
) -> Iterator[list[Parcel]]:
    """Per pass what it sends; the gradients of tensors in `local` stay where they are.

    Of those in `tapped` the factors are sent.
    """
    for losses in wanted:
        found: list[Parcel] = []
        open_now: dict[tuple[torch.dtype, torch.device], Parcel] = {}
        taken: set[str] = set()
        for loss, tensors in losses.items():
            if not taken.isdisjoint(tensors):  # all losses in one pass: one parcel for each
                open_now, taken = {}, set()
            taken |= tensors.keys()
            for name, tensor in tensors.items():
                apart = name in local or name in tapped
                dtype = (tensor.dtype if apart else gradient_dtype(tensor)).to_real()
                if dtype.itemsize == 1:
                    raise InputError(
                        f"{called(name, tensor)} has gradients in {dtype}, of which ranks cannot "
                        "send sums: keep it in a wider dtype, and convert it in forward."
                    )
                key = dtype, tensor.device
                if key not in open_now:
                    open_now[key] = Parcel(world, *key)
                    found.append(open_now[key])
                open_now[key].add(loss, name, tensor, name in local, name in tapped)
        yield found


def length_of(tensor: Tensor, world: int) -> int:
    """How many real numbers of a tensor each of `world` ranks holds."""
    return -(-tensor.numel() // world) * (2 if tensor.is_complex() else 1)


def cut(tensor: Tensor, world: int) -> Tensor:
    """A tensor as rows of real numbers [world, s], one per rank."""
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat.resolve_conj().resolve_neg())
    if missing := -len(flat) % world:
        flat = torch.cat([flat, flat.new_zeros(missing, *flat.shape[1:])])
    return flat.reshape(world, -1)


def part_of(tensor: Tensor, world: int, rank: int) -> Tensor:
    """A rank's share of a tensor, as `Parcel.unpack` gives those of its gradients."""
    numbers = cut(tensor, world)[rank]
    return _as_complex(numbers) if tensor.is_complex() else numbers


def joined(rows: Tensor, like: Tensor) -> Tensor:
    """The tensor [like.shape] of which `rows` [world, s] are the shares, in its own memory."""
    out = torch.empty_like(like, dtype=gradient_dtype(like))
    if rows.numel() == out.numel() and out.is_contiguous():
        out.view(rows.shape).copy_(rows)
        return out
    flat = rows.reshape(-1)
    if like.is_complex():
        flat = _as_complex(flat)
    return out.copy_(flat[: like.numel()].view(like.shape))


def _as_complex(numbers: Tensor) -> Tensor:
    """Pairs of real numbers as complex ones, which torch takes from an even place on only."""
    if numbers.storage_offset() % 2:
        numbers = numbers.clone()
    return torch.view_as_complex(numbers.view(-1, 2))


def share_like(tensor: Tensor, world: int) -> Tensor:
    """A tensor of a share's length, dtype and device, whose entries mean nothing."""
    length = -(-tensor.numel() // world)
    if gradient_dtype(tensor) == tensor.dtype and tensor.is_contiguous():
        return tensor.detach().reshape(-1)[:length]
    return torch.empty(length, dtype=gradient_dtype(tensor), device=tensor.device)
