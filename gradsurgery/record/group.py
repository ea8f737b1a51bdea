"""GroupRecord: what a step decided for one parameter group."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradsurgery.record.line import line_of
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
        with np.errstate(invalid="ignore"):  # infinite gradients have none: NaN
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

    def named_weights(self) -> dict[str, float] | None:
        """The weight of each objective by name; None where there are none.

        Where each parameter tensor has its own they are the means over the tensors.

        Example:
            >>> import torch, gradsurgery as gs
            >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
            >>> record = gs.backward({"a": weight[0], "b": weight.sum()}, [weight], "mgda")
            >>> record["a+b"].named_weights()
            {'a': 1.0, 'b': 0.0}
            >>> print(record["a+b"])
            a+b (1 tensors, mgda): a 1, b 0; mean cosine 0.707, no conflict
        """
        if self.weights is None:
            return None
        flat = self.weights if self.weights.ndim == 1 else self.weights.mean(0)
        return dict(zip(self.objectives, flat.tolist(), strict=True))

    def __str__(self) -> str:
        inspected = self.strategy == "plain" and self.weights is None
        return line_of(self, not inspected)

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
