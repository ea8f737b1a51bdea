"""The scene of a step: what is trained, which loss reaches what, and the groups that follow."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from gradsurgery.autograd.groups import Group, Parameters, Reach, is_parameter, leaves_reached, make_groups
from gradsurgery.autograd.losses import Losses
from gradsurgery.autograd.memory import Memory
from gradsurgery.contract import Strategy
from gradsurgery.errors import InputError

OTHERS = "others"


@dataclass(frozen=True)
class Plan:
    """The settings of a `Surgery`; strategy None looks and decides nothing."""

    strategy: Strategy | None
    parameters: Parameters
    seed: int = 0
    check: bool = True
    include_others: bool = True
    min_objectives: int = 2
    protect: str | None = None


@dataclass(frozen=True)
class Scene:
    """The parameters of a step by name, the group each was given in, and for each loss those its graph reaches."""

    trained: dict[str, Tensor]
    others: dict[str, Tensor]
    explicit: dict[str, str] | None
    wanted: list[dict[str, Tensor]]

    def reached(self, names: Iterable[str], losses: Losses, by_loss: list[dict[str, Tensor]]) -> dict[str, tuple[str, ...]]:
        batches = losses.by_batch(by_loss)
        return {name: tuple(o for i, o in enumerate(losses.names) if any(name in found[i] for found in batches)) for name in names}


def look(plan: Plan, losses: Losses, memory: Memory) -> tuple[Scene, Memory]:
    reached = [leaves_reached(loss) for loss in losses.tensors]
    everything = {key: leaf for leaves in reached for key, leaf in leaves.items()}
    given = plan.parameters.named()
    if plan.parameters.discover:
        memory.check_resumable(losses.names)
        # numbered in the order of the losses' names, so that a reordered step numbers them alike
        leaves = dict(leaf for _, found in sorted(zip(losses.names * losses.batches, reached, strict=True), key=lambda pair: pair[0]) for leaf in found.items())
        new = [key for key, leaf in leaves.items() if is_parameter(leaf) and key not in memory.known]
        known = {**memory.known, **{key: (f"#{len(memory.known) + i}", everything[key]) for i, key in enumerate(new)}}
        memory = replace(memory, known=known)
        names = {key: known[key][0] for key in everything if key in known}
        if not names:
            raise InputError(f"the losses reach no nn.Parameter (they reach {len(everything)} other leaf tensors): give the tensors to train as parameters=.")
    else:
        names = {key: name for key, (name, _, _) in given.items() if key in everything}
        if not names:
            raise InputError(f"the losses reach none of the {len(given)} trainable parameters given.")
    outside = {}
    if plan.include_others:
        outside = {key: f"{OTHERS}#{i}" for i, key in enumerate(k for k, leaf in everything.items() if is_parameter(leaf) and k not in names)}
    for key in (*names, *outside):
        if everything[key].is_complex():
            raise InputError(f"a complex parameter ({everything[key].dtype}, shape {list(everything[key].shape)}) is reached; only real ones are supported.")
    both = {**names, **outside}
    scene = Scene(
        {name: everything[key] for key, name in names.items()},
        {name: everything[key] for key, name in outside.items()},
        {name: group for name, _, group in given.values()} if plan.parameters.explicit else None,
        [{both[key]: leaf for key, leaf in leaves.items() if key in both} for leaves in reached],
    )
    return scene, memory


def groups_of(scene: Scene, losses: Losses, memory: Memory, by_loss: list[dict[str, Tensor]]) -> tuple[list[Group], Reach, dict[str, tuple[str, ...]]]:
    reached = scene.reached({**scene.trained, **scene.others}, losses, by_loss)
    trained = {name: t for name, t in scene.trained.items() if reached[name]}
    groups, reach = make_groups(trained, scene.explicit, reached, memory.reach)
    others = {name: t for name, t in scene.others.items() if reached[name]}
    if others:
        taken = {g.name for g in groups}
        title = next(t for t in (OTHERS, *(f"{OTHERS} ({i})" for i in range(2, len(taken) + 3))) if t not in taken)
        groups.append(Group(title, title, others, plain=True))
    return groups, reach, reached


def objectives_of(group: Group, losses: Losses, reached: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    present = {o for name in group.parameters for o in reached[name]}
    return tuple(o for o in losses.names if o in present)
