"""Values of options that no variant has, and that are checked all the same."""

import contextlib
import types
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from gradsurgery.contract import Strategy
from gradsurgery.errors import GradSurgeryError, InputError, StrategyError
from gradsurgery.testing.adversarial import make_sample
from gradsurgery.testing.runner import run


def works(strategy: Strategy) -> bool:
    """Whether it gives a direction under these options.

    Values may be out of range, or need an extra that is not installed.
    """
    try:
        run(strategy, make_sample("pulling apart", 5))
    except InputError:
        return False
    except GradSurgeryError as error:
        return not (isinstance(error, ImportError) or isinstance(error.__cause__, ImportError))
    except Exception:
        return True  # the checks say what it is
    return True


def unvaried(
    known: Sequence[Strategy], variants: Sequence[Mapping[str, Any]]
) -> list[tuple[Strategy, str]]:
    """Settings that neither the defaults nor the variants have, each with a label.

    Each other value of an option that has few, and half of every number. A claim without a
    condition is made for all values of an option. Numbers that a variant names are left to the
    variants.

    Args:
        known: the strategy under its defaults and under each variant.
        variants: the variants as they were declared.
    """
    first, found = known[0], []
    numbers: dict[str, float] = {}
    for option, default in first.options.items():
        taken = [one.options[option] for one in known]
        for value in finite_values(first.annotations.get(option), default):
            if not any(type(value) is type(seen) and value == seen for seen in taken):
                found.append({option: value})
        if any(option in variant for variant in variants) or not _takes_a_float(
            first.annotations.get(option), default
        ):
            continue
        if not isinstance(default, Real):  # a mode of its own: the other numbers stay
            found.append({option: 0.5})
            continue
        half = float(default) / 2 if default else 0.5
        with contextlib.suppress(StrategyError):  # out of its range
            first.with_options(**{option: half})
            numbers[option] = half
    settings = []
    for changed in [*found, numbers] if numbers else found:
        with contextlib.suppress(StrategyError):  # out of its range
            settings.append(
                (first.with_options(**changed), ", ".join(f"{k}={v!r}" for k, v in changed.items()))
            )
    return settings


def _takes_a_float(annotation: Any, default: Any) -> bool:
    """Whether an option is a number that is not whole.

    Its annotation decides, and without one its default.
    """
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_takes_a_float(part, None) for part in get_args(annotation))
    unknown = annotation is None or annotation is Any
    return isinstance(default, float) if unknown else annotation is float


def finite_values(annotation: Any, default: Any) -> list[Any]:
    """The values of an option that is True or False, or one of a `Literal`; none for other options.

    Args:
        annotation: as the signature has it; without one a default of True or False tells.
        default: the option's default.
    """
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        found = [value for part in get_args(annotation) for value in finite_values(part, None)]
        return [*found, None] if found and type(None) in get_args(annotation) else found
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [False, True] if annotation is bool or isinstance(default, bool) else []
