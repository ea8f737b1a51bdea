"""How many processes train without --jobs, and what the defaults of a comparison are."""

import os

import pytest

from gradsurgery.compare import Plan
from gradsurgery.compare.jobs import default_jobs
from gradsurgery.compare.plan import DEFAULT_SEEDS, DEFAULT_TASKS
from gradsurgery.tasks import get_task

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("cores", "seeds", "jobs"),
    [(1, 8, 1), (2, 8, 2), (3, 8, 3), (64, 8, 4), (64, 2, 1), (64, 4, 2), (2, 1, 1)],
)
def test_one_process_per_core_but_few_for_few_runs(monkeypatch, cores, seeds, jobs):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert default_jobs(Plan.of(["multimnist"], ["sum", "mgda"], range(seeds))) == jobs


def test_plans_whose_runs_follow_from_figures_have_a_default_too(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    for more in ({"tune": True}, {"baselines": "auto"}, {"controls": ["n x mgda"]}):
        assert default_jobs(Plan.of(["multimnist"], ["sum"], range(8), **more)) == 2


def test_without_affinity_the_cores_of_the_machine_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for cores, jobs in ((None, 1), (2, 2)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert default_jobs(Plan.of()) == jobs


def test_the_default_comparison_has_seeds_enough_for_a_verdict_on_declared_figures():
    assert len(DEFAULT_SEEDS) >= 6
    for task in map(get_task, DEFAULT_TASKS):
        assert task.primary is not None
        assert task.delta == 1.0
