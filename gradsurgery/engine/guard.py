"""What the optimizer's step does to the objectives of a group, and the nearest step raising none.

With the step u = θ' − θ, the gradients J [n, d] and a metric P, the corrected step is

    u' = argmin ½ (u' − u)ᵀ P⁻¹ (u' − u)   s.t.   Ju' <= 0,

so u' = u − PJᵀλ with λ >= 0, Aλ >= c, λᵀ(Aλ − c) = 0 for A = JPJᵀ and c = Ju.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.engine.changes import Made
from gradsurgery.engine.communicator import SingleProcess
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.metric import Metric, Scales, is_identity, scale_here
from gradsurgery.engine.parallel.dtensor import local_of
from gradsurgery.gradients.along import Along, Ends, correction, metric_products, rounding
from gradsurgery.gradients.matrix import GradientMatrix
from gradsurgery.gradients.transfer import to_host
from gradsurgery.solvers import least_correction
from gradsurgery.types import Array

# A product counts as positive above this part of ‖gᵢ‖‖u‖, and above what rounding of θ can add.
SINGLE, DOUBLE = 1e-6, 1e-12
ENOUGH = 1e-6  # of a solver's gap: what it leaves is seen when the step is evaluated again
MARGIN = 2.0  # of what is left above zero, the second time
Guards = NDArray[np.bool_]
Writes = list[tuple[Tensor, Tensor]]  # this process's part of a parameter, and its new numbers


@dataclass(eq=False)
class GroupStep:
    """One group after the optimizer's step.

    Args:
        group: the group; its tensors may be this process's shares.
        matrix: the gradients of the step.
        parameters: whole, in the same order; None for one that the optimizer does not hold.
        before: each of them before the step, by its id.
        communicator: adds numbers over the processes.
    """

    group: Group
    matrix: GradientMatrix
    parameters: list[Tensor | None]
    before: Mapping[int, Tensor]
    communicator: SingleProcess

    @property
    def moving(self) -> list[Tensor]:
        """The parameters that the optimizer holds."""
        return [parameter for parameter in self.parameters if parameter is not None]

    @cached_property
    def names(self) -> list[str]:
        """Of the parameters, in the same order."""
        return list(self.group.parameters)

    @cached_property
    def portions(self) -> list[float]:
        """What this process's products of each tensor count in sums over the processes."""
        return [self.communicator.portion(name) for name in self.names]

    def ends(self, t: int) -> tuple[Tensor, Tensor] | None:
        """This process's part of one tensor after the step, and before."""
        parameter = self.parameters[t]
        if parameter is None:
            return None
        return self._part(t, parameter), self._part(t, self.before[id(parameter)])

    def planned(self, t: int, weights: Array, metric: Metric) -> Tensor | None:
        """Its part of one tensor as stored once the step is corrected by λ [rows]."""
        parameter = self.parameters[t]
        if parameter is None:
            return None
        scale = self._scale(t, parameter, metric)
        away = correction(self.matrix.blocks[t], weights, scale)
        now = self._part(t, parameter)
        return None if away is None else (now - away.view(now.shape)).to(now.dtype)

    def along(self) -> Along:
        """What the step does to each row, on its way to the host."""
        return self._along(self.ends)

    def as_planned(self, weights: Array, metric: Metric) -> Along:
        """The same of the step to what is planned, in float64: one tensor of it at a time."""

        def ends(t: int) -> tuple[Tensor, Tensor] | None:
            pair, new = self.ends(t), self.planned(t, weights, metric)
            return pair if pair is None or new is None else (new, pair[1])

        found = self._along(ends, precise=True)
        to_host([found], total=self.communicator.added)
        return found

    def all_planned(self, weights: Array, metric: Metric) -> dict[str, Tensor]:
        """All that is planned, by name. The gradients are used up: each tensor's are gone."""
        parts: dict[str, Tensor] = {}
        for t, name in enumerate(self.names):
            new = self.planned(t, weights, metric)
            if new is not None:
                parts[name] = new
            gradients = self.matrix.blocks[t].gradients
            if isinstance(gradients, list):
                gradients[:] = [None] * len(gradients)
        return parts

    def whole(self, parts: dict[str, Tensor]) -> Writes:
        """What is to be written where, from the parts of all processes."""
        whole, found = self.communicator.whole(parts), Writes()
        for name, parameter in zip(self.names, self.parameters, strict=True):
            if parameter is not None and name in parts:
                own, new = local_of(parameter.detach()), whole[name]
                found.append((own if new.is_complex() == own.is_complex() else _real(own), new))
        return found

    def back(self) -> Writes:
        """The parameters as they were before the step: u' = 0."""
        pairs = [(p.detach(), self.before[id(p)]) for p in self.moving]
        return [(local_of(own), local_of(old)) for own, old in pairs]

    def products(self, metric: Metric) -> tuple[Array, Array]:
        """JPJᵀ and JP²Jᵀ [n, n] of the objectives."""
        n, m = len(self.group.objectives), self.matrix.batches
        total = torch.zeros(2, n * m, n * m, dtype=torch.float64)
        for t, parameter in enumerate(self.parameters):
            if parameter is not None:
                product = metric_products(self.matrix.blocks[t], self._scale(t, parameter, metric))
                total += product.cpu() * self.portions[t]
        total = self.communicator.added([], [total])[0]
        both = total.cpu().numpy().reshape(2, m, n, m, n).mean((1, 3))
        return both[0], both[1]

    @cached_property
    def norms(self) -> Array:
        """‖gᵢ‖ of all rows, as they are (times the scale of a GradScaler)."""
        return np.asarray(np.sqrt(np.diagonal(self.matrix._total)))

    def _rounding(self, found: Along) -> Array:
        """What rounding of the parameters that a step stores can add to each product [rows].

        At most ‖gᵢ‖ times the length of all roundings; where that is not enough to tell, it is
        summed with the gradients.
        """
        if found.rounding is None:
            length = float(self._added_up(found, False)[0]) ** 0.5
            found.rounding = self.norms * length
            change = self.mean(found.products)
            if ((change > 0) & (change <= self.mean(found.rounding))).any():
                found.rounding = self._added_up(found, True)
        return found.rounding

    def _added_up(self, found: Along, rows: bool) -> Array:
        total = torch.zeros(self.matrix.count if rows else 1, dtype=torch.float64)
        for t, portion in enumerate(self.portions):
            pair = found.ends(t)
            if pair is not None:
                total += rounding(self.matrix.blocks[t] if rows else None, pair[0]).cpu() * portion
        return np.asarray(self.communicator.added([], [total])[0].cpu().numpy())

    @cached_property
    def _relative(self) -> float:
        dtypes = {parameter.dtype.to_real() for parameter in self.moving}
        return DOUBLE if dtypes == {torch.float64} else SINGLE

    def risen(self, found: Along) -> Guards:
        """Which objectives a step raises to first order [n]."""
        change = self.mean(found.products)
        with np.errstate(invalid="ignore", over="ignore"):  # a step that is not finite raises none
            over = change > self.mean(self._relative * self.norms * found.size)
            if over.any():
                over &= change > self.mean(self._rounding(found))
        return np.asarray(over)

    def mean(self, rows: Array) -> Array:
        """Numbers of all rows as those of the objectives: means over the batches."""
        return np.asarray(rows.reshape(self.matrix.batches, -1).mean(0))

    def made(self, found: Along, corrected: float | None = None, metric: str | None = None) -> Made:
        """What a step does, for the record."""
        change, names = self.mean(found.products) / self.matrix.scale, self.group.objectives
        return Made(names, change, self.risen(found), corrected, metric)

    def _along(self, ends: Ends, precise: bool = False) -> Along:
        matrix = self.matrix
        return Along(matrix.blocks, matrix.runs, ends, self.norms, self.portions, precise)

    def _part(self, t: int, tensor: Tensor) -> Tensor:
        return _real(self.communicator.part(self.names[t], tensor.detach()))

    def _scale(self, t: int, parameter: Tensor, metric: Metric) -> Tensor | float:
        part = partial(self.communicator.part, self.names[t])
        return scale_here(metric.scales[id(parameter)], parameter, part)


