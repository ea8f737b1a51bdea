"""Backward passes, per loss or batched over the losses: the only calls of torch.autograd.grad."""

from collections.abc import Container, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.compiled import explained
from gradsurgery.engine.taps import listening
from gradsurgery.engine.trace import passes
from gradsurgery.errors import InputError
from gradsurgery.gradients.agreement import compared
from gradsurgery.gradients.donation import owned
from gradsurgery.gradients.factored import Tap

Named = dict[str, Tensor]


def grad(
    outputs: Sequence[Tensor],
    inputs: Sequence[Any],
    roots: Sequence[Tensor],
    retain_graph: bool,
    batched: bool = False,
) -> tuple[Tensor | None, ...]:
    try:
        return torch.autograd.grad(
            outputs,
            inputs,
            roots,
            retain_graph=retain_graph,
            allow_unused=True,
            is_grads_batched=batched,
        )
    except (RuntimeError, AttributeError) as error:
        reason = explained(error)
        if reason is None:
            raise
        raise reason from error


def gather(
    losses: Sequence[Tensor],
    roots: Sequence[Tensor],
    wanted: Sequence[Named],
    retain_graph: bool,
    factored: MutableMapping[str, Tap] | None = None,
    together: Sequence[Sequence[int]] | None = None,
    writable: MutableMapping[str, Tensor | None] | None = None,
) -> Iterator[dict[int, Named]]:
    """Pass by pass: loss -> the gradients of its own wanted parameters; None is left out.

    Losses that share no parameter take part in one pass together. A later pass may give an earlier
    loss a gradient after all.

    Args:
        losses: n scalars.
        roots: the gradient each starts from (its weight).
        wanted: per loss the parameters that its graph reaches.
        retain_graph: whether the graphs are needed afterwards; else the last pass frees them.
        factored: the weights for which the gradients at their layers' outputs are wanted instead.
            Those that are to be compared are formed too in the first pass that reaches them.
            Where both differ the weight is taken out, and its own gradient is given.
        together: per pass its losses; None works them out (see `passes`).
        writable: takes, per parameter, the first gradient that a pass gives it, as a tensor that
            may be written to, or None where something else holds it (see `donation`). With None
            nothing is asked.
    """
    together = passes(wanted) if together is None else together
    factored = {} if factored is None else factored
    compared_so_far: dict[str, list[tuple[int, bool]]] = {}  # the losses, and whether they told
    for members in together:
        last = members is together[-1]
        by = {name: i for i in members for name in wanted[i]}
        tapped = {name: tap for name, tap in factored.items() if name in by} if factored else {}
        doubtful = {n: tap for n, tap in tapped.items() if tap.compare and n not in tap.proved}
        derived = {
            tap.bias: name
            for name, tap in tapped.items()
            if tap.bias in by and tap.through is not None and name not in doubtful
        }
        formed = (
            [n for n in by if (n not in tapped or n in doubtful) and n not in derived]
            if tapped
            else [*by]
        )
        asked: list[Any] = [wanted[by[name]][name] for name in formed]
        starts, own = [losses[i] for i in members], [roots[i] for i in members]
        if not tapped:
            found = grad(starts, asked, own, retain_graph or not last)
            _ask(found, formed, asked, writable)
            gradients: dict[int, Named] = {i: {} for i in members}
            for name, g in zip(formed, found, strict=True):
                if g is not None:
                    gradients[by[name]][name] = g
            found, g = (), None  # what was yielded is freed when it is used up
            yield gradients
            gradients = {}
            continue
        ways = [
            tap.through
            for name, tap in tapped.items()
            if tap.through is not None and name not in doubtful
        ]
        with listening(tapped) as at_outputs:
            found = grad(starts, [*asked, *ways], own, retain_graph or not last)
        _ask(found, formed, asked, writable, doubtful)  # those are not kept
        given = {name: g for name, g in zip(formed, found, strict=False) if g is not None}
        found = ()
        gradients = {i: {} for i in members}
        if doubtful:
            layers = {name: tap.layer for name, tap in doubtful.items()}
            odd, agreeing = compared(at_outputs, given, layers)
            for name in odd:
                factored[name].proved[name] = False
                del factored[name], doubtful[name]
                at_outputs.pop(name, None)
                for i, told in compared_so_far.pop(name, ()):
                    gone = last and not retain_graph
                    own_gradient = _formed(losses[i], roots[i], name, wanted[i][name], told, gone)
                    gradients.setdefault(i, {}).update(own_gradient)
            for name in doubtful:
                compared_so_far.setdefault(name, []).append((by[name], name in agreeing))
                given.pop(name, None)
        for bias, name in derived.items():
            if name in at_outputs and bias is not None:
                given[bias] = tapped[name].layer.bias(at_outputs[name])
        at_outputs |= given
        del given
        for name, i in by.items():
            if name in at_outputs:
                gradients[i][name] = at_outputs[name]
        at_outputs.clear()
        yield gradients
        gradients = {}
    for name, results in compared_so_far.items():
        if any(told for _, told in results):
            factored[name].proved[name] = True


