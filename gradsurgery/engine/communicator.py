"""What a step exchanges with other processes: nothing here; where it would have to, it refuses."""

import sys
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

import torch.distributed as dist
from torch import Tensor, nn

from gradsurgery.engine.graph import Graph
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parameters import Parameters
from gradsurgery.errors import InputError

ProcessGroup = Literal["auto"] | None
Gradients = dict[int, dict[str, Tensor]]  # loss -> parameter -> gradient
Writable = dict[str, Tensor | None]
Trace = TypeVar("Trace")
AVAILABLE = dist.is_available()
ALONE = (
    " If this process is to decide alone, and you reduce what it gives between the ranks "
    "yourself, give process_group=None."
)
SHARDED = (
    "the losses go through parameters that fully_shard (FSDP2) gathers, whose gradients arrive "
    "outside of per-loss passes: sharded models are not supported." + ALONE
)
WRAPPERS = {  # class -> what users call it; by name, since importing these modules takes a second
    "DistributedDataParallel": "DistributedDataParallel (DDP)",
    "FullyShardedDataParallel": "FullyShardedDataParallel (FSDP1)",
    "FSDPModule": "fully_shard (FSDP2)",
    "ReplicateModule": "replicate (composable DDP)",
    "DDP": "replicate (composable DDP)",
}


class SingleProcess:
    """The exchanges of a step that one process decides alone: each gives back what it was given.

    A step calls the four methods in the order in which they stand here, each on every process.
    """

    def agree(self, losses: Losses, trace: Trace, *compared: Any) -> tuple[Losses, Trace]:
        """Before the passes: the losses and the reach on which all processes act.

        Args:
            losses: this process's losses. Those that come back add up, over the processes, to the
                losses of the joined batch: their values, and their gradients. Losses without graph
                are sums of such.
            trace: which loss reaches which parameter here.
            *compared: what has to be the same on all processes: settings, history, loss scale.

        Raises:
            InputError: on every process, where they cannot act as one.
        """
        return losses, trace

    def scatter(
        self, passes: Iterable[Gradients], writable: Writable | None = None
    ) -> list[Gradients]:
        """Gradients summed over the processes: this process's share of them.

        Args:
            passes: per backward pass what it gives, by loss and parameter; a weighted pass gives it
                for loss 0. The next pass begins once the last one's gradients are on their way, so
                that passes and transfers overlap.
            writable: per parameter the gradient in whose memory its direction may be formed; to be
                changed where shares come in other memory.
        """
        return list(passes)

    def total(self, numbers: list[Tensor]) -> list[Tensor]:
        """Numbers on their way to the host, summed over the processes.

        Args:
            numbers: products of gradients and values of losses, a tensor of any shape each. Nothing
                that every process has as a whole, such as a loss scale.
        """
        return numbers

    def publish(self, directions: dict[str, Tensor]) -> dict[str, Tensor]:
        """After the combination: whole directions by parameter, from each process's shares."""
        return directions


def check_setting(process_group: Any) -> None:
    """Only "auto" and None exist.

    Raises:
        InputError: for something else.
    """
    if process_group is not None and not (
        isinstance(process_group, str) and process_group == "auto"
    ):
        raise InputError(
            "process_group: expected 'auto' (refuse where other processes would have to be asked) "
            f"or None (this process alone); got {process_group!r}."
        )


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
    if (ranks := dist.get_world_size()) > 1:
        raise InputError(
            f"torch.distributed is initialised with {ranks} ranks: this process's gradients alone "
            "would decide here, and the ranks would drift apart without an error." + ALONE
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
