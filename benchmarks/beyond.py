"""Whether a corrected step is better than the optimizer's on a batch that it has not seen."""

import copy
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import gradsurgery as gs
from gradsurgery.engine.metric import metric_of
from gradsurgery.tasks import Batch, Problem

KINDS = ("optimizer", "corrected", "control")  # the steps that `beyond` compares


class Run(Protocol):
    """A training, of which each step has its record and its batch."""

    problem: Problem
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def steps(self, count: int) -> Iterator[tuple[gs.Record, Batch]]:
        """The next steps."""


def beyond(run: Run, steps: int, other: Iterator[Batch]) -> dict[str, Any]:
    """In corrected steps three steps from the same parameters, on an independent batch.

    The optimizer's u, the corrected u', and a control: u and as long a piece as u' − u, but along
    −P Σ gᵢ on the step's own batch. It has as much of the newest gradients, and no constraint.
    """
    parameters = list(run.model.parameters())
    uncorrected: list[Tensor] = []

    def keep(*_: Any) -> None:
        uncorrected[:] = [p.detach().clone() for p in parameters]

    run.optimizer.register_step_post_hook(keep)
    probe = copy.deepcopy(run.model)
    rows: dict[str, list[tuple[list[float], list[float]]]] = {}
    before = [p.detach().clone() for p in parameters]
    for record, own in run.steps(steps):
        now = [p.detach().clone() for p in parameters]
        if any(group.corrected is not None for group in record.values()):
            fresh = control(run, probe, before, uncorrected, now, own)
            batch, ends = next(other), (uncorrected, now, fresh)
            start, gradients = values(run.problem, probe, before, batch, True)
            after = [values(run.problem, probe, end, batch)[0] for end in ends]
            for name, row in gradients.items():
                along = [inner(row, [new - old for new, old in zip(end, before, strict=True)])
                         for end in ends]  # fmt: skip
                rows.setdefault(name, []).append((along, [a[name] - start[name] for a in after]))
        before = now
    return {
        "objectives": {
            name: {
                "first order": _columns([a for a, _ in found]),
                "loss": _columns([c for _, c in found]),
            }
            for name, found in rows.items()
        }
    }


def _columns(found: list[list[float]]) -> dict[str, list[float]]:
    return {
        kind: list(column) for kind, column in zip(KINDS, zip(*found, strict=True), strict=True)
    }


def control(
    run: Run,
    probe: nn.Module,
    before: list[Tensor],
    uncorrected: list[Tensor],
    corrected: list[Tensor],
    batch: Batch,
) -> list[Tensor]:
    """Where u and a piece of length ‖u' − u‖ along −P Σ gᵢ lead, in what the correction changed."""
    _, gradients = values(run.problem, probe, before, batch, True)
    parameters = list(run.model.parameters())
    changed = [not torch.equal(a, b) for a, b in zip(uncorrected, corrected, strict=True)]
    moving = [p for p, moves in zip(parameters, changed, strict=True) if moves]
    metric = metric_of(run.optimizer, moving)
    total = [torch.stack(rows).sum(0) for rows in zip(*gradients.values(), strict=True)]
    along = [
        g * metric.scales[id(p)] if moves else torch.zeros_like(p)
        for p, g, moves in zip(parameters, total, changed, strict=True)
    ]
    away = [a - b for a, b in zip(uncorrected, corrected, strict=True)]
    factor = (inner(away, away) / inner(along, along)) ** 0.5
    return [end - factor * piece for end, piece in zip(uncorrected, along, strict=True)]


def inner(one: list[Tensor], other: list[Tensor]) -> float:
    """The inner product of two lists of tensors."""
    return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))


def values(
    problem: Problem, probe: nn.Module, parameters: list[Tensor], batch: Batch, slopes: bool = False
) -> tuple[dict[str, float], dict[str, list[Tensor]]]:
    """The losses at some parameters, and their gradients where asked."""
    own = list(probe.parameters())
    with torch.no_grad():
        for p, new in zip(own, parameters, strict=True):
            p.copy_(new)
    losses = problem.losses(probe, batch)
    rows: dict[str, list[Tensor]] = {}
    for name, loss in losses.items() if slopes else ():
        found = torch.autograd.grad(loss, own, retain_graph=True, allow_unused=True)
        rows[name] = [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, own, strict=True)
        ]
    return {name: loss.item() for name, loss in losses.items()}, rows
