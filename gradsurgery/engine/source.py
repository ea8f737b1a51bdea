"""Per-loss gradients by torch.autograd.grad: a pass per loss, in which losses that share nothing take part together, or one for all."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.compiled import several_passes
from gradsurgery.engine.proof import compared
from gradsurgery.engine.taps import Tap, listening
from gradsurgery.errors import InputError


def gather(
    losses: Sequence[Tensor],
    roots: Sequence[Tensor],
    wanted: Sequence[dict[str, Tensor]],
    retain_graph: bool,
    taps: MutableMapping[str, Tap] | None = None,
) -> list[dict[str, Tensor]]:
    """The gradients of each loss with respect to its own wanted parameters, by name; those that autograd calls None are left out.

    Args:
        losses: n scalars.
        roots: the gradient each starts from (its weight).
        wanted: for each loss the parameters its graph reaches.
        retain_graph: whether the graphs are still needed afterwards; otherwise they are freed with the last pass.
        taps: the weights for which the gradients at their layers' outputs are wanted instead. Those that
            are to be compared are formed too in the first pass that reaches them. Where both differ the
            weight is taken out of `taps`, and its own gradient is given.
    """
    gradients: list[dict[str, Tensor]] = [{} for _ in losses]
    together = passes(wanted)
    taps = {} if taps is None else taps
    seen: dict[
        str, list[tuple[int, bool]]
    ] = {}  # per compared weight the losses so far, and whether they told anything
    for members in together:
        by = {name: i for i in members for name in wanted[i]}
        tapped = {name: tap for name, tap in taps.items() if name in by} if taps else {}
        doubtful = {
            name: tap for name, tap in tapped.items() if tap.compare and name not in tap.proved
        }
        formed = [name for name in by if name not in tapped or name in doubtful]
        ways = [
            tap.through
            for name, tap in tapped.items()
            if tap.through is not None and name not in doubtful
        ]
        asked: list[Any] = [*(wanted[by[name]][name] for name in formed), *ways]
        starts, from_there = [losses[i] for i in members], [roots[i] for i in members]
        with several_passes(), listening(tapped) as heard:
            found = torch.autograd.grad(
                starts,
                asked,
                from_there,
                retain_graph=retain_graph or members is not together[-1],
                allow_unused=True,
            )
        given = {name: g for name, g in zip(formed, found, strict=False) if g is not None}
        del found
        if doubtful:
            odd, agreeing = compared(
                heard, {name: given[name] for name in doubtful if name in given}, doubtful
            )
            for name in odd:
                del taps[name], doubtful[name]
                heard.pop(name, None)
            again = [(i, name, real) for name in odd for i, real in seen.pop(name, ())]
            for i, name, real in again:
                gone = members is together[-1] and not retain_graph
                gradients[i].update(_formed(losses[i], roots[i], name, wanted[i][name], real, gone))
            for name in doubtful:
                seen.setdefault(name, []).append((by[name], name in agreeing))
                given.pop(name, None)
        heard |= given
        del given
        for name, i in by.items():
            if name in heard:
                gradients[i][name] = heard[name]
    for name, losses_of in seen.items():
        if any(real for _, real in losses_of):
            taps[name].proved[name] = True
    return gradients


def _formed(
    loss: Tensor, root: Tensor, name: str, weight: Tensor, real: bool, gone: bool
) -> dict[str, Tensor]:
    """A weight's gradient after all, where the comparison held in this loss's pass and not in a later one.

    Raises:
        InputError: where the loss's graph is gone.
    """
    if not real:
        return {name: torch.zeros_like(weight)}
    if gone:
        raise InputError(
            f"a hook acts on the gradient of parameter {name!r} in another way for each loss, so that "
            "its layer cannot be tapped: give method='gradients'. Nothing was changed."
        )
    with several_passes():
        (found,) = torch.autograd.grad(
            [loss], [weight], [root], retain_graph=True, allow_unused=True
        )
    return {} if found is None else {name: found}


def passes(wanted: Sequence[Mapping[str, Tensor]]) -> list[list[int]]:
    """The losses that are asked in one pass: those which share no parameter, so that what reaches each is one loss's alone."""
    together: list[tuple[list[int], set[str]]] = []
    for i, inputs in enumerate(wanted):
        if not inputs:
            continue
        for members, names in together:
            if names.isdisjoint(inputs):
                members.append(i)
                names.update(inputs)
                break
        else:
            together.append(([i], set(inputs)))
    return [members for members, _ in together]


def gather_batched(
    losses: Sequence[Tensor],
    roots: Sequence[Tensor],
    wanted: Sequence[dict[str, Tensor]],
    retain_graph: bool,
) -> list[dict[str, Tensor]]:
    """What `gather` gives, in two passes: one batched over the losses (vmap) for what several of them reach, one for what a loss alone reaches.

    Raises:
        InputError: where an operation cannot be batched.
    """
    by: dict[str, list[int]] = {}
    tensors: dict[str, Tensor] = {}
    for i, inputs in enumerate(wanted):
        tensors.update(inputs)
        for name in inputs:
            by.setdefault(name, []).append(i)
    shared = [name for name, reaching in by.items() if len(reaching) > 1]
    alone = {name: tensors[name] for name, reaching in by.items() if len(reaching) == 1}
    gradients: list[dict[str, Tensor]] = [{} for _ in losses]
    for name, gradient in gather_sum(losses, roots, alone, retain_graph or bool(shared)).items():
        gradients[by[name][0]][name] = gradient
    if not shared:
        return gradients
    batched = []
    for i, root in enumerate(roots):
        one = root.new_zeros(len(losses), *root.shape)
        one[i] = root
        batched.append(one)
    asked = [tensors[name] for name in shared]
    try:
        with several_passes():
            found = torch.autograd.grad(
                list(losses),
                asked,
                batched,
                retain_graph=retain_graph,
                allow_unused=True,
                is_grads_batched=True,
            )
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"method='batched': the batched backward pass failed; use method='gradients'. ({error})"
        ) from error
    for name, rows in zip(shared, found, strict=True):
        if rows is not None:
            for i in by[name]:
                gradients[i][name] = rows[i]
    return [
        {name: found[name] for name in inputs if name in found}
        for inputs, found in zip(wanted, gradients, strict=True)
    ]


def gather_sum(
    losses: Sequence[Tensor], roots: Sequence[Tensor], wanted: dict[str, Tensor], retain_graph: bool
) -> dict[str, Tensor]:
    """The gradient of the weighted sum of all losses, in one pass."""
    if not wanted:
        return {}
    with several_passes():
        found = torch.autograd.grad(
            list(losses),
            list(wanted.values()),
            list(roots),
            retain_graph=retain_graph,
            allow_unused=True,
        )
    return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}
