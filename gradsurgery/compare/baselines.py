"""Baselines of a task: its losses alone, plain sums, other lengths, a front of fixed weights."""

from collections.abc import Iterator, Mapping, Sequence

from gradsurgery import InputError, Strategy
from gradsurgery.compare.loop import endless, moved, seeded
from gradsurgery.compare.methods import LENGTH, TIMES_N, Method, alone, control
from gradsurgery.compare.plan import BASELINE, Plan
from gradsurgery.tasks import Problem, Task

OTHER_LENGTHS = ("mean", "convex", "own")
WITH_JOINT = (0.5, 2.0, 4.0)  # of the other losses; at 1 it is the sum
OF_TWO = (0.25, 0.5, 2.0, 4.0)
IN_TURN, AT_MOST = 4.0, 6


def methods_of(plan: Plan, task: Task, problem: Problem) -> list[Method]:
    """What a plan trains on a task: what was asked for, then the baselines.

    Baselines are each entry of the task's `alone` (without one, each loss), `sum`, `scaled-sum`,
    the strategies of another length than the sum's at the sum's, n times `mgda`, and fixed
    weights. What was asked for is not there a second time.

    Args:
        plan: with its strategies, and whether baselines are wanted.
        task: one of its tasks.
        problem: of that task, for the names of its losses.
    """
    found = {label: Method(label, strategy) for label, strategy in plan.strategies.items()}
    for label in plan.controls:
        found.setdefault(label, control(label))
    if plan.baselines != "none":
        for method in _baselines(plan, task, problem):
            found.setdefault(method.label, method)
    return list(found.values())


def _baselines(plan: Plan, task: Task, problem: Problem) -> Iterator[Method]:
    names = loss_names(problem)
    for label in (BASELINE, "scaled-sum"):
        yield control(label)
    subsets: Mapping[str, Sequence[str]] = problem.alone or {name: [name] for name in names}
    for name, losses in subsets.items():
        yield alone(name, losses)
    for label in lengths(plan.strategies):
        yield control(label)
    for weights in front(names, joint_of(task, problem, names)):
        yield control(f"constant(preference={weights!r})")


def lengths(strategies: Mapping[str, Strategy]) -> list[str]:
    """The labels of strategies of another length at the sum's, and of n times `mgda`.

    Args:
        strategies: label -> strategy.
    """
    others = [label + LENGTH for label, x in strategies.items() if x.scale in OTHER_LENGTHS]
    return [*others, TIMES_N + "mgda"]


def loss_names(problem: Problem) -> list[str]:
    """The names of the losses, from one batch."""
    with seeded(0):
        model = problem.model()
        if problem.device is not None:
            model.to(problem.device)
        given = problem.losses(model, moved(endless(problem)(), problem.device))
    first = given if isinstance(given, Mapping) else given[0]
    if not isinstance(first, Mapping):
        raise InputError(f"losses gave {first!r}: return a dict from a name to a scalar loss.")
    return list(first)


def joint_of(task: Task, problem: Problem, names: Sequence[str]) -> str | None:
    """The loss that all modalities take part in: the primary one, or the one "joint" is alone."""
    if task.primary in names:
        return task.primary
    joint = (problem.alone or {}).get("joint", ())
    return joint[0] if len(joint) == 1 and joint[0] in names else None


def front(names: Sequence[str], joint: str | None) -> list[dict[str, float]]:
    """Fixed weights around the uniform ones, which are the sum.

    With a joint loss the others have one weight: 0.5, 2, 4. Of two losses without one the second
    has 0.25, 0.5, 2, 4. Of three to six each has 4 in turn; of more there are none.

    Example:
        >>> from gradsurgery.compare.baselines import front
        >>> front(["fused", "audio"], "fused")[0]
        {'fused': 1.0, 'audio': 0.5}
    """
    if len(names) < 2:
        return []
    if joint is not None:
        return [{n: 1.0 if n == joint else w for n in names} for w in WITH_JOINT]
    if len(names) == 2:
        return [{names[0]: 1.0, names[1]: w} for w in OF_TWO]
    if len(names) > AT_MOST:
        return []
    return [{n: IN_TURN if n == one else 1.0 for n in names} for one in names]
