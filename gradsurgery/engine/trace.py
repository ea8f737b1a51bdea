"""The trace of a step: what is trained, which loss reaches what, and the groups that follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from gradsurgery.engine.grouping import Group, make_groups
from gradsurgery.engine.parallel.dtensor import Spread
from gradsurgery.engine.parameters import is_parameter
from gradsurgery.engine.reach import Reach

SMALL = 1 << 14  # weights with fewer entries are not worth a short cut


@dataclass(frozen=True)
class Trace:
    """What a step trains, by name, and what each loss reaches of it.

    Attributes:
        trained: the parameters that are solved for, and the features in place of their trunk.
        others: reached parameters that were not given.
        explicit: the group each was given in, or None.
        reach: which objectives reach each, as the graph says.
        before: the reach of the steps before.
        features: the features by name, where the user gave some.
        trunk: the trained parameters that the features were computed from.
        trunk_others: the reached ones there that were not given.
        single_pass: whether a compiled region allows one backward pass only.
        unreached: the given parameters that no loss reaches.
        spread: each process's share of parameters that are DTensors; None without any.
    """

    trained: dict[str, Tensor]
    others: dict[str, Tensor]
    explicit: dict[str, str] | None
    reach: Reach
    before: Reach
    features: dict[str, Tensor] = field(default_factory=dict)
    trunk: list[Tensor] = field(default_factory=list)
    trunk_others: list[Tensor] = field(default_factory=list)
    single_pass: bool = False
    unreached: dict[str, Tensor] = field(default_factory=dict)
    spread: Spread | None = None

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Trained and other parameters (and features) by name."""
        return {**self.trained, **self.others}

    @cached_property
    def forms(self) -> dict[str, Tensor]:
        """What this process's gradients look like, by name: as the parameters, or their shares."""
        return self.tensors if self.spread is None else self.spread.forms(self.tensors)

    @cached_property
    def together(self) -> list[list[int]]:
        """Per backward pass its losses, where each gives its own gradients."""
        return passes(self.wanted)

    @cached_property
    def targets(self) -> dict[str, Tensor]:
        """Every parameter that may get a gradient, by name, those of the trunk by number."""
        if not self.features:
            return self.tensors
        named = {name: t for name, t in self.tensors.items() if name not in self.features}
        return {**named, **self.trunk_named(self.trunk + self.trunk_others)}

    def trunk_named(self, wanted: list[Tensor]) -> dict[str, Tensor]:
        """Tensors of the trunk under the names that they have in `targets`."""
        numbers = {id(t): i for i, t in enumerate(self.trunk + self.trunk_others)}
        return {f".trunk#{numbers[id(t)]}": t for t in wanted}

    @cached_property
    def matrices(self) -> dict[str, Tensor]:
        """Trained real tensors, no vectors, that several losses reach: perhaps layers' weights."""
        found = {n: t for n, t in self.trained.items() if t.ndim > 1 and not t.is_complex()}
        return {n: t for n, t in found.items() if self.reach.count(n) > 1}

    @cached_property
    def large(self) -> bool:
        """Whether some of these are large enough for a short cut to their Gram matrix."""
        return any(t.numel() >= SMALL for t in self.matrices.values())

    @property
    def watched(self) -> dict[str, Tensor]:
        """Every parameter whose `.grad` stays as it is until the step is decided, by name."""
        return {**self.unreached, **self.targets}

    @cached_property
    def unchecked(self) -> frozenset[str]:
        """Leaves that are no parameters, such as inputs.

        As in torch it is not asked whether their gradients are finite.
        """
        return frozenset(name for name, t in self.others.items() if not is_parameter(t))

    @cached_property
    def wanted(self) -> list[dict[str, Tensor]]:
        """Per loss the parameters (and features) that its graph reaches."""
        tensors = self.tensors
        return [{name: tensors[name] for name in names} for names in self.reach.by_loss()]

    @cached_property
    def grouping(self) -> tuple[list[Group], Reach]:
        """The groups by the graph's reach, and the reach so far with this step's."""
        return self.grouped(self.reach)

    @cached_property
    def reached(self) -> dict[str, Tensor]:
        """Everything that some loss reaches, in the order of the groups."""
        return {name: t for group in self.grouping[0] for name, t in group.parameters.items()}

    @cached_property
    def outline(self) -> list[tuple[str, tuple[str, ...], int, list[int]]]:
        """Name, objectives, number of parameters and the objectives' places of each group."""
        place = {name: i for i, name in enumerate(self.reach.objectives)}
        return [
            (g.name, g.objectives, len(g.parameters), [place[o] for o in g.objectives])
            for g in self.grouping[0]
        ]

    def grouped(self, reach: Reach) -> tuple[list[Group], Reach]:
        """The groups by a reach that only gradients showed."""
        own = self.trained, self.others, self.unchecked, self.explicit
        return make_groups(*own, reach, self.before)

    def joined(self, new: "Trace") -> "Trace":
        """Both traces as one, in the order of the first and then of what is new."""
        explicit = None if self.explicit is None else {**self.explicit, **(new.explicit or {})}
        return Trace(
            {**self.trained, **new.trained},
            {**self.others, **new.others},
            explicit,
            self.reach.joined(new.reach),
            self.before,
            single_pass=self.single_pass or new.single_pass,
            spread=new.spread,
        )


def passes(wanted: Sequence[Mapping[str, Tensor]]) -> list[list[int]]:
    """The losses that take part in one pass: those that share no parameter."""
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
