"""Conformance checks for any strategy, and the adversarial gradients that they use.

`check_strategy` and `parametrize_with_checks` check what a strategy claims; `check_function` finds
out which properties any function of gradients has, as `gradsurgery check` does. `samples`, `grams`
and `jacobians` are for tests of one's own, `temporary_strategies` for strategies that live as long
as a test. pytest and hypothesis are imported where they are used:
`pip install 'gradsurgery[testing]'`.
"""

from gradsurgery.contract.registry import temporary_strategies
from gradsurgery.errors import ConformanceError
from gradsurgery.testing.adversarial import make_sample, samples
from gradsurgery.testing.check import check_strategy
from gradsurgery.testing.checks import Check, checks_of
from gradsurgery.testing.findings import Counterexample, Finding, Findings
from gradsurgery.testing.given import drawn_samples, grams, jacobians
from gradsurgery.testing.judge import check_function
from gradsurgery.testing.kinds import KINDS
from gradsurgery.testing.parametrize import parametrize_with_checks
from gradsurgery.testing.sample import Sample

__all__ = [
    "KINDS",
    "Check",
    "ConformanceError",
    "Counterexample",
    "Finding",
    "Findings",
    "Sample",
    "check_function",
    "check_strategy",
    "checks_of",
    "drawn_samples",
    "grams",
    "jacobians",
    "make_sample",
    "parametrize_with_checks",
    "samples",
    "temporary_strategies",
]
