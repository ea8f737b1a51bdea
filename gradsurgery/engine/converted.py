"""Parameters that were converted to another dtype or device before their gradients came."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from gradsurgery.engine.graph import Graph
from gradsurgery.errors import InputError

Kind = tuple[torch.dtype, torch.device, torch.Size]


def kind_of(tensor: Tensor) -> Kind:
    """What a gradient has to have in common with its parameter."""
    return tensor.dtype, tensor.device, tensor.shape


def check_kinds(where: str, parameters: Mapping[str, Tensor], kinds: Mapping[str, Kind]) -> None:
    """The parameters are what they were when their gradients were gathered.

    Raises:
        InputError: for the first that is not.
    """
    for name, before in kinds.items():
        now = kind_of(parameters[name])
        if now != before:
            raise InputError(
                f"{where}: {_named(name, parameters[name])} was {_as_text(before)} when gradients "
                f"were gathered, and is {_as_text(now)} now. Convert the model before the first "
                "accumulate(). Convert it back to go on; discard() drops what was gathered, which "
                "is kept until then."
            )


def check_attached(graph: Graph, missing: Iterable[tuple[str, Tensor]]) -> None:
    """Parameters of the graph that got no gradient are still those that the graph was made with.

    A conversion gives a parameter a new node to accumulate in, to which the old graph has no way.

    Raises:
        InputError: for the first that was converted.
    """
    if graph.passes is not None:  # its leaves stand for others
        return
    for name, tensor in missing:
        # what only another process's losses reach is not in this graph
        trained = tensor.is_leaf and tensor.requires_grad and id(tensor) in graph.leaves
        if trained and get_gradient_edge(tensor).node not in graph.numbers:
            raise InputError(
                f"{_named(name, tensor)} was converted to {_as_text(kind_of(tensor))} after the "
                "forward pass, so that the losses' graph does not lead to it any more: convert the "
                "model first, then compute the losses."
            )


def _as_text(kind: Kind) -> str:
    dtype, device, shape = kind
    return f"{str(dtype).removeprefix('torch.')} {list(shape)} on {device}"


def _named(name: str, tensor: Tensor) -> str:
    return f"a parameter of shape {list(tensor.shape)}" if "#" in name else f"parameter {name!r}"
