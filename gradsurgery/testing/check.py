"""check_strategy: everything a strategy promises, checked on adversarial gradients."""

from collections.abc import Mapping
from typing import Any

from gradsurgery.errors import ConformanceError, InputError, one_of
from gradsurgery.testing.cases import Chosen, cases_of


def check_strategy(
    strategy: Chosen, *, expected_failures: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Check what a strategy promises: the contract of a call, and each of its claims.

    Each claim is checked on 600 adversarial Jacobians. The claims alone decide what is checked,
    under the strategy's options and under each of its `variants`. For the strategies that ship with
    the library a property that holds on 1,000 adversarial draws and is not claimed is a failure
    too: a promise withheld.

    Args:
        strategy: a registered name, the decorated function, or what `get_strategy` returns; then
            just these options are checked.
        expected_failures: check name -> the reason why it is known to fail. One that passes all the
            same is a failure.

    Returns:
        check name -> "passed", or "expected failure: " and the reason.

    Raises:
        ConformanceError: (an AssertionError) for every check that fails. It has the claim, the
            smallest failing Jacobian that was found, and what the strategy returned there.
        InputError: for a strategy or an expected failure that does not exist, with the nearest
            match.

    Example:
        >>> from gradsurgery.testing import check_strategy
        >>> check_strategy("sum")["deterministic"]
        'passed'
    """
    expected = reasons(expected_failures, "expected_failures")
    cases = cases_of(strategy)
    for name in expected:
        if name not in {case[2] for case in cases}:
            raise InputError(
                "expected_failures: " + one_of("check", name, [case[2] for case in cases])
            )
    results, failures = {}, []
    for bound, check, name in cases:
        try:
            check(bound)
        except ConformanceError as error:
            if name in expected:
                results[name] = f"expected failure: {expected[name]}"
            else:
                failures.append(str(error))
        else:
            results[name] = "passed"
            if name in expected:
                failures.append(
                    f"{bound!r}, check {name!r}: it was expected to fail ({expected[name]}) "
                    "but passes; remove it from expected_failures."
                )
    if failures:
        raise ConformanceError("\n\n".join(failures))
    return results


def reasons(given: Any, what: str) -> dict[str, str]:
    """Expected failures as a dict from the name of a check to the reason."""
    if given is not None and not (
        isinstance(given, Mapping)
        and all(isinstance(x, str) for pair in given.items() for x in pair)
    ):
        raise InputError(
            f"{what}: expected a dict from the name of a check to the reason why it fails; "
            f"got {given!r}."
        )
    return dict(given or {})
