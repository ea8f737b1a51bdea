"""Conformance checks for anybody's strategy, and the adversarial gradients behind them.

`check_strategy` and `parametrize_with_checks` look at what a strategy claims; `samples`, `grams` and `jacobians` are
for tests of one's own. pytest and hypothesis are imported where they are used: `pip install 'gradsurgery[testing]'`.
"""

from gradsurgery.errors import ConformanceError
from gradsurgery.testing.adversarial import KINDS, Sample, make_sample, samples
from gradsurgery.testing.check import Check, check_strategy, checks_of
from gradsurgery.testing.given import drawn_samples, grams, jacobians
from gradsurgery.testing.parametrize import parametrize_with_checks

__all__ = [
    "KINDS",
    "Check",
    "ConformanceError",
    "Sample",
    "check_strategy",
    "checks_of",
    "drawn_samples",
    "grams",
    "jacobians",
    "make_sample",
    "parametrize_with_checks",
    "samples",
]
