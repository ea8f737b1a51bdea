"""Claims: the promises a strategy makes, some of them under a condition."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gradsurgery.errors import StrategyError, one_of

NAMES = (
    "non-conflicting",
    "strict",
    "homogeneous",
    "scale-invariant",
    "permutation-equivariant",
    "deterministic",
    "sums-to-one",
    "projection",
)
CASE = ("n", "rank", "options")


@dataclass(frozen=True)
class Claim:
    """A promise that a strategy makes, by its name.

    Attributes:
        name: one of `NAMES`.
        degree: of "homogeneous": a number, or a function of the options.
        condition: when it holds, in words; empty where it always does.
        predicate: the condition as a function of any of `n`, `rank` and `options`.
        formula: how a degree that is a function is printed.
    """

    name: str
    degree: float | Callable[[Mapping[str, Any]], float] | None = None
    condition: str = ""
    predicate: Callable[..., bool] | None = None
    formula: str = ""

    def degree_under(self, options: Mapping[str, Any]) -> float | None:
        """The degree under these options."""
        return float(self.degree(options)) if callable(self.degree) else self.degree

    def holds(self, n: int, rank: int, options: Mapping[str, Any]) -> bool:
        """Whether it is claimed for n objectives with gradients of this rank, these options."""
        if self.predicate is None:
            return True
        case = {"n": n, "rank": rank, "options": options}
        return bool(self.predicate(**{name: case[name] for name in self._asked}))

    @cached_property
    def _asked(self) -> tuple[str, ...]:
        """What the predicate takes: conformance checks ask it of many samples."""
        return tuple(inspect.signature(self.predicate).parameters) if self.predicate else ()

    def __str__(self) -> str:
        degree = self.formula or (
            "" if self.degree is None or callable(self.degree) else f"{self.degree:g}"
        )
        text = f"{self.name}({degree})" if degree else self.name
        return f"{text} when {self.condition}" if self.condition else text


def homogeneous(degree: float | Callable[[Mapping[str, Any]], float], formula: str = "") -> Claim:
    """The claim that J → sJ gives d → s^degree · d, for every s > 0 and fixed losses.

    Args:
        degree: a number, or a function of the options.
        formula: how a function is printed.

    Example:
        >>> from gradsurgery import homogeneous
        >>> str(homogeneous(1)), str(homogeneous(lambda options: 1 - options["p"], "1 − p"))
        ('homogeneous(1)', 'homogeneous(1 − p)')
    """
    return Claim("homogeneous", degree=degree, formula=formula or ("k" if callable(degree) else ""))


def when(
    condition: str, predicate: Callable[..., bool], *claims: "str | Claim"
) -> tuple[Claim, ...]:
    """Claims that hold under a condition.

    Args:
        condition: the condition in words, as the docs print it.
        predicate: a function of any of `n`, `rank` (of J) and `options`, injected by name.
        claims: the claims made where the predicate is true.

    Example:
        >>> from gradsurgery import when
        >>> [str(claim) for claim in when("c >= 1", lambda options: options["c"] >= 1, "strict")]
        ['strict when c >= 1']
    """
    unknown = [p for p in inspect.signature(predicate).parameters if p not in CASE]
    if unknown:
        raise StrategyError(
            f"when({condition!r}): the predicate takes {', '.join(CASE)}; got {', '.join(unknown)}."
        )
    if not claims:
        raise StrategyError(
            f"when({condition!r}): name the claims that hold then, "
            f"as in when({condition!r}, predicate, 'strict')."
        )
    return tuple(
        replace(claim, condition=condition, predicate=predicate) for claim in as_claims(claims)
    )


def equivariant_when_named(option: str, what: str) -> tuple[Claim, ...]:
    """The claim that the order of the objectives does not matter once one of them is named.

    For strategies that take the first objective where an option names none.

    Args:
        option: the option that names the objective.
        what: what that objective is, in words.

    Example:
        >>> from gradsurgery.contract import equivariant_when_named
        >>> [str(claim) for claim in equivariant_when_named("main", "the main objective")]
        ['permutation-equivariant when the main objective is named']
    """
    return when(
        f"{what} is named", lambda options: options[option] is not None, "permutation-equivariant"
    )


def forwarded(condition: str, base: Callable[[Mapping[str, Any]], Any]) -> tuple[Claim, ...]:
    """The claims of a strategy that wraps another one: each where the other makes it.

    Args:
        condition: the condition in words.
        base: from the options of the wrapper to the wrapped strategy.
    """

    def made_by(name: str) -> Callable[..., bool]:
        def predicate(n: int, rank: int, options: Mapping[str, Any]) -> bool:
            wrapped = base(options)
            return any(
                claim.name == name and claim.holds(n, rank, wrapped.options)
                for claim in wrapped.claims
            )

        return predicate

    def degree(options: Mapping[str, Any]) -> float:
        wrapped = base(options)
        found = [
            c.degree_under(wrapped.options)
            for c in wrapped.claims
            if c.name == "homogeneous" and c.holds(2, 2, wrapped.options)
        ]
        return float(found[0] or 0.0) if found else 0.0

    plain = [name for name in NAMES if name != "homogeneous"]
    return tuple(
        replace(claim, condition=condition, predicate=made_by(claim.name))
        for claim in (*map(Claim, plain), homogeneous(degree, "as wrapped"))
    )


def as_claims(claims: "tuple[str | Claim | tuple[Claim, ...], ...]") -> tuple[Claim, ...]:
    """Claims given as names, `homogeneous(k)` or `when(...)`, checked and flattened."""
    found: list[Claim] = []
    for claim in claims:
        if isinstance(claim, tuple):
            found.extend(claim)
        elif isinstance(claim, Claim):
            found.append(claim)
        elif isinstance(claim, str) and (
            written := re.fullmatch(r"homogeneous\((-?\d+(?:\.\d+)?)\)", claim)
        ):
            found.append(homogeneous(float(written[1])))
        elif claim == "homogeneous":
            raise StrategyError(
                'claim "homogeneous" needs its degree k, as in "homogeneous(1)" or '
                "gradsurgery.homogeneous(1): J → sJ gives d → sᵏd. In a shell put it in quotes."
            )
        elif isinstance(claim, str) and "(" in claim and claim.lstrip("'\"").startswith("homog"):
            raise StrategyError(
                f"claim {claim}: write homogeneous(k) with a number k, as in homogeneous(1); in a "
                "shell put it in quotes."
            )
        elif claim in NAMES:
            found.append(Claim(claim))
        else:
            raise StrategyError(one_of("claim", str(claim), NAMES))
    return tuple(found)
