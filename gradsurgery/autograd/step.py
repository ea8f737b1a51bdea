"""One step, up to but not including the writing: everything is computed and checked."""

from collections.abc import Mapping

from gradsurgery.autograd.checks import check_form, check_named
from gradsurgery.autograd.losses import Losses
from gradsurgery.autograd.memory import Memory
from gradsurgery.autograd.on_groups import on_groups
from gradsurgery.autograd.on_losses import before_gradients, on_losses
from gradsurgery.autograd.scene import Plan, look
from gradsurgery.autograd.solve import Decision, Step


def decide(plan: Plan, losses: Losses, memory: Memory, retain_graph: bool, scores: Mapping[str, float] | None = None) -> Decision:
    """Everything a step decides. Nothing outside is changed but the graph, which is freed unless retained."""
    check_form(plan.strategy, losses)
    if memory.step == 0:
        named = plan.strategy.named_objectives if plan.strategy is not None else {}
        for what, name in {**named, **({"protect": plan.protect} if plan.protect is not None else {})}.items():
            check_named(what, name, losses.names)
    scene, memory = look(plan, losses, memory)
    step = Step(plan, losses, scene, memory, scores, retain_graph)
    strategy = plan.strategy
    decision = None
    if strategy is not None and not strategy.needs_gradients and plan.protect is None:
        decision = on_losses(step, strategy) if strategy.acts_on == "losses" else before_gradients(step, strategy)
    return on_groups(step, strategy) if decision is None else decision
