"""The gradients of all mixtures from one pass, in place of a pass per objective."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gradsurgery.engine.cache import TraceCache
from gradsurgery.engine.losses import root_gradients
from gradsurgery.engine.passes import gather as gather_passes
from gradsurgery.engine.passes import merged
from gradsurgery.engine.per_example.capture import Deltas, capture
from gradsurgery.engine.per_example.climbing import broadcast, climbed, watched
from gradsurgery.engine.per_example.due import doubtful, due, zero_of
from gradsurgery.engine.per_example.orders import orders_of, scales_of
from gradsurgery.engine.per_example.plan import HOOKED, SEVERAL, Plan, numbered, plan_of
from gradsurgery.engine.per_example.profiles import Examples
from gradsurgery.engine.per_example.soundness import (
    CHECKS,
    MIXED,
    PACKED,
    differing,
    factors_of,
    finite,
    layouts_checked,
    of_losses,
    rounding_of,
)
from gradsurgery.engine.per_example.spreading import check_norms, may_spread
from gradsurgery.engine.per_example.uses import Saved, guessed, read, readable, uses_of
from gradsurgery.engine.source import GradientSource
from gradsurgery.gradients.per_example.block import Mixed, Mixture
from gradsurgery.gradients.per_example.own import Own
from gradsurgery.gradients.per_example.stacked import stacked
from gradsurgery.gradients.per_example.use import Use

Named = dict[str, Tensor]


def gather(source: GradientSource, cache: TraceCache) -> None:
    """Fill the source with what all mixtures' gradients follow from.

    Raises:
        InputError: where examples are found not to be independent.
    """
    graph, examples, trace = source.graph, source.losses.examples, source.trace
    assert graph is not None
    assert examples is not None
    apart = source.apart or ()
    tensors = {name: t for name, t in trace.tensors.items() if name not in apart}
    features = {name: tensors[name] for name in trace.features if name in tensors}
    parameters = {name: t for name, t in tensors.items() if name not in features}
    names = {id(tensor): name for name, tensor in parameters.items()}
    check_norms(graph.numbers, names, examples.count)
    plan = cache.examples.get(graph, tensors, examples.count) or plan_of(graph, parameters)
    nodes = numbered(graph)
    for name in [name for name in plan.places if parameters[name]._backward_hooks]:
        plan.give_up(name, HOOKED)
    several = examples.count > 1
    check = several and examples.verify != "never"
    orders = orders_of(nodes, examples.count) if check else {}
    scales = scales_of(nodes) if check else {}
    if check and examples.verify == "first" and plan.proved:
        check = due(plan, parameters, scales, orders)
    watch = _watched(plan, nodes, parameters) if check or not plan.seen else {}
    kept = read({**plan.nodes(nodes), **watch})
    one_pass = _in_one_pass(plan, nodes, kept) and not check and plan.seen and not plan.unsure
    retain = source.retain_graph or bool(apart) or not one_pass
    listened, passes = {**plan.nodes(nodes), **watch}, len(examples.profiles)
    deltas = [
        _captured(source, listened, profile, features, retain or k + 1 < passes)
        for k, profile in enumerate(examples.profiles)
    ]
    if several and examples.verify != "never":
        check = check or doubtful(plan, deltas[0], examples.count)
    if check and not finite(deltas[0]):  # a scaler's overflow: there is nothing to compare
        check = plan.proved = False
    made = 0
    if check:
        made = _check(source, plan, nodes, tensors, features, deltas[0], kept, watch)
        plan.gates = zero_of(plan, nodes, parameters)
        plan.scales = scales
        plan.orders = {k: [index.clone() for index in own] for k, own in orders.items()}
    elif not plan.proved:
        _guess(plan, nodes, deltas[0], examples.count)
    uses = _uses(plan, nodes, parameters, deltas, kept, examples)
    for name in features:
        layout = plan.layouts[name][0]
        arrived = [d[name][0] for d in deltas]
        own = [Own(d, layout, examples.count) for d in arrived if d is not None and layout]
        uses[name] = stacked([[use] for use in own])
    plan.steps += 1
    plan.seen, plan.proved = True, plan.proved or check
    plan.local = any(use.graph for own in uses.values() for use in own)
    cache.examples.put(graph, tensors, plan, examples.count)
    source.rows = _passes(source, {name: parameters[name] for name in plan.passes})
    source.method = _said(plan, len(deltas), made)
    mixture = Mixture(examples.factors, examples.losses.device)
    source.mixed = {name: Mixed(own, tensors[name], mixture) for name, own in uses.items()}


def _said(plan: Plan, count: int, checks: int) -> str:
    """What the record says of how the gradients were had."""
    said = "one pass" if count == 1 else f"{count} passes, for the weights within an example"
    if plan.passes:
        reasons = ", ".join(f"{name} ({why})" for name, why in plan.passes.items())
        said += f", and one per objective for {reasons}"
    if checks:
        said += f", and {checks} to check that examples are independent"
        said += ", as in each step: one may come to act on others" if plan.open else ""
    return said


def _watched(plan: Plan, nodes: Mapping[int, Any], parameters: Named) -> dict[int, Any]:
    """The nodes where examples may come in above parameters that they share."""
    found = set[int]()
    for name, places in plan.places.items():
        found |= watched(places, parameters[name].numel(), nodes, plan.above)
    return {number: nodes[number] for number in found}


def _in_one_pass(plan: Plan, nodes: Mapping[int, Any], kept: Saved) -> bool:
    """Whether nothing needs the graph after the pass."""
    asked = plan.nodes(nodes)
    return not (plan.passes or plan.local) and all(
        readable(node, kept[number]) for number, node in asked.items()
    )


def _captured(
    source: GradientSource,
    listened: Mapping[int, Any],
    profile: Any,
    features: Named,
    retain: bool,
) -> Deltas:
    examples = source.losses.examples
    assert examples is not None
    root = examples.root(profile, source.scale)
    deltas, own = capture(examples.losses, root, listened, [*features.values()], retain)
    deltas.update({n: [None if g is None else g] for n, g in zip(features, own, strict=True)})
    return deltas


def _guess(plan: Plan, nodes: Mapping[int, Any], deltas: Deltas, examples: int) -> None:
    """Unchecked layouts: the examples are first, but for what is broadcast over them."""
    plan.layouts = {
        number: [guessed(delta, examples) for delta in given] for number, given in deltas.items()
    }
    asked = [number for number in deltas if isinstance(number, int)]
    shared = broadcast(asked, nodes, plan) if not plan.seen else ()
    for name, places in plan.places.items():
        if any(place.node in shared for place in places):
            plan.places[name] = climbed(places, shared, asked, plan.above) or places


def _check(
    source: GradientSource,
    plan: Plan,
    nodes: Mapping[int, Any],
    tensors: Named,
    features: Named,
    once: Deltas,
    kept: Saved,
    watch: Mapping[int, Any],
) -> int:
    """Two random mixtures against autograd, and where NaN goes; gives the number of passes."""
    examples = source.losses.examples
    assert examples is not None
    plan.layouts, plan.unsure = {}, {}
    packed = any(type(n).__name__ == "PackPaddedSequenceBackward0" for n in nodes.values())
    hint = PACKED if packed else ""
    least = of_losses(examples.losses)
    uses: dict[str, list[Use]] = {}
    for draw in range(CHECKS):
        factors = factors_of(examples.count, draw, examples.losses)
        listened = {**plan.nodes(nodes), **watch}
        profile = examples.profiles[0] * factors.cpu().numpy().reshape(
            -1, *[1] * (examples.losses.ndim - 1)
        )
        beside = {name: tensors[name] for name in plan.places}
        root = examples.root(profile, source.scale)
        asked = [*beside.values(), *features.values()]
        again, given = capture(examples.losses, root, listened, asked)
        again.update({n: [g] for n, g in zip(features, given[len(beside) :], strict=True)})
        everything: dict[int | str, Any] = dict(listened.items())
        everything.update(features)
        layouts_checked(plan, everything, tensors, once, again, factors, hint, least)
        uses = {}
        for name in list(plan.places):
            own = uses_of(name, tensors[name], plan, nodes, once, kept, examples.count)
            if own is None:
                higher = any(place.through for place in plan.places[name])
                plan.give_up(name, MIXED if higher else SEVERAL)
            else:
                uses[name] = own
        arrived = dict(zip(beside, given, strict=False))
        for name in differing(uses, arrived, factors, rounding_of(plan, once, least)):
            plan.give_up(name, "something acts on its gradient beside its layer")
    used = {*plan.nodes(nodes), *features}
    plan.unsure = {key: own for key, own in plan.unsure.items() if key in used}
    if (plan.open and not plan.due) or examples.verify == "always":  # there is nothing to learn
        return CHECKS
    plan.local = any(use.graph for part in uses.values() for use in part)
    retain = source.retain_graph or bool(source.apart) or not _in_one_pass(plan, nodes, kept)
    plan.open = may_spread(source, plan, plan.nodes(nodes), features, retain)
    return CHECKS + 1


def _uses(
    plan: Plan,
    nodes: Mapping[int, Any],
    parameters: Named,
    deltas: list[Deltas],
    kept: Saved,
    examples: Examples,
) -> dict[str, list[Use]]:
    found: dict[str, list[Use]] = {}
    for name in list(plan.places):
        own = [
            uses_of(name, parameters[name], plan, nodes, given, kept, examples.count)
            for given in deltas
        ]
        if any(part is None for part in own):
            plan.give_up(name, SEVERAL)
            continue
        joined = stacked([part for part in own if part is not None])
        if joined:
            found[name] = joined
    return found


def _passes(source: GradientSource, parameters: Named) -> list[Named]:
    """The gradients of some parameters, one pass per objective."""
    losses = source.losses
    if not parameters:
        return [{} for _ in losses.tensors]
    wanted = [parameters for _ in losses.tensors]
    roots = root_gradients(losses, None, source.scale)
    return merged(gather_passes(losses.tensors, roots, wanted, True), len(losses.tensors))
