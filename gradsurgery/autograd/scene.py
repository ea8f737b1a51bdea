"""The scene of a step: what is trained, which loss reaches what, and the groups that follow."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from gradsurgery.autograd.compiled import ONE_PASS
from gradsurgery.autograd.features import Cut, Cutting
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
    every: int = 1
    method: str = "auto"


@dataclass(frozen=True)
class Scene:
    """What a step trains, by name, and what each loss reaches of it.

    Attributes:
        trained: the parameters that are solved for, and the features in place of those behind them.
        others: reached parameters that were not given.
        explicit: the group each was given in, or None.
        wanted: for each loss those its graph reaches.
        uncertain: for each loss the names of those it may reach or not, behind a compiled region.
        cut: the features.
        once: whether a compiled region allows one backward pass only.
    """

    trained: dict[str, Tensor]
    others: dict[str, Tensor]
    explicit: dict[str, str] | None
    wanted: list[dict[str, Tensor]]
    uncertain: list[frozenset[str]]
    cut: Cut
    once: bool = False

    def parameter(self, name: str) -> Tensor:
        return self.trained[name] if name in self.trained else self.others[name]

    @property
    def written(self) -> list[Tensor]:
        """Every parameter that gets a gradient."""
        return [t for name, t in {**self.trained, **self.others}.items() if name not in self.cut.features] + [*self.cut.trunk, *self.cut.others]

    def reached(self, names: Iterable[str], losses: Losses, by_loss: Sequence[Container[str]]) -> dict[str, tuple[str, ...]]:
        batches = losses.by_batch(by_loss)
        return {name: tuple(o for i, o in enumerate(losses.names) if any(name in found[i] for found in batches)) for name in names}

    def likely(self, losses: Losses, reach: Reach) -> list[dict[str, Tensor]] | None:
        """What each loss reaches as far as it is known before gradients: what it has reached before. None where the graph shows more than that.

        Behind compiled regions it always does, and what no loss has reached before is left out.
        """
        found_by: list[dict[str, Tensor]] = []
        for loss, found, odd in zip(losses.names, self.wanted, self.uncertain, strict=True):
            known = {name: t for name, t in found.items() if name in self.others or loss in reach.get(name, ())}
            if any(name not in known and (name not in odd or name not in reach) for name in found):
                return None
            found_by.append(known)
        return found_by

    def joined(self, mine: Sequence[str], new: "Scene", theirs: Sequence[str]) -> "Scene":
        """Both scenes as one: those of the losses `mine` and `theirs`, in the order of the first and then of what is new."""
        wanted = dict(zip(mine, self.wanted, strict=True))
        uncertain = dict(zip(mine, self.uncertain, strict=True))
        for loss, found, odd in zip(theirs, new.wanted, new.uncertain, strict=True):
            certain = {*wanted.get(loss, {}), *found} - (uncertain.get(loss, frozenset()) | odd)
            wanted[loss] = {**wanted.get(loss, {}), **found}
            uncertain[loss] = frozenset(wanted[loss]) - certain
        explicit = None if self.explicit is None else {**self.explicit, **(new.explicit or {})}
        merged = {**self.trained, **new.trained}, {**self.others, **new.others}
        return Scene(*merged, explicit, list(wanted.values()), list(uncertain.values()), self.cut, self.once or new.once)


def look(plan: Plan, losses: Losses, memory: Memory, features: dict[str, Tensor] | None = None) -> tuple[Scene, Memory]:
    cut = Cutting(features or {})
    reached = [leaves_reached(loss, cut.places) for loss in losses.tensors]
    around = {key: leaf for found in reached for key, leaf in found.leaves.items()}
    behind, behind_once = cut.behind(reached)
    given = plan.parameters.named()
    if plan.parameters.discover:
        memory.check_resumable(losses.names)
        # numbered in the order of the losses' names, so that a reordered step numbers them alike
        ordered = sorted(zip(losses.names * losses.batches, reached, strict=True), key=lambda pair: pair[0])
        leaves = dict(leaf for _, found in ordered for leaf in found.leaves.items())
        new = [key for key, leaf in leaves.items() if is_parameter(leaf) and key not in memory.known]
        known = {**memory.known, **{key: (f"#{len(memory.known) + i}", around[key]) for i, key in enumerate(new)}}
        memory = replace(memory, known=known)
        names = {key: known[key][0] for key in around if key in known}
        trunk = [leaf for leaf in behind.values() if is_parameter(leaf)]
        if not names and not trunk:
            raise InputError(f"the losses reach no nn.Parameter (they reach {len(around)} other leaf tensors): give the tensors to train as parameters=.")
    else:
        names = {key: name for key, (name, _, _) in given.items() if key in around}
        trunk = [leaf for key, leaf in behind.items() if key in given]
        if not names and not trunk:
            raise InputError(f"the losses reach none of the {len(given)} trainable parameters given.")
    outside, unknown = {}, []
    if plan.include_others:
        outside = {key: f"{OTHERS}#{key:x}" for key, leaf in around.items() if is_parameter(leaf) and key not in names}
        unknown = [leaf for key, leaf in behind.items() if is_parameter(leaf) and not any(leaf is t for t in trunk)]
    for leaf in [*(around[key] for key in (*names, *outside)), *trunk, *unknown]:
        if leaf.is_complex():
            raise InputError(f"a complex parameter ({leaf.dtype}, shape {list(leaf.shape)}) is reached; only real ones are supported.")
    both = {**names, **outside}
    if behind_once and trunk and unknown:
        raise InputError(ONE_PASS)
    cut.check_apart({**around, **behind}, {id(leaf) for leaf in (*trunk, *unknown)} & set(both))
    explicit = {name: group for name, _, group in given.values()} if plan.parameters.explicit else None
    scene = Scene(
        {**cut.features, **{name: around[key] for key, name in names.items()}},
        {name: around[key] for key, name in outside.items()},
        explicit,
        [{**cut.met(found), **{both[key]: leaf for key, leaf in found.leaves.items() if key in both}} for found in reached],
        [frozenset(both[key] for key in found.uncertain if key in both) | cut.doubtful(found) for found in reached],
        Cut(cut.features, trunk, unknown),
        any(found.once for found in reached),
    )
    return scene, memory


def groups_of(scene: Scene, losses: Losses, memory: Memory, by_loss: Sequence[Container[str]]) -> tuple[list[Group], Reach, dict[str, tuple[str, ...]]]:
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
