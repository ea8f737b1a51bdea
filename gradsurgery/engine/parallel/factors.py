"""Factors on their way: the inputs x of tapped layers once, and the Δᵢ of each pass beside it.

Then every rank has the factors of the joined batch: Δᵢ [W·rows, out] and x [W·rows, in]. It forms
the direction from the same bits as the others, and of the Gram matrix what its own rows give. A
rank with fewer rows than another sends zeros for the rest, which add nothing.
"""

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsurgery.engine.communicator import Gradients
from gradsurgery.engine.parallel.layout import Parcel
from gradsurgery.engine.parallel.wire import Wait, Wire
from gradsurgery.gradients.factored import Layer, Tap
from gradsurgery.gradients.precision import in_pieces
from gradsurgery.gradients.rules.linear import Linear

Key = tuple[torch.dtype, torch.device]
Place = tuple[int, str]  # loss and parameter
Size = tuple[int, int]  # rows of a rank, and their width


@dataclass(frozen=True, eq=False)
class Joined(Layer):
    """A linear layer with the inputs x of all ranks; `own` are the rows of this one."""

    linear: Linear
    own: slice

    def rows(self, delta: Tensor) -> Tensor:
        return delta

    def inner(self, dtype: torch.dtype) -> Tensor:
        return self.linear.inner(dtype)

    def project(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        return self.linear.project(vector)

    def gradient(self, delta: Tensor) -> Tensor:
        return self.linear.gradient(delta)

    @torch.no_grad()
    def gram(self, deltas: Sequence[Tensor | None], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """What this rank's rows give of both; summed over the ranks they are those of all rows."""
        some = next(delta for delta in deltas if delta is not None)
        zero = torch.zeros_like(some)
        stacked = torch.stack([zero if d is None else d for d in deltas]).to(dtype)
        x = self.linear.inputs.to(dtype)
        mine = stacked[:, self.own]
        images = torch.matmul(x[self.own] @ x.T, stacked)  # [n, rows, out]
        product = in_pieces(images.flatten(1), mine.flatten(1))
        lost = x.square().sum() * mine.square().sum((1, 2))
        return (product + product.T) / 2, lost.double()


class Factors:
    """The factors of some weights on their way to all ranks.

    Args:
        wire: the ranks.
        rows: name -> the most rows of a rank.
        tensors: the weights.
        taps: this rank's layers, where the passes find them. One that cannot be tapped after all
            is taken out by the pass. In the end `finish` puts those of the joined batch there.
    """

    def __init__(
        self,
        wire: Wire,
        rows: Mapping[str, int],
        tensors: Mapping[str, Tensor],
        taps: MutableMapping[str, Tap],
    ) -> None:
        self.rows, self.taps = rows, taps
        self._wire, self._tensors, self._own = wire, tensors, dict(taps)
        self._inputs: list[tuple[list[str], list[Size], Wait]] = []
        self._sums: dict[Key, Tensor] = {}
        self._deltas: dict[Place, Tensor] = {}
        self._formed: dict[Place, Tensor] = {}

    def start(self) -> None:
        """Send the inputs."""
        kinds: dict[Key, list[str]] = {}
        for name in self.rows:
            tensor = self._tensors[name]
            kinds.setdefault((tensor.dtype, tensor.device), []).append(name)
        for key, names in kinds.items():
            sizes = [(self.rows[name], self._tensors[name].shape[1]) for name in names]
            found = [_inputs(self._own[n]) if n in self._own else None for n in names]
            message = _padded(found, sizes, key)
            self._sums[key] = message.sum(dtype=torch.float32)
            self._inputs.append((names, sizes, self._wire.gather_later(message)))

    @property
    def odd(self) -> Collection[str]:
        """The weights that this rank cannot tap after all."""
        return self._own.keys() - self.taps.keys()

    def message(self, parcel: Parcel, gradients: Gradients) -> tuple[Tensor, Tensor] | None:
        """The Δᵢ that go with a parcel, and the sum of the inputs beside them; None for none."""
        places = _places(parcel)
        if not places:
            return None
        found = []
        for loss, name in places:
            given = gradients.get(loss, {}).get(name)
            found.append(given if name in self.taps else None)
        key = parcel.dtype, parcel.device
        return _padded(found, self._sizes(places), key), self._sums[key]

    def nothing(self, parcel: Parcel) -> Tensor | None:
        """What a rank sends that cannot go on."""
        places = _places(parcel)
        if not places:
            return None
        return _padded([None] * len(places), self._sizes(places), (parcel.dtype, parcel.device))

    def keep_formed(self, gradients: Gradients) -> None:
        """Note the gradients that autograd formed of weights which cannot be tapped."""
        for loss, found in gradients.items():
            for name in self.odd & found.keys():
                self._formed[loss, name] = found[name]

    def arrive(self, parcel: Parcel, rows: Tensor) -> None:
        """Take the Δᵢ of all ranks."""
        places = _places(parcel)
        self._deltas.update(zip(places, _parted(rows, self._sizes(places)), strict=True))

    def joined(self, loss: int, name: str) -> Tensor:
        """Δᵢ of the joined batch."""
        return self._deltas[loss, name]

    def formed(self, loss: int, name: str) -> Tensor | None:
        """The weight's gradient on this rank, formed after all."""
        if (loss, name) in self._formed or name not in self._own:
            return self._formed.get((loss, name))
        layer = self._own[name].layer
        mine = self._deltas[loss, name][self._place(name)]
        return layer.gradient(mine[: len(_inputs(self._own[name]))])

    def finish(self, gone: Collection[str]) -> None:
        """Put the layers of the joined batch in place of this rank's; those in `gone` go."""
        for name in gone:
            if (tap := self.taps.pop(name, None)) is not None:
                tap.proved[name] = False
        for names, sizes, wait in self._inputs:
            for name, x in zip(names, _parted(wait(), sizes), strict=True):
                if name not in gone:
                    self.taps[name] = Tap(None, Joined(Linear(x), self._place(name)), None)

    def _place(self, name: str) -> slice:
        rows, rank = self.rows[name], self._wire.rank
        return slice(rank * rows, (rank + 1) * rows)

    def _sizes(self, places: Sequence[Place]) -> list[Size]:
        return [(self.rows[name], self._tensors[name].shape[0]) for _, name in places]


def _inputs(tap: Tap) -> Tensor:
    assert isinstance(tap.layer, Linear)
    return tap.layer.inputs


def _places(parcel: Parcel) -> list[Place]:
    tapped = set(parcel.tapped)
    return [(loss, name) for loss, name in parcel.entries if name in tapped]


def _padded(found: Sequence[Tensor | None], sizes: Sequence[Size], key: Key) -> Tensor:
    """Matrices in one vector, each with zeros up to its size; None is all zeros."""
    dtype, device = key
    lengths = [rows * width for rows, width in sizes]
    out = torch.zeros(sum(lengths), dtype=dtype, device=device)
    for piece, own in zip(torch.split(out, lengths), found, strict=True):
        if own is not None:
            piece[: own.numel()].view(own.shape).copy_(own)
    return out


def _parted(rows: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """The matrices [W · rows, width] of all ranks, from their vectors [W, s]."""
    pieces = torch.split(rows, [count * width for count, width in sizes], 1)
    return [
        piece.reshape(-1, width).contiguous()
        for piece, (_, width) in zip(pieces, sizes, strict=True)
    ]
