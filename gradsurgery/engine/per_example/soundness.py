"""Whether the examples of a batch are independent of each other: what a check by passes compares.

A pass that starts with Σ r_b ℓ_b for random r_b brings to each layer's output what that of Σ ℓ_b
does, with the part of example b times r_b. Where it does not, something between that layer and the
losses mixes examples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.per_example.capture import Deltas
from gradsurgery.engine.per_example.climbing import climbed
from gradsurgery.engine.per_example.plan import Plan
from gradsurgery.engine.per_example.spreading import ADVICE
from gradsurgery.errors import InputError
from gradsurgery.gradients.coordinates import called
from gradsurgery.gradients.per_example.layout import Layout, found
from gradsurgery.gradients.per_example.local import flat
from gradsurgery.gradients.per_example.rules import RULES, SHARED
from gradsurgery.gradients.per_example.use import Use
from gradsurgery.gradients.precision import products_are_whole

CHECKS = 2  # passes of a check
LEVELS = 256  # r of losses in half precision are multiples of 1/256: bfloat16 has eight digits
PACKED = (
    "Packed sequences have the entries of all examples at a time in a row: give them padded, and "
    "mask the losses or states past the end. "
)
TABLE = "its entries are shared by all examples: index it per example"
MIXED = "what arrives at it is not made of parts of single examples"
# Rounding of a part, relative to it. In float32 it was 1e-6 at most, and 9e-6 in 40 layers.
OF_PART = {torch.float64: 1e-7, torch.float32: 1e-4}
REDUCED = 5e-3  # the same where a device may multiply float32 in fewer bits
OF_GRADIENT = {torch.float64: 1e-9, torch.float32: 1e-4}  # relative to what bounds a gradient
HALF = 0.05  # of both in half precision
LEAST = 1e-3  # of the whole gradient: what is smaller may be nothing but rounding, as a key's bias


def factors_of(examples: int, draw: int, like: Tensor) -> Tensor:
    """Random r [B] of a check, between 1/2 and 1 in size, of either sign."""
    generator = torch.Generator().manual_seed(draw)
    sizes = (torch.rand(examples, generator=generator, dtype=torch.float64) + 1) / 2
    signs = torch.randint(2, (examples,), generator=generator) * 2 - 1
    if torch.finfo(like.dtype).bits == 16:  # the pass starts with r in this dtype: not rounded
        sizes = (sizes * LEVELS).round() / LEVELS
    signs[:2] = torch.tensor([1, -1])[:examples]  # two examples are told apart for certain
    return (sizes * signs).to(like.device)


def finite(deltas: Deltas) -> bool:
    """Whether all gradients at the nodes are."""
    return all(
        bool(torch.isfinite(delta).all())
        for given in deltas.values()
        for delta in given
        if delta is not None
    )


def layouts_checked(
    plan: Plan,
    nodes: Mapping[int | str, Any],
    tensors: Mapping[str, Tensor],
    once: Deltas,
    again: Deltas,
    factors: Tensor,
    hint: str = "",
    least: float = 0.0,
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
        hint: what the message adds.
        least: what is rounding at all nodes, relative to a part.

    Raises:
        InputError: where a layer's examples are mixed, naming it.
    """
    mixed: set[int | str] = set()
    for number in nodes:
        first, second = once.get(number, []), again.get(number, [])
        where: list[Layout | None] = []
        fits: list[list[Layout]] = []
        unclear = False
        for one, other in zip(first, second, strict=False):
            layout, fitting = None, []
            if one is not None and other is not None:
                accuracy = max(OF_PART.get(one.dtype, HALF), reduced(one), least)
                known = plan.layouts.get(number)
                only = known[len(where)] if known else None
                own = factors.to(one.dtype)
                fitting = found(one, other, own, len(factors), accuracy, only)
                layout = fitting[0] if fitting else None
                if layout is None:
                    mixed.add(number)
                elif not one.any():
                    fitting = []
                unclear = unclear or (layout is not None and len(fitting) != 1)
            where.append(layout)
            fits.append(fitting)
        plan.layouts[number] = where
        if unclear:
            plan.unsure[number] = fits
    if not mixed:
        return
    bad = {name: tensors[name] for name in mixed if isinstance(name, str)}
    shared = {number for number in mixed if isinstance(number, int)}
    given = {k for k, own in once.items() if isinstance(k, int) and any(d is not None for d in own)}
    for name, places in list(plan.places.items()):
        apart = [place.node for place in places if place.node in mixed]
        if not apart:
            continue
        kinds = {type(nodes[number]).__name__ for number in apart}
        free = all(kind in SHARED or kind not in RULES for kind in kinds)
        higher = None
        if free or kinds == {"EmbeddingBackward0"}:
            higher = climbed(places, shared, given, plan.above)
        if higher is not None:
            plan.places[name] = higher
        elif free:
            plan.give_up(name, MIXED)
        elif all(_positions(nodes[number], len(factors)) for number in apart):
            plan.give_up(name, TABLE)
        else:
            bad[name] = tensors[name]
    if bad:
        raise InputError(_mixing(bad, plan, tensors, hint))


def _positions(node: Any, examples: int) -> bool:
    """Whether a node takes consecutive entries of a table, as positions that examples share."""
    if type(node).__name__ != "EmbeddingBackward0" or node._saved_indices is None:
        return False
    index = node._saved_indices.reshape(-1)
    there = torch.arange(len(index), device=index.device) + index[0]
    return len(index) != examples and bool((index == there).all())


def _mixing(bad: Mapping[str, Tensor], plan: Plan, tensors: Mapping[str, Tensor], hint: str) -> str:
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
        f"gives. {where} {hint}{ADVICE}"
    )


def reduced(tensor: Tensor) -> float:
    """What products in fewer bits add to the rounding, where a device may make such."""
    whole = tensor.dtype == torch.float64 or (tensor.is_cpu and products_are_whole())
    return 0.0 if whole else REDUCED


def of_losses(losses: Tensor) -> float:
    """The rounding of what a pass starts with in half precision; else it is far below others."""
    eps = torch.finfo(losses.dtype).eps
    return 2 * eps if torch.finfo(losses.dtype).bits == 16 else 0.0


def rounding_of(plan: Plan, deltas: Deltas, least: float = 0.0) -> dict[str, float]:
    """What may be rounding in a parameter's gradient, by the dtype of what arrives at its nodes."""
    return {
        name: max(
            (
                max(OF_GRADIENT.get(delta.dtype, HALF), reduced(delta), least)
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
