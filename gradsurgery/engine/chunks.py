"""Chunks for memory="low": tensors whose gradients are not kept.

Their Gram matrix is formed chunk by chunk, by a pass per loss for each chunk, and their direction
by one weighted pass.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

from gradsurgery.engine.grouping import Group
from gradsurgery.engine.source import GradientSource
from gradsurgery.engine.trace import Trace
from gradsurgery.gradients.coordinates import in_coordinates, unusual
from gradsurgery.gradients.factored import Tap
from gradsurgery.gradients.gram import grams_by_tensor
from gradsurgery.gradients.precision import without_autocast


def chunks(trace: Trace, factored: Mapping[str, Tap]) -> list[list[str]]:
    """The tensors whose gradients are not kept, in chunks.

    The gradients of all losses for one chunk take no more room than all parameters, or are those of
    one tensor. Empty where everything fits in that. Kept are: what lies past a compiled region,
    the features, what one loss alone reaches, and the biases of factored layers, by which a pass
    finds its way to them.
    """
    tensors = {name: t for name, t in trace.tensors.items() if name not in trace.features}
    room = {name: t.numel() * t.element_size() for name, t in tensors.items()}
    biases = {tap.bias for tap in factored.values() if tap.bias is not None}
    kept = biases | factored.keys() | trace.reach.uncertain
    needed = {
        name: size * count
        for name, size in room.items()
        if name not in kept and (count := trace.reach.count(name)) > 1
    }
    allowed = max([sum(room.values()), *needed.values()])
    if sum(needed.values()) <= allowed:
        return []
    found: list[list[str]] = [[]]
    used = 0
    for name, size in needed.items():
        if used + size > allowed:
            found.append([])
            used = 0
        found[-1].append(name)
        used += size
    return found


def form_grams(source: GradientSource, parts: Iterable[Iterable[str]]) -> None:
    """Fill `source.grams`, by a pass per loss for each chunk; the graph stays."""
    trace = source.trace
    for names in map(frozenset, parts):
        gradients = source.of_chunk(names)
        reach = trace.reach.arrived(gradients)
        parameters = {name: trace.tensors[name] for name in reach}
        (group,) = source.communicator.held([Group("", "", parameters)])
        parameters = group.parameters
        odd, sparse = unusual(gradients, parameters)
        source.sparse |= sparse
        rows: list[list[Tensor | None]] = [[found.get(n) for n in reach] for found in gradients]
        like, places = in_coordinates(rows, parameters, odd, ())
        with without_autocast(source.losses.tensors[0].device):
            source.grams.update(zip(reach, grams_by_tensor(rows, like, places), strict=True))
        source.apart = reach.arrived(gradients, source.apart)
