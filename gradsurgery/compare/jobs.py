"""How many runs a plan has, and how many processes train where the command line does not say it."""

import os

from gradsurgery.compare.plan import Plan
from gradsurgery.compare.tuning import FIRST, MOST, SEEDS

CAP = 4  # each has torch in memory, some 300 MB
RUNS = 4  # per process at least: one that starts imports torch, which takes as long as a small run


def runs_of(plan: Plan) -> tuple[int, int]:
    """The fewest and the most runs of one method on one task."""
    each, seeds = len(plan.optimizers), len(plan.seeds)
    if plan.tune:
        return each * (FIRST * len(SEEDS) + seeds), each * (MOST * len(SEEDS) + seeds)
    runs = each * seeds * max(1, len(plan.lrs))
    return runs, runs


def default_jobs(plan: Plan) -> int:
    """One process per core that may be used, up to four; fewer where there are few runs."""
    if hasattr(os, "sched_getaffinity"):  # Linux: the cores of a container or of taskset
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    runs = len(plan.tasks) * len(plan.strategies) * runs_of(plan)[0]  # and those of baselines
    return max(1, min(cores, CAP, runs // RUNS))
