"""The setting `process_group`: which processes decide together, and what is refused."""

import sys
from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradsurgery.engine.communicator import AVAILABLE, ProcessGroup, is_group
from gradsurgery.engine.graph import Graph
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
SHARDED = (
    "the losses go through parameters that fully_shard (FSDP2) gathers, whose gradients arrive "
    "outside of per-loss passes: sharded models are not supported." + ALONE
)
WRAPPERS = {  # class -> what users call it; by name, since importing these modules takes a second
    "FullyShardedDataParallel": "FullyShardedDataParallel (FSDP1)",
    "FSDPModule": "fully_shard (FSDP2)",
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
            "process_group: expected 'auto' (the group of a model under DDP, else refuse where "
            "other processes would have to be asked), a group of torch.distributed, or None (this "
            f"process alone); got {process_group!r}."
        )


def found_group(process_group: ProcessGroup, parameters: Parameters) -> ProcessGroup:
    """The group over which a Surgery decides: with "auto" that of a model under DDP.

    Raises:
        InputError: for models that cannot be asked loss by loss, or that take part in two groups.
    """
    given = process_group
    if given is None or not AVAILABLE or not dist.is_initialized():
        return given
    parts = [part for module in parameters.modules for part in module.modules()]
    wrapped = [part for part in parts if isinstance(part, DistributedDataParallel)]
    if any(part.static_graph for part in wrapped):
        raise InputError(
            "parameters: a DDP model with static_graph=True, whose own synchronisation stops after "
            "backward passes that it does not see: leave static_graph=False." + ALONE
        )
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
    check_unwrapped(parameters.modules, [tensor for _, tensor, _ in parameters.named().values()])
    return given


def check_processes(parameters: Parameters, graph: Graph | None) -> None:
    """Refuse what one process cannot decide, once `torch.distributed` is initialised.

    Args:
        parameters: those that were given.
        graph: of the losses, where there are any yet.

    Raises:
        InputError: see `check_alone`; also for losses that go through parameters of fully_shard.
    """
    check_alone(parameters.modules, [tensor for _, tensor, _ in parameters.named().values()])
    if graph is None:
        return
    if graph.sharded or any(id(whole) in graph.leaves for whole in gathered_by_fsdp()):
        raise InputError(SHARDED)


def check_alone(modules: Iterable[nn.Module], tensors: Iterable[Tensor]) -> None:
    """Refuse what one process cannot decide, once `torch.distributed` is initialised.

    Args:
        modules: those that were given.
        tensors: the parameters that were given or reached.

    Raises:
        InputError: for wrapped or sharded models at any number of ranks, and for all others with
            several.
    """
    check_unwrapped(modules, tensors)
    if (ranks := dist.get_world_size()) > 1:
        raise InputError(
            f"torch.distributed is initialised with {ranks} ranks: this process's gradients alone "
            "would decide here, and the ranks would drift apart without an error." + CHOICE
        )


def check_unwrapped(modules: Iterable[nn.Module], tensors: Iterable[Tensor]) -> None:
    """Refuse wrapped and sharded models.

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
    for tensor in tensors:
        if _is_distributed(tensor):
            raise InputError(
                f"parameters: a DTensor of shape {list(tensor.shape)} is spread over processes: "
                "sharded and tensor-parallel parameters are not supported." + ALONE
            )


def _wrapper(module: nn.Module) -> str | None:
    """The name of the parallel training that a module was put under, or None."""
    names = {kind.__name__ for kind in type(module).__mro__}
    return next((label for name, label in WRAPPERS.items() if name in names), None)


def gathered_by_fsdp() -> list[Tensor]:
    """Whole parameters that fully_shard holds for a while; losses reach them, not the shards."""
    states = getattr(
        sys.modules.get("torch.distributed._composable_state"), "_module_state_mapping", {}
    )
    groups = [
        group
        for ref in states.values()
        for group in getattr(ref(), "_fsdp_param_groups", None)
        or [getattr(ref(), "_fsdp_param_group", None)]
    ]
    found = [
        getattr(part, "_unsharded_param", None)
        for group in groups
        for part in getattr(group, "fsdp_params", ())
    ]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


def _is_distributed(tensor: Tensor) -> bool:
    module = sys.modules.get("torch.distributed.tensor")
    kind = getattr(module, "DTensor", None)
    return kind is not None and isinstance(tensor, kind)
