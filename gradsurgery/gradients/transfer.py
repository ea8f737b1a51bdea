"""All Gram matrices and loss values to the host, in one copy per device."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gradsurgery.types import Array


class OnDevice(Protocol):
    """What has numbers on its devices that the host waits for."""

    def start(self) -> list[Tensor]:
        """Form them, without waiting: tensors in float64, or float32 where there is none."""

    def arrive(self, found: list[Array]) -> bool:
        """Take them, in their shapes; False asks for another start, as for sums in float64."""


@torch.no_grad()
def to_host(matrices: Iterable[OnDevice], values: Sequence[Tensor] = ()) -> list[float]:
    """Bring the Gram matrices of all groups, and some scalars, to the host: one copy per device.

    Returns:
        The scalars' values.
    """
    waiting, numbers = list(matrices), [0.0] * len(values)
    if not waiting and len({(value.device, value.dtype) for value in values}) == 1:
        found: list[float] = torch.stack(
            [v if v.ndim == 0 else v.reshape(()) for v in values]
        ).tolist()
        return found
    alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, value in enumerate(values):
        alike.setdefault((value.device, value.dtype), []).append(i)
    scalars = [
        torch.stack([v if v.ndim == 0 else v.reshape(()) for v in map(values.__getitem__, places)])
        for places in alike.values()
    ]
    while True:
        started = [matrix.start() for matrix in waiting]
        arrays = iter(_arrays([*scalars, *[tensor for some in started for tensor in some]]))
        for places in alike.values() if scalars else ():
            for i, number in zip(places, next(arrays).tolist(), strict=True):
                numbers[i] = number
        scalars = []
        again = [
            matrix
            for matrix, some in zip(waiting, started, strict=True)
            if not matrix.arrive([next(arrays) for _ in some])
        ]
        if not again:
            return numbers
        waiting = again


def _arrays(tensors: Sequence[Tensor]) -> Iterator[Array]:
    """Each tensor's numbers in float64, in its shape; those on the host as they lie there."""
    parcels: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if not tensor.is_cpu:
            wide = torch.float32 if tensor.device.type == "mps" else torch.float64
            parcels.setdefault(tensor.device, []).append(tensor.to(wide).reshape(-1))
    arrived = {device: torch.cat(parts).cpu().double() for device, parts in parcels.items()}
    taken = dict.fromkeys(parcels, 0)
    for tensor in tensors:
        if tensor.is_cpu:
            yield (tensor if tensor.dtype == torch.float64 else tensor.double()).numpy()
        else:
            start = taken[tensor.device]
            taken[tensor.device] = end = start + tensor.numel()
            yield arrived[tensor.device][start:end].view(tensor.shape).numpy()
