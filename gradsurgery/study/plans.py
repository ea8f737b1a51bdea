"""The plan of a part as `compare` takes it, and a trial of a study on other seeds."""

from dataclasses import replace
from pathlib import Path

from gradsurgery.compare import Plan
from gradsurgery.compare.methods import GUARD
from gradsurgery.study.declaration import Declaration, Part

TRIAL_STEPS, TRIAL_SEEDS = 3, 2


def plan_of(part: Part, data_root: Path | None = None) -> Plan:
    """The comparison that a part is.

    Raises:
        UnknownNameError: for a task that is not registered, or a strategy that there is not.
    """
    return Plan.of(
        [part.task],
        part.strategies,
        part.reported,
        lrs=part.rates,
        data_root=data_root,
        steps=part.steps,
        optimizer=part.optimizer,
        tune=part.tune,
        baselines=part.baselines,
        controls=[name + GUARD for name in part.guarded],
    )


def trial_of(declaration: Declaration) -> Declaration:
    """The same parts in minutes, to see that all of them run: three steps, two seeds, untuned.

    The seeds are 0 and 1: none of the study.
    """
    return replace(
        declaration,
        parts=tuple(
            replace(
                part,
                seeds=TRIAL_SEEDS,
                first=0,
                steps=TRIAL_STEPS,
                tune=False,
                rates=part.rates[:1],
            )
            for part in declaration.parts
        ),
        measured=replace(
            declaration.measured, seeds=1, loss=0.99, examples=100, steps=(0.0, 1.0), batches=8
        ),
    )
