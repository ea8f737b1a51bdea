"""From the gradients at the nodes to the uses of each parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from gradsurgery.engine.per_example.plan import Place, Plan
from gradsurgery.gradients.factored import saved
from gradsurgery.gradients.per_example.layout import Layout, layouts
from gradsurgery.gradients.per_example.local import Local
from gradsurgery.gradients.per_example.rules import RULES, Asked
from gradsurgery.gradients.per_example.through import Through
from gradsurgery.gradients.per_example.use import Use

Saved = dict[int, dict[str, Tensor]]  # node -> what it has saved, by name
Deltas = Mapping[int | str, Sequence[Tensor | None]]


def read(nodes: Mapping[int, Any]) -> Saved:
    """What the nodes have saved and their rules read, before a pass frees it.

    What comes back through hooks is not read: that would recompute a checkpointed region.
    """
    found: Saved = {}
    for number, node in nodes.items():
        names = RULES.get(type(node).__name__, (None, ()))[1]
        own = {name: saved(node, name, False) for name in names}
        found[number] = {name: t.detach() for name, t in own.items() if t is not None}
    return found


def readable(node: Any, kept: Mapping[str, Tensor]) -> bool:
    """Whether what a node's rule reads was read; of a product's factors some are not saved."""
    kind = type(node).__name__
    names = RULES.get(kind, (None, ()))[1]
    return kind == "MulBackward0" or all(name in kept for name in names)


def guessed(delta: Tensor | None, examples: int) -> Layout | None:
    """The usual layout of a tensor of this shape: examples first."""
    return None if delta is None else next(layouts(delta.shape, examples), None)


def uses_of(
    name: str,
    parameter: Tensor,
    plan: Plan,
    nodes: Mapping[int, Any],
    deltas: Deltas,
    kept: Saved,
    examples: int,
) -> list[Use] | None:
    """The uses of one parameter; None where they cannot be told apart.

    Args:
        name: the parameter's.
        parameter: the parameter.
        plan: its places, and the layouts.
        nodes: number -> node.
        deltas: the gradients at the nodes' outputs, by number.
        kept: what the nodes have saved.
        examples: B.
    """
    places, found = plan.places[name], []
    for place in places:
        node = nodes[place.node]
        given = deltas.get(place.node)
        if given is None or all(delta is None for delta in given):
            continue  # nothing of the losses arrives there
        where = plan.layouts.get(place.node) or [guessed(delta, examples) for delta in given]
        like = parameter if place.through is None else _standing(nodes, place.through)
        use = _by_rule(place, node, like, given, where, nodes, kept, examples)
        if use is not None and place.through is not None:
            number, output = place.through
            use = Through(use, GradientEdge(nodes[number], output), like, parameter)
        if use is None and place.through is not None:
            return None
        if use is None:
            if len(places) > 1 or any(
                delta is not None and layout is None
                for delta, layout in zip(given, where, strict=True)
            ):
                return None
            use = Local(node, given, where, parameter, examples)
        found.append(use)
    return found


def _standing(nodes: Mapping[int, Any], through: tuple[int, int]) -> Tensor:
    """A tensor like the one that stands for a parameter."""
    said = nodes[through[0]]._input_metadata[through[1]]
    return torch.zeros((), dtype=said.dtype, device=said.device).expand(said.shape)


def _by_rule(
    place: Place,
    node: Any,
    parameter: Tensor,
    given: Sequence[Tensor | None],
    where: Sequence[Layout | None],
    nodes: Mapping[int, Any],
    kept: Saved,
    examples: int,
) -> Use | None:
    known = RULES.get(type(node).__name__)
    delta, layout = given[0], where[0]
    if known is None or delta is None or layout is None:
        return None
    shape: Sequence[int] = parameter.shape
    if place.last is not None:
        shape = nodes[place.last]._input_metadata[0].shape
    asked = Asked(delta, layout, examples, parameter, shape, place.forms, kept.get(place.node, {}))
    with torch.no_grad():
        return known[0](node, place.edge, asked)