def corrected(
    step: GroupStep, found: Along, guards: Guards, metric: Callable[[], Metric]
) -> tuple[Made, Writes]:
    """The correction of one group's step, where some guarded objective rises.

    Args:
        step: the group.
        found: what its step does.
        guards: which objectives are guarded [n].
        metric: gives P, where something is to be corrected.

    Returns:
        What is said of the step that is made, and what is to be written for it: nothing yet is.
    """
    if not np.isfinite(found.products).all() or not (step.risen(found) & guards).any():
        return step.made(found), []
    change = step.mean(found.products)[guards]
    used, product, weights = _first(step, change, found.size, guards, metric())
    for _ in range(2):
        if weights is None:
            break
        rows = _of_rows(step, weights, guards)
        accepted = step.as_planned(rows, used)
        if not (step.risen(accepted) & guards).any():
            made = step.made(accepted, accepted.size / found.size, _name(used))
            return made, step.whole(step.all_planned(rows, used))
        left = np.maximum(step.mean(accepted.products)[guards], 0)
        weights = _solved(product, change + MARGIN * left)
    return Made.none(step.group.objectives, corrected=0.0, metric=_name(used)), step.back()


def _first(
    step: GroupStep, change: Array, size: float, guards: Guards, metric: Metric
) -> tuple[Metric, Array, Array | None]:
    """The metric, A and λ: the optimizer's metric, or the identity where ‖PJᵀλ‖ > ‖u‖ with it."""
    for used in (metric, _identity(metric)):
        both = step.products(used)
        product, square = (part[np.ix_(guards, guards)] for part in both)
        weights = _solved(product, change)
        if weights is not None and weights @ square @ weights <= size**2:
            break
    return used, product, weights


def _solved(product: Array, change: Array) -> Array | None:
    """λ [guarded], or None where the solver has none."""
    found = least_correction(product, change)
    return found.value if found.gap <= ENOUGH else None


def _identity(metric: Metric) -> Metric:
    """The identity on what moves at all: with it ‖PJᵀλ‖ <= ‖u‖. It is named by what it replaces."""

    def moves(key: int) -> Tensor | float:
        scale = metric.scales[key]
        return (scale > 0).float() if isinstance(scale, Tensor) else float(scale > 0)

    scales = Scales({key: partial(moves, key) for key in metric.scales})
    forms = ", ".join(sorted({n for n in metric.names.values() if not is_identity(n)}))
    name = f"identity in place of {forms}" if forms else _name(metric)
    return Metric(scales, dict.fromkeys(metric.names, name))


def _name(metric: Metric) -> str:
    return ", ".join(sorted(set(metric.names.values())))


def _of_rows(step: GroupStep, weights: Array, guards: Guards) -> Array:
    """λ of the guarded objectives as one weight per row."""
    spread = np.zeros(len(guards))
    spread[guards] = weights
    return np.tile(spread / step.matrix.batches, step.matrix.batches)


@torch.no_grad()
def write(writes: Writes) -> None:
    """Write corrected parameters by one call of C: all, or none."""
    if writes:
        torch._foreach_copy_([own for own, _ in writes], [new for _, new in writes])


def _real(tensor: Tensor) -> Tensor:
    """A tensor in real numbers, without its graph: a view."""
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
