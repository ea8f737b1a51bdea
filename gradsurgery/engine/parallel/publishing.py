"""Every rank's shares of the directions, made whole by one gather."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradsurgery.engine.parallel.layout import cut, joined, length_of
from gradsurgery.engine.parallel.wire import Wire
from gradsurgery.gradients.coordinates import gradient_dtype

Key = tuple[torch.dtype, torch.device]
FAILED = 1.0


@dataclass(frozen=True)
class Published:
    """Whole directions by parameter, whether a rank has none, and whether all decided alike."""

    directions: dict[str, Tensor]
    failed: bool
    alike: bool


def publish(
    wire: Wire,
    directions: Mapping[str, Tensor] | None,
    tensors: Mapping[str, Tensor],
    decided: Sequence[float],
) -> Published:
    """Gather the shares of all ranks, with a word of each.

    Args:
        wire: the ranks.
        directions: this rank's shares, or whole ones; None where it failed.
        tensors: the parameters whose shares are gathered, the same on all ranks.
        decided: `words_of` what this rank decided.
    """
    by_kind: dict[Key, list[str]] = {}
    for name, tensor in tensors.items():
        by_kind.setdefault((gradient_dtype(tensor).to_real(), tensor.device), []).append(name)
    own_words = [FAILED if directions is None else 0.0, *decided]
    words = torch.tensor(own_words, device=wire.device)
    found: dict[str, Tensor] = {}
    if not by_kind:
        said = wire.gather(words)
        return Published(found, bool(said[:, 0].any()), bool((said == said[0]).all()))
    failed, alike = False, True
    for i, ((dtype, device), names) in enumerate(by_kind.items()):
        lengths = [length_of(tensors[name], wire.world) for name in names]
        parts = [words.to(device, dtype)] if i == 0 else []
        for name, length in zip(names, lengths, strict=True):
            own = None if directions is None else directions.get(name)
            if own is None:
                parts.append(torch.zeros(length, dtype=dtype, device=device))
            else:
                parts.append(_share(own, tensors[name], wire))
        rows = wire.gather(torch.cat(parts))
        if i == 0:
            said, rows = rows[:, : len(words)], rows[:, len(words) :]
            failed, alike = bool(said[:, 0].any()), bool((said == said[0]).all())
        if failed:
            continue
        for name, part in zip(names, torch.split(rows, lengths, 1), strict=True):
            if directions is None or name in directions:
                found[name] = joined(part, tensors[name])
    return Published(found, failed, alike)


def _share(direction: Tensor, tensor: Tensor, wire: Wire) -> Tensor:
    """This rank's share as a vector of real numbers; of a whole direction it is cut out."""
    if direction.shape == tensor.shape and (tensor.ndim != 1 or wire.world > 1):
        return cut(direction, wire.world)[wire.rank]
    if direction.is_complex():
        direction = torch.view_as_real(direction.resolve_conj())
    return direction.reshape(-1)
