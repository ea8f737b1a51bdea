"""One step, up to but not including the writing: everything is computed and checked."""

from dataclasses import replace

from gradsurgery.engine.checks import check_form, check_named, check_scores
from gradsurgery.engine.converted import check_attached
from gradsurgery.engine.filled import nothing_filled
from gradsurgery.engine.gathered import Gathered, harvest
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.measure import is_due, measured
from gradsurgery.engine.on_groups import settle
from gradsurgery.engine.on_losses import before_gradients, on_losses
from gradsurgery.engine.replay import replayed
from gradsurgery.engine.scaler import scale_of
from gradsurgery.engine.scene import Plan, look
from gradsurgery.engine.solve import Call, Decision, Step
from gradsurgery.engine.taps import find_taps
from gradsurgery.errors import InputError


def decide(plan: Plan, losses: Losses, memory: History, call: Call) -> Decision:
    """Everything a step decides. Nothing outside is changed but the graph, which is freed unless retained."""
    _check(plan, losses, memory)
    if call.features is not None and losses.batches > 1:
        raise InputError(
            "features: losses of several batches have features of several batches; leave features out."
        )
    scene, memory, graph = look(plan, losses, memory, call.features)
    step = Step(
        plan,
        losses,
        scene,
        memory,
        call.scores,
        call.retain_graph,
        scale_of(call.scaler, losses.tensors[0]),
    )
    if graph.written:
        with nothing_filled(scene.watched, graph.written):
            decision = _decide(step, graph)
    else:
        decision = _decide(step, graph)
    strategy = plan.strategy
    if (
        memory.step == 0
        and strategy is not None
        and "scores" in strategy.inputs
        and call.scores is not None
    ):
        check_scores(strategy, call.scores, list(decision.record.groups))
    return decision


def _decide(step: Step, graph: Graph) -> Decision:
    plan, strategy = step.plan, step.plan.strategy
    decision = None
    due = is_due(plan, step.memory)
    light = replace(step, retain_graph=True) if due else step  # the graph is passed again
    if strategy is not None and step.memory.replays(plan.every):
        step, light = (
            replace(step, replay=step.memory.replay),
            replace(light, replay=step.memory.replay),
        )
        if strategy.acts_on == "group":
            decision = replayed(light, strategy)
            step, light = replace(step, replay=None), replace(light, replay=None)
    # what weights of losses do to a protected objective, only gradients tell
    if (
        decision is None
        and strategy is not None
        and not strategy.needs_gradients
        and plan.protect is None
    ):
        decision = (
            on_losses(light, strategy)
            if strategy.acts_on == "losses"
            else before_gradients(light, strategy)
        )
    if due and decision is not None and not decision.record.overflow:
        decision = measured(step, decision, harvest_of(step, graph))
    decision = decision or settle(step, strategy, harvest_of(step, graph), True)
    scene = step.scene
    if strategy is not None and (scene.cut.features or len(decision.results) < len(scene.met)):
        written = {id(tensor) for tensor, _ in decision.results}
        check_attached(
            graph, [(name, t) for name, t in scene.tensors.items() if id(t) not in written]
        )
    return decision


def harvest_of(step: Step, graph: Graph) -> Gathered:
    """The gradients of every loss of a step."""
    strategy, plan = step.plan.strategy, step.plan
    taps = (
        {}
        if strategy is not None and "rows" in strategy.inputs
        else find_taps(graph, step.losses, step.scene, plan.method, plan.lean, plan.once)
    )
    return harvest(
        step.losses,
        step.scene,
        step.retain_graph,
        step.scale,
        taps,
        plan.lean,
        plan.method == "batched",
    )


def gather_more(
    plan: Plan, losses: Losses, memory: History, call: Call
) -> tuple[Gathered, History]:
    """The gradients of one micro-batch, and what is known of the parameters now."""
    _check(plan, losses, memory)
    scene, memory, graph = look(plan, losses, memory)
    with nothing_filled(scene.watched if graph.written else {}, graph.written):
        scale = scale_of(call.scaler, losses.tensors[0])
        found = harvest(losses, scene, call.retain_graph, scale, batched=plan.method == "batched")
    if len(got := set().union(*found.gradients)) < len(scene.met):
        check_attached(graph, [(name, t) for name, t in scene.tensors.items() if name not in got])
    return found, memory


def decide_gathered(plan: Plan, gathered: Gathered, memory: History, call: Call) -> Decision:
    """Everything a step decides whose gradients were gathered before."""
    step = Step(
        plan,
        gathered.losses,
        gathered.scene,
        memory,
        call.scores,
        False,
        gathered.scale,
        memory.replay if memory.replays(plan.every) else None,
    )
    return settle(step, plan.strategy, gathered)


def _check(plan: Plan, losses: Losses, memory: History) -> None:
    check_form(plan.strategy, losses)
    if memory.step == 0:
        named = plan.strategy.named_objectives if plan.strategy is not None else {}
        for what, name in {
            **named,
            **({"protect": plan.protect} if plan.protect is not None else {}),
        }.items():
            check_named(what, name, losses.names)
