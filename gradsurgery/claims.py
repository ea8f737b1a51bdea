"""Claims: the promises a strategy makes, some of them under a condition."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
)
CASE = ("n", "rank", "options")


@dataclass(frozen=True)
class Claim:
    """A promise by name; `degree` belongs to "homogeneous", `condition` says when it holds (always, when empty)."""

    name: str
    degree: float | None = None
    condition: str = ""
    predicate: Callable[..., bool] | None = None

    def holds(self, n: int, rank: int, options: Mapping[str, Any]) -> bool:
        """Whether the claim is made for n objectives whose gradients have this rank, under these options."""
        if self.predicate is None:
            return True
        case = {"n": n, "rank": rank, "options": options}
        return bool(self.predicate(**{name: case[name] for name in inspect.signature(self.predicate).parameters}))

    def __str__(self) -> str:
        text = self.name if self.degree is None else f"{self.name}({self.degree:g})"
        return f"{text} when {self.condition}" if self.condition else text


def homogeneous(degree: float) -> Claim:
    """The claim that J → sJ gives d → s^degree · d, for every s > 0 and fixed losses."""
    return Claim("homogeneous", degree=degree)


def when(condition: str, predicate: Callable[..., bool], *claims: "str | Claim") -> tuple[Claim, ...]:
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
        raise StrategyError(f"when({condition!r}): the predicate takes {', '.join(CASE)}; got {', '.join(unknown)}.")
    if not claims:
        raise StrategyError(f"when({condition!r}): name the claims that hold then, as in when({condition!r}, predicate, 'strict').")
    return tuple(replace(claim, condition=condition, predicate=predicate) for claim in as_claims(claims))


def as_claims(claims: "tuple[str | Claim | tuple[Claim, ...], ...]") -> tuple[Claim, ...]:
    """Claims given as names, `homogeneous(k)` or `when(...)`, checked and flattened."""
    found: list[Claim] = []
    for claim in claims:
        if isinstance(claim, tuple):
            found.extend(claim)
        elif isinstance(claim, Claim):
            found.append(claim)
        elif isinstance(claim, str) and (written := re.fullmatch(r"homogeneous\((-?\d+(?:\.\d+)?)\)", claim)):
            found.append(homogeneous(float(written[1])))
        elif claim == "homogeneous":
            raise StrategyError('claim "homogeneous" needs its degree k, as in "homogeneous(1)" or gradsurgery.homogeneous(1): J → sJ gives d → sᵏd.')
        elif claim in NAMES:
            found.append(Claim(claim))
        else:
            raise StrategyError(one_of("claim", str(claim), NAMES))
    return tuple(found)
