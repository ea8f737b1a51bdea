"""Fixtures of the tests of faults."""

import importlib

import pytest

from gradsurgery.compare import Plan
from gradsurgery.tasks import task, task_names
from tests.support.toy import loader


@pytest.fixture
def toy(monkeypatch):
    """Register a task `toy`, whose data are a line for each of two objectives."""
    task_names()  # registers those that ship, once and for all
    tasks = importlib.import_module("gradsurgery.tasks.task")
    monkeypatch.setattr(tasks, "_tasks", dict(tasks._tasks))

    def made(**settings):
        task("lines", epochs=3, batch=8, lr=0.1, paper="a toy")(loader(**settings))
        return lambda **options: Plan.of(["lines"], ["sum"], [0], **options)

    return made
