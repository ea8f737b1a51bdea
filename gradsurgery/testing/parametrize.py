"""parametrize_with_checks: one pytest case per strategy, setting and check."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gradsurgery.errors import InputError, one_of
from gradsurgery.testing.check import Chosen, checks_of, settings

if TYPE_CHECKING:
    import pytest


def parametrize_with_checks(strategies: Iterable[Chosen], *, expected_failures: Mapping[str, Mapping[str, str]] | None = None) -> "pytest.MarkDecorator":
    """Parametrise a pytest function over strategies and all their checks, as `check_strategy` runs them.

    Args:
        strategies: registered names, decorated functions, or what `get_strategy` returns.
        expected_failures: strategy name -> {check name: reason}; those cases are marked as expected to fail, strictly.

    Returns:
        A mark for a test function with the arguments `strategy` and `check`, whose body is `check(strategy)`.

    Raises:
        InputError: for a strategy, or an expected failure, that does not exist.

    Example:
        >>> from gradsurgery.testing import parametrize_with_checks
        >>> @parametrize_with_checks(["sum", "mean"])
        ... def test_conformance(strategy, check):
        ...     check(strategy)
    """
    import pytest

    if isinstance(strategies, str):
        raise InputError(f"strategies: expected a list; got the string {strategies!r}. Write [{strategies!r}].")
    expected = {name: dict(reasons) for name, reasons in (expected_failures or {}).items()}
    cases, names = [], set()
    for chosen in strategies:
        known = set()
        for bound, label in settings(chosen):
            for check in checks_of(bound):
                name = f"{check.name} [{label}]" if label else check.name
                known.add(name)
                reason = expected.get(bound.name, {}).get(name)
                marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
                cases.append(pytest.param(bound, check, id=f"{bound.name}-{name}", marks=marks))
            names.add(bound.name)
            missing = [name for name in expected.get(bound.name, {}) if name not in known]
        if missing:
            raise InputError(f"expected_failures of {bound.name!r}: " + one_of("check", missing[0], sorted(known)))
    unknown = [name for name in expected if name not in names]
    if unknown:
        raise InputError("expected_failures: " + one_of("strategy", unknown[0], sorted(names)))
    return pytest.mark.parametrize(("strategy", "check"), cases)
