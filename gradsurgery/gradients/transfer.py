"""All Gram matrices and loss values to the host, in one copy per device."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gradsurgery.types import Array

Total = Callable[[list[Tensor], list[Tensor]], list[Tensor]]  # scalars, products -> both


class OnDevice(Protocol):
    """What has numbers on its devices that the host waits for."""

    def start(self) -> list[Tensor]:
        """Form them, without waiting: tensors in float64, or float32 where there is none."""

    def arrive(self, found: list[Array]) -> bool:
        """Take them, in their shapes; False asks for another start, as for sums in float64."""


@torch.no_grad()
def to_host(
    matrices: Iterable[OnDevice],
    values: Sequence[Tensor] = (),
    whole: Sequence[Tensor] = (),
    total: Total | None = None,
) -> list[float]:
    """Bring the Gram matrices of all groups, and some scalars, to the host: one copy per device.

    Args:
        matrices: those whose Gram matrices are wanted.
        values: scalars.
        whole: scalars that every process has as a whole; `total` is not asked about them.
        total: sums numbers on their way over the processes; None where there is one.

    Returns:
        The scalars' values, those of `whole` last.
    """
    waiting = list(matrices)
    if values and not (waiting or whole) and len({(v.dtype, v.device) for v in values}) == 1:
        if len(values) == 1:
            one = [values[0].reshape(1)]
        else:
            one = [torch.stack([v if v.ndim == 0 else v.reshape(()) for v in values])]
        found: list[float] = (one if total is None else total(one, []))[0].tolist()
        return found
    places, scalars = _stacked(values)
    more, extra = _stacked(whole)
    numbers = [0.0] * (len(values) + len(whole))
    while True:
        started = [matrix.start() for matrix in waiting]
        products = [tensor for some in started for tensor in some]
        tensors = [*scalars, *products] if total is None else total(scalars, products)
        arrays = iter(_arrays([*tensors, *extra]))
        for some in places if scalars else ():
            for i, number in zip(some, next(arrays).tolist(), strict=True):
                numbers[i] = number
        again = [
            matrix
            for matrix, some in zip(waiting, started, strict=True)
            if not matrix.arrive([next(arrays) for _ in some])
        ]
        for some in more if extra else ():
            for i, number in zip(some, next(arrays).tolist(), strict=True):
                numbers[len(values) + i] = number
        if not again:
            return numbers
        waiting, scalars, extra = again, [], []


def _stacked(values: Sequence[Tensor]) -> tuple[list[list[int]], list[Tensor]]:
    """Scalars of one device and dtype in one tensor each, and their places."""
    alike: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, value in enumerate(values):
        alike.setdefault((value.device, value.dtype), []).append(i)
    groups = list(alike.values())
    scalars = [
        torch.stack([v if v.ndim == 0 else v.reshape(()) for v in map(values.__getitem__, some)])
        for some in groups
    ]
    return groups, scalars


def _arrays(tensors: Sequence[Tensor]) -> list[Array]:
    """Each tensor's numbers in float64, in its shape; those on the host as they lie there."""
    if all(tensor.is_cpu for tensor in tensors):
        return [tensor.double().numpy() for tensor in tensors]
    parcels: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        wide = torch.float32 if tensor.device.type == "mps" else torch.float64
        parcels.setdefault(tensor.device, []).append(tensor.to(wide).reshape(-1))
    arrived = {
        device: iter(torch.split(torch.cat(parts).cpu().double(), [p.numel() for p in parts]))
        for device, parts in parcels.items()
    }
    return [next(arrived[tensor.device]).view(tensor.shape).numpy() for tensor in tensors]
