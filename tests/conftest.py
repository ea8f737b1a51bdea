"""Hypothesis profiles and thread settings shared by the suite."""

import gc

import pytest
import torch
from hypothesis import HealthCheck, settings

from gradsurgery.testing import temporary_strategies
from tests.support.fresh import Fresh

torch.set_num_threads(1)  # two threads on a busy machine made a step many times slower
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of tests marked `sampled` the cases that are not kept are exhaustive; doctests are quick."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.quick)
        sampled = item.get_closest_marker("sampled")
        if sampled is not None and not sampled.kwargs["keep"](item.name):
            item.add_marker(pytest.mark.exhaustive)


def pytest_collection_finish():
    """What is there before the first test stays: whoever goes through all objects, the garbage
    collector or a batched pass, need not go through a million of these.
    """
    gc.freeze()


@pytest.fixture(autouse=True)
def one_thread():
    """What ran before in this process, a benchmark or a command, may have left more."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory):
    """Run a script in a process of its own, forked from one interpreter for all tests."""
    made = Fresh(tmp_path_factory.mktemp("fresh"))
    yield made
    made.close()


@pytest.fixture
def temporary():
    """Strategies that the test registers are gone at its end."""
    with temporary_strategies():
        yield
