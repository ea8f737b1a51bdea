"""The scene of a step: what is trained, which loss reaches what, and the groups that follow."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.boundary import Cut, Cutting
from gradsurgery.engine.compiled import ONE_PASS
from gradsurgery.engine.config import Config
from gradsurgery.engine.graph import Graph, walk
from gradsurgery.engine.grouping import Group, Grouping, Reach, make_groups
from gradsurgery.engine.history import History
from gradsurgery.engine.joined import Joined, may_be_joined
from gradsurgery.engine.losses import Losses
from gradsurgery.engine.parameters import is_parameter
from gradsurgery.errors import InputError, warn
from gradsurgery.gradients.coordinates import check_layout

OTHERS = "others"
Given = Mapping[int, tuple[Any, ...]]  # parameters by id: name, tensor, and more


Plan = Config


@dataclass(frozen=True)
class Scene:
    """What a step trains, by name, and what each loss reaches of it.

    Attributes:
        trained: the parameters that are solved for, and the features in place of those behind them.
        others: reached parameters that were not given.
        explicit: the group each was given in, or None.
        count: the number of losses, one batch after the other.
        met: for each name the losses whose graphs reach it, one bit each.
        unsure: for each name those of them that reach it or not, behind a compiled region; only where there are any.
        cut: the features.
        once: whether a compiled region allows one backward pass only.
        unreached: the given parameters that no loss reaches.
        retained: one True where a batched pass has found activations under `retain_grad()`.
        grouped: what was met last, the reach before that, and the groups that followed.
        proved: weights whose tapped gradient was compared with autograd's own, and whether both agreed.
    """

    trained: dict[str, Tensor]
    others: dict[str, Tensor]
    explicit: dict[str, str] | None
    count: int
    met: dict[str, int]
    unsure: dict[str, int]
    cut: Cut
    once: bool = False
    unreached: dict[str, Tensor] = field(default_factory=dict)
    retained: list[bool] = field(default_factory=list, compare=False, repr=False)
    grouped: list[tuple[Mapping[str, int], Reach, Grouping]] = field(
        default_factory=list, compare=False, repr=False
    )
    proved: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    def parameter(self, name: str) -> Tensor:
        return self.trained[name] if name in self.trained else self.others[name]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Trained and other parameters (and features) by name."""
        return {**self.trained, **self.others}

    @property
    def watched(self) -> dict[str, Tensor]:
        """Every parameter whose `.grad` stays as it is until the step is decided, by name."""
        named = {**self.unreached, **self.tensors}
        hidden = {f"#{i}": t for i, t in enumerate([*self.cut.trunk, *self.cut.others])}
        return {**{name: t for name, t in named.items() if name not in self.cut.features}, **hidden}

    @cached_property
    def unchecked(self) -> frozenset[str]:
        """Leaves that are no parameters, such as inputs: as in torch it is not asked whether their gradients are finite."""
        return frozenset(name for name, t in self.others.items() if not is_parameter(t))

    @cached_property
    def wanted(self) -> list[dict[str, Tensor]]:
        """For each loss the parameters (and features) that its graph reaches."""
        pairs = [(name, self.parameter(name), losses) for name, losses in self.met.items()]
        return [
            {name: tensor for name, tensor, losses in pairs if losses >> i & 1}
            for i in range(self.count)
        ]

    @property
    def written(self) -> list[Tensor]:
        """Every parameter that gets a gradient."""
        return [
            t
            for name, t in {**self.trained, **self.others}.items()
            if name not in self.cut.features
        ] + [*self.cut.trunk, *self.cut.others]

    def likely(self, losses: Losses, reach: Reach) -> dict[str, int] | None:
        """What each loss reaches as far as it is known before gradients: what it has reached before. None where the graph shows more than that.

        Behind compiled regions it always does, and what no loss has reached before is left out.
        """
        known = {}
        for name, met in self.met.items():
            before = (
                met
                if name in self.others
                else sum(1 << i for i, o in enumerate(losses.names) if o in reach.get(name, ()))
            )
            if met & ~before & ~(self.unsure.get(name, 0) if name in reach else 0):
                return None
            known[name] = met & before
        return known

    def joined(self, mine: Sequence[str], new: "Scene", theirs: Sequence[str]) -> "Scene":
        """Both scenes as one: those of the losses `mine` and `theirs`, in the order of the first and then of what is new."""
        order = tuple(dict.fromkeys((*mine, *theirs)))
        bits = {name: 1 << i for i, name in enumerate(order)}
        met: dict[str, int] = {}
        surely: dict[str, int] = {}
        for scene, names in ((self, mine), (new, theirs)):
            for name, losses in scene.met.items():
                both = [bits[o] for i, o in enumerate(names) if losses >> i & 1]
                sure = [
                    bits[o]
                    for i, o in enumerate(names)
                    if (losses & ~scene.unsure.get(name, 0)) >> i & 1
                ]
                met[name], surely[name] = (
                    met.get(name, 0) | sum(both),
                    surely.get(name, 0) | sum(sure),
                )
        unsure = {
            name: losses & ~surely[name] for name, losses in met.items() if losses & ~surely[name]
        }
        explicit = None if self.explicit is None else {**self.explicit, **(new.explicit or {})}
        merged = {**self.trained, **new.trained}, {**self.others, **new.others}
        return Scene(*merged, explicit, len(order), met, unsure, self.cut, self.once or new.once)


