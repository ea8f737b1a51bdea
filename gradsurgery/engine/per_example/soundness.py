"""Whether the examples of a batch are independent of each other: the graph, and a check by passes.

A pass that starts with Σ r_b ℓ_b for random r_b brings to each layer's output what that of Σ ℓ_b
does, with the part of example b times r_b. Where it does not, something between that layer and the
losses mixes examples.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.per_example.capture import Deltas
from gradsurgery.engine.per_example.plan import Plan
from gradsurgery.errors import InputError
from gradsurgery.gradients.coordinates import called
from gradsurgery.gradients.per_example.layout import Layout, found
from gradsurgery.gradients.per_example.local import flat
from gradsurgery.gradients.per_example.rules import RULES, SHARED
from gradsurgery.gradients.per_example.use import Use
from gradsurgery.gradients.precision import products_are_whole

CHECKS = 2  # passes of a check
ADVICE = "Give the objectives as a dict of scalars, which takes a pass each. Nothing was changed."
NORMS = ("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0")
# Rounding of a part, relative to it. In float32 it was 1e-6 at most, and 9e-6 in 40 layers.
OF_PART = {torch.float64: 1e-7, torch.float32: 1e-4}
REDUCED = 5e-3  # the same where a device may multiply float32 in fewer bits
OF_GRADIENT = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to what bounds a gradient
# the edges of nodes by which a parameter is added: a zero there lets every gradient through
ADDED = {
    **dict.fromkeys(("AddBackward0", "SubBackward0"), (0, 1)),
    **dict.fromkeys(("AddmmBackward0",), (0,)),
    **dict.fromkeys(("ConvolutionBackward0", "NativeLayerNormBackward0"), (2,)),
    **dict.fromkeys(("NativeGroupNormBackward0", *NORMS), (2,)),
}
HALF = 0.05  # of both in half precision
LEAST = 1e-3  # of the whole gradient: what is smaller may be nothing but rounding, as a key's bias


def factors_of(examples: int, draw: int, like: Tensor) -> Tensor:
    """Random r [B] of a check, between 1/2 and 1 in size, of either sign."""
    generator = torch.Generator().manual_seed(draw)
    sizes = (torch.rand(examples, generator=generator, dtype=torch.float64) + 1) / 2
    signs = torch.randint(2, (examples,), generator=generator) * 2 - 1
    return (sizes * signs).to(like.device)


def finite(deltas: Deltas) -> bool:
    """Whether all gradients at the nodes are."""
    return all(
        bool(torch.isfinite(delta).all())
        for given in deltas.values()
        for delta in given
        if delta is not None
    )


def check_norms(nodes: Iterable[Any], names: Mapping[int, str], examples: int) -> None:
    """Batch normalization in training mode mixes examples: the graph says so.

    Instance normalization is one whose examples are among the channels.

    Args:
        nodes: the graph's.
        names: id of a parameter -> what it is called.
        examples: B.

    Raises:
        InputError: naming the layer by its parameters.
    """
    for node in nodes:
        if type(node).__name__ in NORMS and getattr(node, "_saved_training", True):
            shape = getattr(node, "_input_metadata", [None])[0]
            if examples == 1 or (shape is not None and shape.shape[0] == 1):
                continue
            own = [
                names[id(leaf)]
                for after, _ in node.next_functions[1:]
                if (leaf := getattr(after, "variable", None)) is not None and id(leaf) in names
            ]
            which = f" (the layer with {', '.join(own)})" if own else ""
            raise InputError(
                f"PerExample: batch normalization in training mode{which} mixes the examples of a "
                "batch, so that no example's loss has a gradient of its own at a layer. Use "
                f"GroupNorm or LayerNorm, or .eval() for these layers. {ADVICE}"
            )


def layouts_checked(
    plan: Plan,
    nodes: Mapping[int | str, Any],
    tensors: Mapping[str, Tensor],
    once: Deltas,
    again: Deltas,
    factors: Tensor,
) -> None:
    """Find the layout at each node, or confirm it.

    Parameters of nodes that all examples may share get passes of their own.

    Args:
        plan: gets the layouts.
        nodes: number -> node, and the features by name.
        tensors: the parameters and features by name.
        once: the gradients of Σ ℓ_b at the nodes.
        again: those of Σ r_b ℓ_b.
        factors: r [B].

    Raises:
        InputError: where a layer's examples are mixed, naming it.
    """
    mixed: set[int | str] = set()
    for number in nodes:
        first, second = once.get(number, []), again.get(number, [])
        where: list[Layout | None] = []
        for one, other in zip(first, second, strict=False):
            layout = None
            if one is not None and other is not None:
                accuracy = max(OF_PART.get(one.dtype, HALF), reduced(one))
                known = plan.layouts.get(number)
                only = known[len(where)] if known else None
                own = factors.to(one.dtype)
                fitting = found(one, other, own, len(factors), accuracy, only)
                layout = fitting[0] if fitting else None
                if layout is None:
                    mixed.add(number)
                elif len(fitting) > 1 or not one.any():
                    plan.unsure.add(number)
            where.append(layout)
        plan.layouts[number] = where
    if not mixed:
        return
    bad = {name: tensors[name] for name in mixed if isinstance(name, str)}
    for name, places in list(plan.places.items()):
        apart = [place.node for place in places if place.node in mixed]
        kinds = [type(nodes[number]).__name__ for number in apart]
        if apart and all(kind in SHARED or kind not in RULES for kind in kinds):
            plan.give_up(name, "what arrives at it is not made of parts of single examples")
        elif apart and all(_positions(nodes[number], len(factors)) for number in apart):
            plan.give_up(name, "its entries are shared by all examples: index it per example")
        elif apart:
            bad[name] = tensors[name]
    if bad:
        raise InputError(_mixing(bad, plan, tensors))


def _positions(node: Any, examples: int) -> bool:
    """Whether a node takes consecutive entries of a table, as positions that examples share."""
    if type(node).__name__ != "EmbeddingBackward0" or node._saved_indices is None:
        return False
    index = node._saved_indices.reshape(-1)
    there = torch.arange(len(index), device=index.device) + index[0]
    return len(index) != examples and bool((index == there).all())


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
                return True
    return False


def _mixing(bad: Mapping[str, Tensor], plan: Plan, tensors: Mapping[str, Tensor]) -> str:
    names = [called(name, tensor) for name, tensor in bad.items()]
    layers = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    good = [name for name in plan.places if name not in bad]
    where = (
        f"At the layer with {called(good[-1], tensors[good[-1]])} they are still apart."
        if good
        else "No layer has its examples apart: the losses themselves may mix them."
    )
    return (
        f"PerExample: at the output of the layer with {layers} the gradient is not made of parts "
        "of single examples: something between it and the losses mixes examples (a statistic or a "
        "mean over the batch, a contrastive loss, a routing), or all examples share what it "
        f"gives. {where} {ADVICE}"
    )


def reduced(tensor: Tensor) -> float:
    """What products in fewer bits add to the rounding, where a device may make such."""
    whole = tensor.dtype == torch.float64 or (tensor.is_cpu and products_are_whole())
    return 0.0 if whole else REDUCED


def rounding_of(plan: Plan, deltas: Deltas) -> dict[str, float]:
    """What may be rounding in a parameter's gradient, by the dtype of what arrives at its nodes."""
    return {
        name: max(
            (
                max(OF_GRADIENT.get(delta.dtype, HALF), reduced(delta))
                for place in places
                for delta in deltas.get(place.node, ())
                if delta is not None
            ),
            default=OF_GRADIENT[torch.float64],
        )
        for name, places in plan.places.items()
    }


