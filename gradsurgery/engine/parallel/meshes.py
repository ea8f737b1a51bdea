"""Which ranks decide together over sharded parameters, and what cannot be right there."""

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.engine.parallel.dtensor import is_dtensor, ranks_of, shards_of
from gradsurgery.engine.parallel.fsdp import managed_shards
from gradsurgery.errors import InputError


def group_of(tensors: Iterable[Tensor], given: Any) -> Any:
    """The process group of all ranks that some parameters are spread over.

    Args:
        tensors: parameters, some of which are DTensors.
        given: the setting `process_group`.

    Raises:
        InputError: where they do not say one group.
    """
    spread = [tensor for tensor in tensors if is_dtensor(tensor)]
    managed = managed_shards()
    ranks = frozenset[int]().union(*map(ranks_of, spread))
    for tensor in spread:
        shards_of(tensor)  # no partial sum
        # FSDP2 reduces over its mesh, whichever it is; plain DTensors only over their own.
        if id(tensor) not in managed and ranks_of(tensor) != ranks:
            raise InputError(
                f"parameters: a DTensor of shape {list(tensor.shape)} is spread over ranks "
                f"{sorted(ranks_of(tensor))}, and others over {sorted(ranks)}: its gradient would "
                "not be reduced between all of them. Spread all over one mesh, or shard the model "
                "with fully_shard over the other dimension."
            )
    if given is None:
        raise InputError(
            "process_group=None: no process can decide alone over parameters that are spread over "
            f"ranks {sorted(ranks)}: leave process_group='auto'."
        )
    everyone = frozenset(range(dist.get_world_size()))
    if isinstance(given, str):
        if ranks != everyone:
            raise InputError(
                f"parameters: they are spread over ranks {sorted(ranks)} of {len(everyone)}: the "
                "others would train apart. If they are to, give process_group= the group of these "
                "ranks."
            )
        return dist.group.WORLD
    if frozenset(dist.get_process_group_ranks(given)) != ranks:
        raise InputError(
            f"process_group: its ranks are {sorted(dist.get_process_group_ranks(given))}, and the "
            f"parameters are spread over {sorted(ranks)}: leave 'auto', or give a group of these."
        )
    return given


def check_sharded(strategy: Strategy, method: str, memory: str) -> None:
    """The strategy and the settings can be right on shares of gradients.

    Raises:
        InputError: naming what cannot.
    """
    if "rows" in strategy.inputs:
        raise InputError(
            f"strategy {strategy.name!r} takes `rows`, whole gradients, which no rank has under "
            "fully_shard or tensor parallel: take one that decides on the Gram matrix or on losses."
        )
    if memory == "low":
        raise InputError(
            "memory='low': not for sharded parameters, whose passes are the sharding's own: leave "
            "memory='auto'."
        )
    if method in ("taps", "batched"):
        raise InputError(
            f"method={method!r}: not for sharded parameters, whose gradients are reduced between "
            "the ranks in passes of their own: leave method='auto'."
        )
