"""parametrize_with_checks: one pytest case per strategy, setting and check."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gradsurgery.errors import InputError, extra, one_of
from gradsurgery.testing.cases import Chosen, cases_of
from gradsurgery.testing.check import reasons

if TYPE_CHECKING:
    import pytest


def parametrize_with_checks(
    strategies: Iterable[Chosen],
    *,
    expected_failures: Mapping[str, Mapping[str, str]] | None = None,
) -> "pytest.MarkDecorator":
    """Parametrise a pytest function over strategies and all the checks of `check_strategy`.

    Args:
        strategies: registered names, decorated functions, or what `get_strategy` returns.
        expected_failures: strategy name -> {check name: reason}; those cases are marked as expected
            to fail, strictly.

    Returns:
        A mark for a test function with the arguments `strategy` and `check`, whose body is
        `check(strategy)`.

    Raises:
        InputError: for a strategy, or an expected failure, that does not exist.

    Example:
        >>> from gradsurgery.testing import parametrize_with_checks
        >>> @parametrize_with_checks(["sum", "mean"])
        ... def test_conformance(strategy, check):
        ...     check(strategy)
    """
    with extra("testing", "parametrize_with_checks"):
        import pytest

    if isinstance(strategies, str):
        raise InputError(
            f"strategies: expected a list; got the string {strategies!r}. Write [{strategies!r}]."
        )
    if expected_failures is not None and not isinstance(expected_failures, Mapping):
        raise InputError(
            "expected_failures: expected a dict from a strategy's name to {check: reason}; "
            f"got {expected_failures!r}."
        )
    expected = {
        name: reasons(given, f"expected_failures[{name!r}]")
        for name, given in (expected_failures or {}).items()
    }
    cases, known = [], dict[str, set[str]]()
    for chosen in strategies:
        for bound, check, name in cases_of(chosen):
            known.setdefault(bound.name, set()).add(name)
            reason = expected.get(bound.name, {}).get(name)
            # only what the caller expects to fail; strict, so that a mended failure shows
            marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
            cases.append(pytest.param(bound, check, id=f"{bound.name}-{name}", marks=marks))
    for strategy, checks in expected.items():
        if strategy not in known:
            raise InputError("expected_failures: " + one_of("strategy", strategy, sorted(known)))
        for name in checks:
            if name not in known[strategy]:
                raise InputError(
                    f"expected_failures of {strategy!r}: "
                    + one_of("check", name, sorted(known[strategy]))
                )
    return pytest.mark.parametrize(("strategy", "check"), cases)