def _ask(
    found: Sequence[Tensor | None],
    names: Sequence[str],
    parameters: Sequence[Tensor],
    writable: MutableMapping[str, Tensor | None] | None,
    beside: Container[str] = (),
) -> None:
    """Note which gradients may be written to, of parameters that have got none so far.

    Those in `beside` are left out.
    """
    if writable is not None:
        new = [
            i
            for i, name in enumerate(names)
            if name not in writable and name not in beside and found[i] is not None
        ]
        if new:
            writable.update(
                zip([names[i] for i in new], owned(found, parameters, new), strict=True)
            )


def _formed(loss: Tensor, root: Tensor, name: str, weight: Tensor, told: bool, gone: bool) -> Named:
    """A weight's gradient after all: the comparison held for this loss, not for a later one.

    Raises:
        InputError: where the loss's graph is gone.
    """
    if not told:
        return {name: torch.zeros_like(weight)}
    if gone:
        raise InputError(
            f"a hook acts on the gradient of parameter {name!r} in another way for each loss, so "
            "that its layer cannot be tapped: give method='gradients'. Nothing was changed."
        )
    (found,) = grad([loss], [weight], [root], True)
    return {} if found is None else {name: found}


def merged(parts: Iterable[Mapping[int, Named]], count: int) -> list[Named]:
    """Per loss what all passes gave it."""
    rows: list[Named] = [{} for _ in range(count)]
    for part in parts:
        for i, found in part.items():
            rows[i].update(found)
    return rows


def gather_batched(
    losses: Sequence[Tensor], roots: Sequence[Tensor], wanted: Sequence[Named], retain_graph: bool
) -> list[Named]:
    """What `gather` gives, in two passes.

    One is batched over the losses (vmap), for what several of them reach; the other is for what
    one loss alone reaches.

    Raises:
        InputError: where an operation cannot be batched.
    """
    by: dict[str, list[int]] = {}
    tensors: Named = {}
    for i, inputs in enumerate(wanted):
        tensors.update(inputs)
        for name in inputs:
            by.setdefault(name, []).append(i)
    shared = [name for name, reaching in by.items() if len(reaching) > 1]
    single = [name for name, reaching in by.items() if len(reaching) == 1]
    gradients: list[Named] = [{} for _ in losses]
    if single:
        asked = [tensors[name] for name in single]
        found = grad(losses, asked, roots, retain_graph or bool(shared))
        for name, gradient in zip(single, found, strict=True):
            if gradient is not None:
                gradients[by[name][0]][name] = gradient
    if not shared:
        return gradients
    starts = []
    for i, root in enumerate(roots):
        one = root.new_zeros(len(losses), *root.shape)
        one[i] = root
        starts.append(one)
    asked = [tensors[name] for name in shared]
    try:
        found = grad(losses, asked, starts, retain_graph, batched=True)
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"method='batched': the batched backward pass failed; use method='gradients'. ({error})"
        ) from error
    for name, stacked in zip(shared, found, strict=True):
        if stacked is not None:
            for i in by[name]:
                gradients[i][name] = stacked[i]
    return [
        {name: own[name] for name in inputs if name in own}
        for inputs, own in zip(wanted, gradients, strict=True)
    ]
