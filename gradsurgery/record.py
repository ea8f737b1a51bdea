"""Record: what a step decided, group by group."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from gradsurgery.solvers import is_stationary
from gradsurgery.types import Array


@dataclass(frozen=True)
class GroupRecord:
    """One parameter group in one step: its objectives, their Gram matrix, and their weights.

    Attributes:
        name: the group's name; by default the objectives that reach it, sorted and joined with "+".
        objectives: the names of the n objectives that reached it, in the order of rows and columns
            below.
        strategy: what was applied: the strategy's name, or "plain" where the gradients were added.
        parameters: how many parameter tensors it has.
        gram: G [n, n] float64, Gᵢⱼ = ⟨gᵢ, gⱼ⟩, after the user's own loss weights. Under
            `Surgery(decide_on=)` of the gradients at those parameters alone. None where it was
            not measured: where no gradient of a single loss was formed (`gradsurgery.inspect` gives
            it, and `Surgery(measure=k)`), and in a step that a scaler skips.
        weights: [n], or [k, n] with one row per parameter tensor; None for a strategy that returns
            a direction itself.
        gap: the solver's relative optimality gap; None where no solver ran.
        converged: whether that gap is below the solver's tolerance; None where no solver ran.
        replayed: whether the weights are those of an earlier step (`Surgery(every=k)`).
        absent: objectives that reach it with a gradient of exactly zero and were left out of this
            step's problem (`Surgery(zero="absent")`); they are not among `objectives`.
        eps: the relative accuracy of the Gram's entries; None without a Gram matrix, and where
            something is not finite.
        change: ⟨gᵢ, u⟩ [n], the change of each loss to first order under the step u that the
            optimizer made of the group's parameters (`Surgery.step`); None where that is not known.
        risen: the objectives whose change is positive beyond rounding; None as above.
        corrected: ‖u'‖/‖u‖, where `guard="correct"` made u' of the optimizer's step u; 0 where
            only u' = 0 raises none.
        metric: in which metric it was corrected: "adam", ..., or "identity", the learning rate
            alone. "identity for Lion": that one's scaling is not known. "identity in place of
            adam": in Adam's the correction was longer than u.
        unmeasured: why `change` is None.
        solved_in: in which metric the weights were solved under `Surgery.step(metric="optimizer")`:
            named as above. None in the Euclidean one, and for what was not solved now.
        solved_gram: JPJᵀ [n, n] in that metric; `gram`, `norms` and `cosines` stay Euclidean.
    """

    name: str
    objectives: tuple[str, ...]
    strategy: str
    parameters: int
    gram: Array | None = None
    weights: Array | None = None
    gap: float | None = None
    converged: bool | None = None
    replayed: bool = False
    absent: tuple[str, ...] = ()
    eps: float | None = None
    change: Array | None = None
    risen: tuple[str, ...] | None = None
    corrected: float | None = None
    metric: str | None = None
    unmeasured: str | None = None
    solved_in: str | None = None
    solved_gram: Array | None = None

    @property
    def norms(self) -> Array | None:
        """‖gᵢ‖ [n], or None without a Gram matrix."""
        return None if self.gram is None else np.sqrt(np.diagonal(self.gram))

    @cached_property
    def cosines(self) -> Array | None:
        """cos(gᵢ, gⱼ) [n, n]; None without a Gram matrix.

        A zero gradient has cosine 0 with the others.
        """
        if self.gram is None or self.norms is None:
            return None
        safe = np.where(self.norms > 0, self.norms, 1.0)
        cosines: Array = np.clip(self.gram / safe / safe[:, None], -1.0, 1.0)
        np.fill_diagonal(cosines, 1.0)
        return cosines

    @property
    def conflicts(self) -> tuple[tuple[str, str], ...] | None:
        """The pairs of objectives whose gradients have a negative cosine; None if not measured.

        Orthogonal gradients have one half of the time, by chance: read them beside `mean_cosine`.
        """
        if self.cosines is None:
            return None
        rows, columns = np.nonzero(np.triu(self.cosines, 1) < 0)
        return tuple(
            (self.objectives[i], self.objectives[j])
            for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
        )

    @property
    def mean_cosine(self) -> float | None:
        """The mean cosine over all pairs of objectives; None without pairs or a Gram matrix."""
        if self.cosines is None or len(self.objectives) < 2:
            return None
        return float(self.cosines[np.triu_indices(len(self.cosines), 1)].mean())

    @cached_property
    def stationary(self) -> bool | None:
        """Whether the gradients are Pareto stationary up to rounding.

        Some convex combination of them is then zero. Found when first read, by the min-norm point:
        ‖d‖² <= 10·eps·(Σ wⱼnⱼ)². None without a Gram matrix.
        """
        if self.gram is None or self.eps is None:
            return None
        return is_stationary(self.gram, eps=self.eps)


def group_record(
    name: str,
    objectives: tuple[str, ...],
    strategy: str,
    parameters: int,
    weights: Array | None = None,
    gap: float | None = None,
    converged: bool | None = None,
    replayed: bool = False,
    gram: Array | None = None,
    eps: float | None = None,
    absent: tuple[str, ...] = (),
) -> GroupRecord:
    """A `GroupRecord`: the one place where a step makes them.

    It is made once per group and step, without the checks of a frozen dataclass's constructor,
    which take several times as long.
    """
    record = object.__new__(GroupRecord)
    record.__dict__.update(
        name=name,
        objectives=objectives,
        strategy=strategy,
        parameters=parameters,
        gram=gram,
        weights=weights,
        gap=gap,
        converged=converged,
        replayed=replayed,
        absent=absent,
        eps=eps,
    )
    return record


@dataclass(frozen=True)
class Record(Mapping[str, GroupRecord]):
    """What one step decided: group name -> `GroupRecord`, in the order of the parameters.

    Attributes:
        strategy: the strategy's name, or None from `inspect`.
        losses: name -> value of each loss, as given (before the user's weights).
        groups: name -> GroupRecord; `record["audio+fused"]` is `record.groups["audio+fused"]`.
        step: how many steps the `Surgery` had taken before this one; 0 for the one-shot forms.
        overflow: whether, under a GradScaler, something was not finite. Then every `.grad` got
            infinity, for the scaler to skip the optimizer's step, and the `Surgery` is as it was;
            groups have neither a Gram matrix nor weights.
        change: name -> change of each loss to first order under the step that the optimizer made
            of all parameters that it holds (`Surgery.step`); None where a group's is not known.
        method: with `PerExample` how the gradients were had, and by how many passes; else None.
    """

    strategy: str | None
    losses: dict[str, float]
    groups: dict[str, GroupRecord]
    step: int = 0
    overflow: bool = False
    change: dict[str, float] | None = None
    method: str | None = None

    @classmethod
    def deferred(
        cls,
        strategy: str | None,
        names: Sequence[str],
        batches: int,
        values: Tensor,
        groups: dict[str, GroupRecord],
        step: int,
        method: str | None = None,
    ) -> "Record":
        """A Record whose losses come to the host when they are first read.

        Args are as of a Record, and `values` those of the losses [m·n] of m batches.
        """
        record = object.__new__(cls)
        pending = tuple(names), batches, values
        record.__dict__.update(
            strategy=strategy, groups=groups, step=step, overflow=False, method=method
        )
        record.__dict__["_pending"] = pending
        return record

    def __getattr__(self, name: str) -> Any:
        """The losses of a deferred Record; other attributes are there, or do not exist."""
        if name != "losses" or "_pending" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        names, batches, values = self.__dict__.pop("_pending")
        rows = values.double().reshape(batches, len(names))
        numbers = (rows.mean(0) if batches > 1 else rows[0]).tolist()  # a mean loses the sign of -0
        self.__dict__["losses"] = losses = dict(zip(names, numbers, strict=True))
        return losses

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "losses": self.losses}

    def __getitem__(self, name: str) -> GroupRecord:
        try:
            return self.groups[name]
        except KeyError:
            raise KeyError(
                f"no group {name!r}; the groups are {', '.join(map(repr, self.groups)) or 'none'}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the losses of this step, in the order given."""
        return tuple(self.losses)

    def __str__(self) -> str:
        values = ", ".join(f"{k} = {v:.4g}" for k, v in self.losses.items())
        first = f"step {self.step}: {self.strategy or 'inspect'} on {values}"
        first += "; overflow, to be skipped" if self.overflow else ""
        first += f"; {self.method}" if self.method else ""
        return "\n".join([first, *map(self._line, self.groups.values())])

    def _line(self, group: GroupRecord) -> str:
        again = ", replayed" if group.replayed else ""
        what = f", {group.strategy}{again}" if self.strategy else ""
        line = f"  {group.name} ({group.parameters} tensors{what})"
        if group.weights is not None and group.objectives:
            flat = group.weights if group.weights.ndim == 1 else group.weights.mean(0)
            pairs = zip(group.objectives, flat.tolist(), strict=True)
            line += ": " + ", ".join(f"{o} {w:.3g}" for o, w in pairs)
        elif group.cosines is not None and len(group.objectives) > 1:
            i, j = np.unravel_index(np.argmin(group.cosines), group.cosines.shape)
            pair = f"{group.objectives[i]}/{group.objectives[j]}"
            line += f": least cosine {group.cosines[i, j]:.3g} ({pair})"
        if group.mean_cosine is not None:
            conflicts = ", ".join("/".join(pair) for pair in group.conflicts or ())
            none = "no conflict" if np.isfinite(group.mean_cosine) else "not finite"
            line += f"; mean cosine {group.mean_cosine:.3g}, "
            line += f"conflicts {conflicts}" if conflicts else none
        elif group.gram is None and len(group.objectives) > 1:
            line += "; conflicts not measured"
        if group.absent:
            line += f"; absent, with a gradient of zero: {', '.join(group.absent)}"
        if group.solved_in is not None:
            line += f"; solved in the metric {group.solved_in!r}"
        if group.risen:
            line += f"; raised by the optimizer's step: {', '.join(group.risen)}"
        if group.corrected is not None:
            line += f"; corrected to {group.corrected:.3g} of its length ({group.metric})"
        if group.unmeasured is not None:
            line += f"; step not measured: {group.unmeasured}"
        missing = self._split_by(group)
        return line if missing is None else f"{line}; {missing}"

    def _split_by(self, group: GroupRecord) -> str | None:
        """What to say of a group of one tensor that a single loss splits off, by not reaching it.

        A loss that reaches some part alone has a head there: that is how the model is meant.
        """
        own = {*group.objectives, *group.absent}
        if group.parameters != 1 or "+".join(sorted(own)) != group.name:
            return None  # others are named by the user
        reaching = [(other, {*other.objectives, *other.absent}) for other in self.groups.values()]
        # inputs that require grad are among the other leaves, and no head
        reaching = [
            (other, names)
            for other, names in reaching
            if other.name.startswith("+".join(sorted(names)))
        ]
        for other, names in reaching:
            missing = names - own
            alone = any(missing & those and not own <= those for _, those in reaching)
            if other.parameters > 1 and own < names and len(missing) == 1 and not alone:
                return (
                    f"its one tensor is apart from {other.name!r} only because {missing.pop()!r} "
                    "does not reach it (one group for both: parameters={'net': net})"
                )
        return None
