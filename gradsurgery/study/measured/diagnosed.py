"""The gradients at some steps of one trajectory, as `gradsurgery.diagnose` sees them."""

import math
from typing import Any

from gradsurgery import diagnose
from gradsurgery.compare.loop import moved
from gradsurgery.study.measured.training import begun, examples, losses
from gradsurgery.tasks import Problem


def diagnosed(cell: Any, problem: Problem) -> dict[str, Any]:
    """Train, and diagnose at the declared shares of the run."""
    assert problem.steps is not None
    wanted = sorted({round(share * problem.steps) for share in cell.how.steps})
    steps = []
    with begun(cell, problem) as (loop, draw):
        kept = examples(problem, cell.how.examples)
        start = losses(problem, loop.model, kept)
        for step in range(wanted[-1] + 1):
            if step in wanted:
                now = losses(problem, loop.model, kept)
                batches = [moved(draw(), problem.device) for _ in range(cell.how.batches)]
                found = diagnose(
                    loop.model,
                    batches,
                    problem.losses,
                    count=cell.how.batches,
                    joint=cell.joint,
                    modalities=cell.modalities,
                    start=start,
                )
                pairs = [_pair(name, pair, cell.modalities) for name, pair in found.pairs]
                share = sum(now.values()) / sum(start.values())
                steps.append({"step": step, "share": share, "losses": now, "pairs": pairs})
            if step < wanted[-1]:
                loop.step(draw)
    return {"steps": steps}


def _pair(group: str, pair: Any, modalities: int | None) -> dict[str, Any]:
    known = pair.assumption
    return {
        "group": group,
        "first": pair.first,
        "second": pair.second,
        "verdict": pair.verdict,
        "conflict": pair.conflict,
        "control": list(pair.control),
        **{
            name: _finite(getattr(pair, name).value)
            for name in ("cosine", "length_ratio", "covariance_ratio", "noise_ratio")
        },
        "root": None if modalities is None else math.sqrt(modalities),
        "assumption": None
        if known is None
        else {name: str(getattr(known, name)) for name in ("magnitude", "covariance", "noise")},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
