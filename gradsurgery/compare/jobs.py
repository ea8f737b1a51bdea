"""How many processes train where the command line does not say it."""

import os

from gradsurgery.compare.plan import Plan

CAP = 4  # each has torch in memory, some 300 MB
RUNS = 4  # per process at least: one that starts imports torch, which takes as long as a small run


def default_jobs(plan: Plan) -> int:
    """One process per core that may be used, up to four; fewer where there are few runs."""
    if hasattr(os, "sched_getaffinity"):  # Linux: the cores of a container or of taskset
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, CAP, len(plan.runs()) // RUNS))