@torch.no_grad()
def differing(
    uses: Mapping[str, Sequence[Use]],
    given: Mapping[str, Tensor | None],
    factors: Tensor,
    rounding: Mapping[str, float],
) -> list[str]:
    """The parameters whose gradient of Σ r_b ℓ_b is not what autograd gave.

    Args:
        uses: name -> the parameter's uses.
        given: name -> what autograd gave it.
        factors: r [B].
        rounding: name -> what is allowed, relative to what bounds the gradient.
    """
    found: dict[str, tuple[float, float, float]] = {}  # name -> the error, its scale, the rounding
    total_square = 0.0
    for name, own in uses.items():
        gradient = given[name]
        dtype = torch.float32 if gradient is None else gradient.dtype
        wide = torch.promote_types(dtype, torch.float32)
        formed = [use.one(factors.to(wide)) for use in own]
        total = torch.stack(formed).sum(0) if formed else factors.new_zeros((), dtype=wide)
        wanted = torch.zeros_like(total) if gradient is None else flat(gradient).to(wide)
        bounds = [bound for use in own if (bound := use.bounds()) is not None]
        size = wanted.norm().double()
        total_square += float(size) ** 2
        if bounds:
            each = torch.stack(bounds).sum(0).double()
            size = torch.maximum(size, (factors.double().abs() * each).norm())
        found[name] = float((total - wanted).norm()), float(size), rounding[name]
    least = LEAST * total_square**0.5
    return [k for k, (far, size, own) in found.items() if not far <= own * max(size, least)]
