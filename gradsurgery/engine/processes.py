"""Several processes: a surgery sees its own process's gradients alone, so it refuses where others would have to be asked."""

import sys
from collections.abc import Iterable
from typing import Any, Literal

import torch.distributed as dist
from torch import Tensor, nn

from gradsurgery.errors import InputError

ProcessGroup = Literal["auto"] | None
AVAILABLE = dist.is_available()
ALONE = " If this process is to decide alone, and you reduce what it gives between the ranks yourself, give process_group=None."


def check_setting(process_group: Any) -> None:
    """Only "auto" and None exist.

    Raises:
        InputError: for something else.
    """
    if process_group is not None and not (
        isinstance(process_group, str) and process_group == "auto"
    ):
        raise InputError(
            f"process_group: expected 'auto' (refuse where other processes would have to be asked) or None (this process alone); got {process_group!r}."
        )


SHARDED = (
    "the losses go through parameters that fully_shard (FSDP2) gathers, whose gradients arrive outside of "
    "per-loss passes: sharded models are not supported." + ALONE
)


def started() -> bool:
    """Whether this program has begun to talk to other processes, if only to itself."""
    return AVAILABLE and dist.is_initialized()


def check_alone(modules: Iterable[nn.Module], tensors: Iterable[Tensor]) -> None:
    """Refuse what one process cannot decide; for use where `started()` holds.

    Args:
        modules: those that were given.
        tensors: the parameters that were given or reached.

    Raises:
        InputError: for wrapped or sharded models at any number of ranks, and for all others with several.
    """
    for module in modules:
        for name, part in module.named_modules():
            kind = _wrapper(part)
            if kind is not None:
                where = f" (module {name!r})" if name else ""
                raise InputError(
                    f"parameters: a model under {kind}{where}. {kind} reduces gradients in its own backward pass, "
                    "which per-loss gradients do not go through: ranks would drift apart or stay untrained."
                    + ALONE
                )
    for tensor in tensors:
        if _is_distributed(tensor):
            raise InputError(
                f"parameters: a DTensor of shape {list(tensor.shape)} is spread over processes: "
                "sharded and tensor-parallel parameters are not supported." + ALONE
            )
    if (ranks := dist.get_world_size()) > 1:
        raise InputError(
            f"torch.distributed is initialised with {ranks} ranks: this process's gradients alone would decide here, "
            "and the ranks would drift apart without an error." + ALONE
        )


def _wrapper(module: nn.Module) -> str | None:
    """The name of the parallel training that a module was put under, or None."""
    names = {kind.__name__ for kind in type(module).__mro__}
    return next((label for name, label in WRAPPERS.items() if name in names), None)


WRAPPERS = {  # class -> what users call it; by name, since importing these modules takes a second
    "DistributedDataParallel": "DistributedDataParallel (DDP)",
    "FullyShardedDataParallel": "FullyShardedDataParallel (FSDP1)",
    "FSDPModule": "fully_shard (FSDP2)",
    "ReplicateModule": "replicate (composable DDP)",
    "DDP": "replicate (composable DDP)",
}


def gathered_by_fsdp() -> list[Tensor]:
    """The whole parameters that fully_shard has gathered for a while; losses reach them in place of the shards."""
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