@dataclass(frozen=True)
class Seen:
    """The scene of a step, and what to know it again by: what was given, what was known, the losses' names, and the leaves with the losses that reach each."""

    scene: Scene
    given: Given
    known: Given
    names: tuple[str, ...]
    leaves: list[tuple[Tensor, int]]
    joins: int = 0

    def again(self, given: Given, known: Given, losses: Losses, graph: Graph) -> bool:
        same = (
            given is self.given
            and known is self.known
            and losses.names == self.names
            and len(losses.tensors) == self.scene.count
        )
        if not same or len(graph.leaves) != len(self.leaves) or len(graph.joins) != self.joins:
            return False
        pairs = zip(graph.leaves.values(), self.leaves, strict=True)
        return all(
            visit.leaf is leaf and visit.losses == visit.surely == bits
            for visit, (leaf, bits) in pairs
        )


def look(
    plan: Plan, losses: Losses, memory: History, features: dict[str, Tensor] | None = None
) -> tuple[Scene, History, Graph]:
    """The scene of a step, what is known of the parameters now, and the graph; the last step's scene where nothing has changed."""
    cut = Cutting(features or {})
    graph = walk(losses.tensors, losses.names * losses.batches, cut.places)
    given = plan.parameters.named()
    plan.check_processes(graph)
    for seen in plan.seen:
        if not features and seen.again(given, memory.known, losses, graph):
            return seen.scene, memory, graph
    graph = _told_apart(plan, losses, cut, graph)
    scene, memory = _look(plan, losses, memory, cut, graph, given)
    plan.seen.clear()
    leaves = [
        (v.leaf, v.losses)
        for v in graph.leaves.values()
        if v.leaf is not None and v.losses == v.surely
    ]
    known_again = len(leaves) == len(graph.leaves) == len(scene.met) and not features
    if known_again and all(
        map(is_parameter, scene.others.values())
    ):  # so that no inputs or features are held on to
        plan.seen.append(Seen(scene, given, memory.known, losses.names, leaves, len(graph.joins)))
    return scene, memory, graph


def _told_apart(plan: Plan, losses: Losses, cut: Cutting, graph: Graph) -> Graph:
    """The graph from where each loss was before losses were joined; the same where none were."""
    if not may_be_joined(graph, len(losses.tensors)):
        return graph
    key = losses.names, len(graph.joins), tuple([visit.losses for visit in graph.leaves.values()])
    if plan.apart == [key]:  # as in the last step in which nothing was found
        return graph
    names = losses.names * losses.batches
    joined = Joined(losses.tensors, names, graph, cut.places)
    if joined.warning and joined.warning not in plan.told:
        plan.told.add(joined.warning)
        warn(joined.warning)
    if joined.starts:
        apart = walk(losses.tensors, names, cut.places, joined.starts)
        if (
            apart.leaves.keys() == graph.leaves.keys()
        ):  # a part that no loss takes gets zeros from torch, not nothing
            return apart
    plan.apart[:] = [key]
    return graph


