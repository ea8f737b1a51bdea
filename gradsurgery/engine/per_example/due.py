"""When independence is checked again: what no check has seen yet."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradsurgery.engine.per_example.capture import Deltas
from gradsurgery.engine.per_example.orders import Orders, grown, same
from gradsurgery.engine.per_example.plan import Plan
from gradsurgery.engine.per_example.spreading import NORMS
from gradsurgery.gradients.per_example.layout import agree

# the edges of nodes by which a parameter is added: a zero there lets every gradient through
ADDED = {
    **dict.fromkeys(("AddBackward0", "SubBackward0"), (0, 1)),
    **dict.fromkeys(("AddmmBackward0",), (0,)),
    **dict.fromkeys(("ConvolutionBackward0", "NativeLayerNormBackward0"), (2,)),
    **dict.fromkeys(("NativeGroupNormBackward0", *NORMS), (2,)),
}


def due(
    plan: Plan, parameters: Mapping[str, Tensor], scales: Mapping[int, float], orders: Orders
) -> bool:
    """Whether a step of a graph that was checked before is checked too.

    Args:
        plan: with what was found then.
        parameters: by name.
        scales: node -> the number that it multiplies with now.
        orders: node -> the indices by which it moves entries now.
    """
    known = not (plan.open or plan.due or opened(plan, parameters) or grown(scales, plan.scales))
    return not known or not same(orders, plan.orders)


def zero_of(plan: Plan, nodes: Mapping[int, Any], parameters: Mapping[str, Tensor]) -> set[str]:
    """The factors that are zero throughout, as gates and low-rank updates are at first."""
    factors = {
        name
        for name, places in plan.places.items()
        if any(
            place.edge not in ADDED.get(type(nodes[place.node]).__name__, ()) for place in places
        )
    }
    asked = [*plan.passes, *factors]
    return {name for name in asked if not parameters[name].detach().any()}


def opened(plan: Plan, parameters: Mapping[str, Tensor]) -> bool:
    """Whether a parameter that was zero at the last check is not any more."""
    return any(bool(parameters[name].detach().any()) for name in plan.gates)


def doubtful(plan: Plan, deltas: Deltas, examples: int) -> bool:
    """Whether a gradient has come that the last check says nothing of.

    Args:
        plan: with the layouts found then.
        deltas: the gradients at the nodes.
        examples: B.
    """
    for number, given in deltas.items():
        known = plan.layouts.get(number, [])
        for k, delta in enumerate(given):
            if delta is None:
                continue
            layout = known[k] if k < len(known) else None
            if layout is None or layout.dim >= delta.ndim or delta.shape[layout.dim] % examples:
                return True
            if number in plan.unsure and bool(delta.any()):
                fitting = plan.unsure[number][k]
                if not fitting or not agree(delta, fitting, examples):
                    return True
    return False
