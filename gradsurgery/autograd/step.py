"""One step, up to but not including the writing: everything is computed and checked."""

from dataclasses import replace

from gradsurgery.autograd.checks import check_form, check_named, check_scores
from gradsurgery.autograd.gathered import Gathered, harvest
from gradsurgery.autograd.graph import Graph
from gradsurgery.autograd.losses import Losses
from gradsurgery.autograd.memory import Memory
from gradsurgery.autograd.on_groups import settle
from gradsurgery.autograd.on_losses import before_gradients, on_losses
from gradsurgery.autograd.precision import scale_of
from gradsurgery.autograd.replay import replayed
from gradsurgery.autograd.scene import Plan, look
from gradsurgery.autograd.solve import Call, Decision, Step
from gradsurgery.autograd.taps import find_taps
from gradsurgery.errors import InputError


def decide(plan: Plan, losses: Losses, memory: Memory, call: Call) -> Decision:
    """Everything a step decides. Nothing outside is changed but the graph, which is freed unless retained."""
    _check(plan, losses, memory)
    if call.features is not None and losses.batches > 1:
        raise InputError("features: losses of several batches have features of several batches; leave features out.")
    scene, memory, graph = look(plan, losses, memory, call.features)
    step = Step(plan, losses, scene, memory, call.scores, call.retain_graph, scale_of(call.scaler, losses.tensors[0]))
    strategy = plan.strategy
    decision = None
    if strategy is not None and memory.replays(plan.every):
        step = replace(step, replay=memory.replay)
        if strategy.acts_on == "group":
            decision = replayed(step, strategy)
            step = replace(step, replay=None)
    # what weights of losses do to a protected objective, only gradients tell
    if decision is None and strategy is not None and not strategy.needs_gradients and plan.protect is None:
        decision = on_losses(step, strategy) if strategy.acts_on == "losses" else before_gradients(step, strategy)
    decision = decision or settle(step, strategy, harvest_of(step, graph), True)
    if memory.step == 0 and strategy is not None and "scores" in strategy.inputs and call.scores is not None:
        check_scores(strategy, call.scores, list(decision.record.groups))
    return decision


def harvest_of(step: Step, graph: Graph) -> Gathered:
    """The gradients of every loss of a step."""
    strategy, plan = step.plan.strategy, step.plan
    taps = {} if strategy is not None and "rows" in strategy.inputs else find_taps(graph, step.losses, step.scene, plan.method, plan.lean, plan.once)
    return harvest(step.losses, step.scene, step.retain_graph, step.scale, taps, plan.lean, plan.method == "batched")


def gather_more(plan: Plan, losses: Losses, memory: Memory, call: Call) -> tuple[Gathered, Memory]:
    """The gradients of one micro-batch, and what is known of the parameters now."""
    _check(plan, losses, memory)
    scene, memory, _ = look(plan, losses, memory)
    return harvest(losses, scene, call.retain_graph, scale_of(call.scaler, losses.tensors[0]), batched=plan.method == "batched"), memory


def decide_gathered(plan: Plan, gathered: Gathered, memory: Memory, call: Call) -> Decision:
    """Everything a step decides whose gradients were gathered before."""
    step = Step(plan, gathered.losses, gathered.scene, memory, call.scores, False, gathered.scale, memory.replay if memory.replays(plan.every) else None)
    return settle(step, plan.strategy, gathered)


def _check(plan: Plan, losses: Losses, memory: Memory) -> None:
    check_form(plan.strategy, losses)
    if memory.step == 0:
        named = plan.strategy.named_objectives if plan.strategy is not None else {}
        for what, name in {**named, **({"protect": plan.protect} if plan.protect is not None else {})}.items():
            check_named(what, name, losses.names)
