"""The largest Hessian eigenvalue of a run that is stopped at a declared training loss."""

from typing import Any

from gradsurgery.diagnostics import flatness
from gradsurgery.errors import GradSurgeryError
from gradsurgery.study.measured.training import begun, examples, total
from gradsurgery.tasks import Problem

PATIENCE = 4  # times the length of a run, until the loss counts as not reached
NEAR = 1.3  # times the wanted loss: from there on it is taken after every step
RARELY = 5  # steps


class NotReachedError(GradSurgeryError):
    """A run did not come down to the training loss at which flatness is compared."""


def flat(cell: Any, problem: Problem) -> dict[str, Any]:
    """Train until the summed training loss is low enough, and measure there.

    Raises:
        NotReachedError: where it is not, after four times the steps of a run.
    """
    assert problem.steps is not None
    with begun(cell, problem) as (loop, draw):
        kept = examples(problem, cell.how.examples)
        start = loss = total(problem, loop.model, kept)
        wanted, step = cell.how.loss * start, 0
        while loss > wanted:
            if step >= PATIENCE * problem.steps:
                raise NotReachedError(
                    f"the training loss is {loss:.3g} after {step} steps; {wanted:.3g} was wanted."
                )
            for _ in range(1 if loss < NEAR * wanted else RARELY):
                loop.step(draw)
                step += 1
            loss = total(problem, loop.model, kept)
        loop.model.eval()
        found = flatness(loop.model, kept, problem.losses)
    return {
        "eigenvalue": found.eigenvalue,
        "off_by": found.error,
        "converged": found.converged,
        "loss": found.loss,
        "start": start,
        "step": step,
    }