def _look(
    plan: Plan, losses: Losses, memory: History, cut: Cutting, graph: Graph, given: Given
) -> tuple[Scene, History]:
    features = cut.features
    around = graph.leaves
    behind, behind_once = cut.behind(graph)
    if plan.parameters.discover:
        memory.check_resumable(losses.names)
        new = [key for key in around if key not in memory.known and is_parameter(graph.tensor(key))]
        known = (
            {
                **memory.known,
                **{
                    key: (f"#{len(memory.known) + i}", graph.tensor(key))
                    for i, key in enumerate(new)
                },
            }
            if new
            else memory.known
        )
        memory = (
            replace(memory, known=known, numbered=memory.numbered + 1 if memory.known else 1)
            if new
            else memory
        )
        names = {key: known[key][0] for key in around if key in known}
        trunk = [leaf for leaf in behind.values() if is_parameter(leaf)]
        if not names and not trunk:
            raise InputError(
                f"the losses reach no nn.Parameter (they reach {len(around)} other leaf tensors): give the tensors to train as parameters=."
            )
    else:
        names = {key: name for key, (name, _, _) in given.items() if key in around}
        trunk = [leaf for key, leaf in behind.items() if key in given]
        if not names and not trunk:
            raise InputError(
                f"the losses reach none of the {len(given)} trainable parameters given."
            )
    outside, unknown = {}, []
    if plan.include_others:
        # Leaves of every kind, as in torch: a coefficient in the optimizer need not be an nn.Parameter.
        outside = {
            key: f"{OTHERS}#{key:x}"
            for key in around
            if key not in names and _is_taken(plan, graph.tensor(key))
        }
        unknown = [
            leaf
            for leaf in behind.values()
            if not any(leaf is t for t in trunk) and _is_taken(plan, leaf)
        ]
    both = {**names, **outside}
    tensors = {name: graph.tensor(key) for key, name in both.items()}
    for name, leaf in tensors.items():
        check_layout(name, leaf)
    for leaf in (*trunk, *unknown):
        check_layout(given[id(leaf)][0] if id(leaf) in given else "#", leaf)
    if behind_once and trunk and unknown:
        raise InputError(ONE_PASS)
    if features:
        leaves = {**{key: graph.tensor(key) for key in around}, **behind}
        cut.check_apart(leaves, {id(leaf) for leaf in (*trunk, *unknown)} & set(both))
    explicit = (
        {name: group for name, _, group in given.values()} if plan.parameters.explicit else None
    )
    visits = {
        **{name: graph.cuts[i] for i, name in enumerate(cut.features)},
        **{name: around[key] for key, name in both.items()},
    }
    scene = Scene(
        {**cut.features, **{name: tensors[name] for name in names.values()}},
        {name: tensors[name] for name in outside.values()},
        explicit,
        len(losses.tensors),
        {name: visit.losses for name, visit in visits.items()},
        {
            name: unsure
            for name, visit in visits.items()
            if (unsure := visit.losses & ~visit.surely)
        },
        Cut(cut.features, trunk, unknown),
        graph.once,
        {name: t for key, (name, t, _) in given.items() if key not in around and key not in behind},
    )
    return scene, memory


def _is_taken(plan: Plan, leaf: Tensor) -> bool:
    """Whether a leaf that was not given takes part; an input of another layout does not, which is said once."""
    if is_parameter(leaf) or (leaf.layout == torch.strided and not leaf.is_nested):
        return True
    form = "a nested tensor" if leaf.is_nested else str(leaf.layout)
    text = f"a leaf of shape {'?' if leaf.is_nested else list(leaf.shape)} that requires grad is {form}: it gets no gradient here."
    if text not in plan.told:
        plan.told.add(text)
        warn(
            f"{text} Where none is wanted make it without requires_grad, or give others='ignore'. Said once."
        )
    return False


def met_by(found: Sequence[Iterable[str]]) -> dict[str, int]:
    """For each name the losses that have found it, one bit each."""
    met: dict[str, int] = {}
    for i, names in enumerate(found):
        for name in names:
            met[name] = met.get(name, 0) | 1 << i
    return met


def groups_of(scene: Scene, losses: Losses, memory: History, met: Mapping[str, int]) -> Grouping:
    """The groups of what is `met`; those of the step before where it met the same."""
    for before, reach, grouping in scene.grouped:
        if reach is memory.reach and before == met:
            return grouping
    grouping = _groups_of(scene, losses, memory, met)
    scene.grouped[:] = [(met, memory.reach, grouping)]
    return grouping


def _groups_of(scene: Scene, losses: Losses, memory: History, met: Mapping[str, int]) -> Grouping:
    n, every = len(losses.names), (1 << len(losses.names)) - 1
    tuples: dict[int, tuple[str, ...]] = {}
    reached = {}
    for name in (*scene.trained, *scene.others):
        bits = met.get(name, 0)
        if bits not in tuples:
            together = 0
            for b in range(losses.batches):
                together |= bits >> b * n & every
            tuples[bits] = tuple(o for i, o in enumerate(losses.names) if together >> i & 1)
        reached[name] = tuples[bits]
    trained = {name: t for name, t in scene.trained.items() if reached[name]}
    groups, reach = make_groups(trained, scene.explicit, reached, memory.reach)
    parameters = {
        name: t for name, t in scene.others.items() if reached[name] and name not in scene.unchecked
    }
    leaves = {
        name: t for name, t in scene.others.items() if reached[name] and name in scene.unchecked
    }
    for others in filter(None, (parameters, leaves)):
        taken = (
            {g.name for g in groups}
            | set((scene.explicit or {}).values())
            | ({OTHERS} if frozenset({OTHERS}) in reach.values() else set())
        )
        title = next(
            t
            for t in (OTHERS, *(f"{OTHERS} ({i})" for i in range(2, len(taken) + 3)))
            if t not in taken
        )
        groups.append(Group(title, title, others, plain=True, unchecked=others is leaves))
    for group in groups:
        present = set().union(*{reached[name] for name in group.parameters})
        group.objectives = tuple(o for o in losses.names if o in present)
    return Grouping(groups, reach, reached)
