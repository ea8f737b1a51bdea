"""Hypothesis profiles and thread settings shared by the suite."""

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # two threads on a busy machine made a step many times slower
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("default")

QUICK = {  # of tests that go through everything, the part that each run takes
    "test_conformance": lambda name: " [" not in name,  # a strategy's defaults, not its variants
    "test_an_exception_at_every_line_leaves_all_or_nothing": lambda name: (
        "plain-mgda-True" in name or "plain-sum-True" in name
    ),
    "test_it_stays_finite_learns_and_grows_no_memory": lambda name: "[mgda]" in name,
    "test_saved_at_step_ten_and_resumed_in_a_new_process_it_goes_on_bit_for_bit": lambda name: (
        "[moco]" in name or "[famo]" in name
    ),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The rest of them is marked; `pytest -m exhaustive` runs it, as CI does."""
    for item in items:
        part = QUICK.get(getattr(item, "originalname", None))
        if part is not None and not part(item.name):
            item.add_marker(pytest.mark.exhaustive)
