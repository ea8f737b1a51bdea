"""The setting `process_group`: which processes decide together, and what is refused."""

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradsurgery.engine.communicator import AVAILABLE, ProcessGroup, is_group
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.parallel.dtensor import some_dtensor
from gradsurgery.engine.parallel.fsdp import shards_of_whole
from gradsurgery.engine.parallel.meshes import group_of
from gradsurgery.engine.parameters import Parameters
from gradsurgery.errors import InputError

CHOICE = (
    " Give process_group=torch.distributed.group.WORLD (or another group) to have all its ranks "
    "decide together, or None for a model of this rank's own."
)
ALONE = (
    " If this process is to decide alone, and you reduce what it gives between the ranks "
    "yourself, give process_group=None."
)
MADE_BEFORE = (
    "parameters: the model was sharded (fully_shard, tensor parallel) after its Surgery was made, "
    "which holds the tensors from before: make the Surgery after that."
)
DISCOVERED = (
    "the losses reach parameters that are spread over processes (fully_shard, tensor parallel): "
    "give the model as parameters=."
)
STATIC = (
    "parameters: a DDP model with static_graph=True, whose own synchronisation stops after "
    "backward passes that it does not see: leave static_graph=False." + ALONE
)
WRAPPERS = {  # class -> what users call it; by name, since importing these modules takes a second
    "FullyShardedDataParallel": "FullyShardedDataParallel (FSDP1)",
    "ReplicateModule": "replicate (composable DDP)",
    "DDP": "replicate (composable DDP)",
}


def check_setting(process_group: Any) -> None:
    """Only "auto", a group and None exist.

    Raises:
        InputError: for something else.
    """
    auto = isinstance(process_group, str) and process_group == "auto"
    if process_group is not None and not auto and not is_group(process_group):
        raise InputError(
            "process_group: expected 'auto' (the group of a model under DDP, the ranks of "
            "sharded parameters, else refuse where other processes would have to be asked), a "
            f"group of torch.distributed, or None (this process alone); got {process_group!r}."
        )


def found_group(process_group: ProcessGroup, parameters: Parameters) -> ProcessGroup:
    """The group over which a Surgery decides: with "auto" that of a model under DDP.

    Raises:
        InputError: for models that cannot be asked loss by loss, or that take part in two groups.
    """
    given = process_group
    if parameters.spread:
        check_unwrapped(parameters.modules)
        group: ProcessGroup = group_of(
            [tensor for _, tensor, _ in parameters.named().values()], given
        )
        return group
    if given is None or not AVAILABLE or not dist.is_initialized():
        return given
    parts = [part for module in parameters.modules for part in module.modules()]
    wrapped = [part for part in parts if isinstance(part, DistributedDataParallel)]
    if any(part.static_graph for part in wrapped):
        raise InputError(STATIC)
    found = [part.process_group for part in wrapped]
    if not is_group(given):
        given = next(iter(found), given)
    if not is_group(given):
        return given
    if any(group is not given for group in found):
        raise InputError(
            "parameters: a DDP model of another process group than the one that decides: give "
            "process_group= the group of its ranks, and one Surgery per group."
        )
    if parameters.discover:
        raise InputError(
            "parameters: None numbers the parameters in the order in which losses reach them, "
            "which may differ between ranks: with a process group give the model."
        )
    check_unwrapped(parameters.modules)
    return given


def check_processes(parameters: Parameters, graph: Graph | None) -> None:
    """Refuse what one process cannot decide, once `torch.distributed` is initialised.

    Args:
        parameters: those that were given.
        graph: of the losses, where there are any yet.

    Raises:
        InputError: for wrapped or sharded models at any number of ranks, and for all others with
            several.
    """
    check_unwrapped(parameters.modules)
    if graph is not None:
        check_not_sharded(parameters, graph)
    if (ranks := dist.get_world_size()) > 1:
        raise InputError(
            f"torch.distributed is initialised with {ranks} ranks: this process's gradients alone "
            "would decide here, and the ranks would drift apart without an error." + CHOICE
        )


def check_not_static(graph: Graph) -> None:
    """A model may have come under DDP since its Surgery was made.

    Raises:
        InputError: for losses that went through one with a static graph.
    """
    models = (getattr(sink, "ddp_weakref", lambda: None)() for sink in graph.sinks)
    if any(getattr(model, "static_graph", False) for model in models):
        raise InputError(STATIC)


def check_not_sharded(parameters: Parameters, graph: Graph) -> None:
    """Sharded parameters belong to a Surgery that was given them as such.

    Raises:
        InputError: for losses that reach some.
    """
    shards = shards_of_whole()
    reached = graph.sharded or not shards.keys().isdisjoint(graph.leaves)
    if reached or some_dtensor(graph.leaves.values()):
        raise InputError(DISCOVERED if parameters.discover else MADE_BEFORE)


def check_unwrapped(modules: Iterable[nn.Module]) -> None:
    """Refuse wrapped models.

    Raises:
        InputError: naming the wrapper.
    """
    for module in modules:
        for name, part in module.named_modules():
            kind = _wrapper(part)
            if kind is not None:
                where = f" (module {name!r})" if name else ""
                raise InputError(
                    f"parameters: a model under {kind}{where}. {kind} reduces gradients in its own "
                    "backward pass, which per-loss gradients do not go through: ranks would drift "
                    "apart or stay untrained." + ALONE
                )


def _wrapper(module: nn.Module) -> str | None:
    """The name of the parallel training that a module was put under, or None."""
    names = {kind.__name__ for kind in type(module).__mro__}
    return next((label for name, label in WRAPPERS.items() if name in names), None)
