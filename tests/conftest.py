"""Hypothesis profiles and thread settings shared by the suite."""

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)  # two threads on a busy machine made a step many times slower
settings.register_profile("default", deadline=None, derandomize=True, max_examples=300, suppress_health_check=list(HealthCheck))
settings.load_profile("default")
