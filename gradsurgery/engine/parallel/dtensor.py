"""Parameters that are DTensors: each process's share of them, in one form on every rank."""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor

from gradsurgery.errors import InputError


def is_dtensor(tensor: Any) -> TypeGuard[Any]:
    """Whether it is one; without importing the module, which takes a second."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def some_dtensor(tensors: Iterable[Any]) -> bool:
    """Whether one of these is."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and any(isinstance(tensor, module.DTensor) for tensor in tensors)


def ranks_of(parameter: Any) -> frozenset[int]:
    """The ranks that a DTensor is spread over."""
    return frozenset(parameter.device_mesh.mesh.flatten().tolist())


def shards_of(parameter: Any) -> int:
    """Into how many different parts a DTensor is cut; 1 where every rank has it as a whole.

    Raises:
        InputError: for one that is still to be summed.
    """
    sizes = parameter.device_mesh.shape
    places = parameter.placements
    if any(place.is_partial() for place in places):
        raise InputError(
            f"parameters: a DTensor of shape {list(parameter.shape)} is a partial sum "
            f"({places}): redistribute it to shards or replicas first."
        )
    return math.prod(n for n, p in zip(sizes, places, strict=True) if not p.is_replicate())


def form_of(parameter: Any) -> Tensor:
    """A tensor of the form of every rank's share: its shape, dtype and device.

    Shards of a size that does not divide are padded with zeros, which change no product, so that
    what a rank does never depends on the size of its own part. The entries mean nothing.
    """
    local: Tensor = parameter.to_local().detach()
    shape = list(parameter.shape)
    for n, place in zip(parameter.device_mesh.shape, parameter.placements, strict=True):
        if not place.is_replicate():
            shape[place.dim] = -(-shape[place.dim] // n)
    return local if list(local.shape) == shape else local.new_empty(shape)


@torch.no_grad()
def share_of(gradient: Any, parameter: Any, form: Tensor) -> Tensor:
    """This rank's share of a gradient, in its form.

    Args:
        gradient: of a parameter; one that lies in another way than it is redistributed.
        parameter: a DTensor.
        form: `form_of` it.
    """
    if not is_dtensor(gradient):
        return _padded(gradient, form)
    if gradient.placements != parameter.placements:
        gradient = gradient.redistribute(parameter.device_mesh, parameter.placements)
    return _padded(gradient.to_local(), form)


def _padded(local: Tensor, form: Tensor) -> Tensor:
    if local.shape == form.shape:
        return local
    padded = local.new_zeros(form.shape)
    padded[tuple(map(slice, local.shape))] = local
    return padded


def local_of(tensor: Any) -> Tensor:
    """This rank's part of a DTensor, in the same memory; any other tensor as it is."""
    own: Tensor = tensor.to_local() if is_dtensor(tensor) else tensor
    return own


@torch.no_grad()
def as_gradient(share: Tensor, parameter: Any) -> Any:
    """A share as a gradient that lies as its parameter does, or as the `.grad` that it is added to.

    Raises:
        InputError: for a `.grad` that is no DTensor.
    """
    gradient, before = _as_parameter(share, parameter), parameter.grad
    if before is None:
        return gradient
    if not is_dtensor(before):
        raise InputError(
            f"the .grad of a parameter of shape {list(parameter.shape)} is a plain tensor, and the "
            "parameter a DTensor: set it to None first (optimizer.zero_grad())."
        )
    if before.placements != gradient.placements:
        return gradient.redistribute(before.device_mesh, before.placements)
    return gradient


def _as_parameter(share: Tensor, parameter: Any) -> Any:
    if is_dtensor(share):
        return share
    shape = parameter.to_local().shape
    if share.shape != shape:
        share = share[tuple(map(slice, shape))].contiguous()
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        share,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def whole(loss: Any) -> Tensor:
    """A loss as each rank's own scalar; one that is a DTensor is summed where it is partial."""
    scalar: Tensor = loss.full_tensor() if is_dtensor(loss) else loss
    return scalar


@dataclass(frozen=True)
class Spread:
    """How the parameters of a step are spread over the ranks.

    Args:
        shares: by name the form of each rank's share (`form_of`) of those that are DTensors.
        counts: by name into how many different parts each of these is cut.
    """

    shares: Mapping[str, Tensor]
    counts: Mapping[str, int]

    def forms(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What stands for each of some tensors in the numbers of this process."""
        return {name: self.shares.get(name, tensor) for name, tensor in tensors.items()}

    def portions(self, names: Iterable[str]) -> list[float]:
        """How often the products of each tensor's share count in a mean over the ranks.

        With W ranks and s different shards each shard is on W / s ranks, so that the mean over the
        ranks of s times the products is their sum over the shards. What every rank has as a whole
        is one shard.
        """
        return [float(self.counts.get(name, 1)) for name in names]


def spread_of(tensors: Mapping[str, Tensor]) -> Spread | None:
    """How these are spread; None where none of them is a DTensor."""
    some = {name: tensor for name, tensor in tensors.items() if is_dtensor(tensor)}
    if not some:
        return None
    return Spread(
        {name: form_of(tensor) for name, tensor in some.items()},
        {name: shards_of(tensor) for name, tensor in some.items()},
    )
