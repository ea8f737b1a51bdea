"""What was found of a function: per property how often it held, and where it does not."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gradsurgery.testing import wording
from gradsurgery.types import Array


@dataclass(frozen=True, eq=False)
class Counterexample:
    """The smallest gradients that were found on which a property does not hold.

    Attributes:
        says: what is wrong there, in words.
        jacobian: J [n, d], to the last bit.
        gram: G = JJᵀ [n, n].
        kind: of the draw that was made small.
        weights: [n]; None where there is no answer, or a direction.
        direction: d [d]; None where there is no answer.
        given: what came with the gradients, for a strategy that takes more than these.
        traceback: the function's own lines, where it raised.
    """

    says: str
    jacobian: Array
    gram: Array
    kind: str
    weights: Array | None = None
    direction: Array | None = None
    given: str = ""
    traceback: tuple[str, ...] = ()

    @property
    def products(self) -> Array | None:
        """Jd [n], the inner products of d with each gradient."""
        return None if self.direction is None else np.asarray(self.jacobian @ self.direction)

    def __str__(self) -> str:
        n, d = self.jacobian.shape
        rows = [str(row) for row in self.jacobian.tolist()]
        lines = [
            wording.paragraph(wording.sentence(self.says), "  "),
            f"  Smallest J found, [n, d] = [{n}, {d}]:",
            *(
                f"    {'[' if i == 0 else ' '}{row}{']' if i == n - 1 else ','}"
                for i, row in enumerate(rows)
            ),
            wording.numbers("w", self.weights),
            wording.numbers("d", self.direction),
            wording.numbers("Jd", self.products),
            self.given and f"    {self.given}",
            *(f"    {line}" for line in self.traceback),
        ]
        return "\n".join(line for line in lines if line)


@dataclass(frozen=True)
class Finding:
    """One property, and on which draws it held.

    Attributes:
        name: "contract", or a claim as it is written.
        claimed: whether it is promised, so that a violation is a failure.
        judged: the draws that can tell.
        violated: on how many of them it does not hold.
        up_to: on all draws with up to so many objectives it held.
        example: the smallest gradients found that violate it.
        in_distribution: whether one draw is hundreds of random calls.
    """

    name: str
    claimed: bool
    judged: int
    violated: int
    up_to: int
    example: Counterexample | None = None
    in_distribution: bool = False

    @property
    def holds(self) -> bool:
        """Whether it held on every draw that can tell, and there are such."""
        return self.judged > 0 and self.violated == 0

    @property
    def failed(self) -> bool:
        """Whether it is promised and does not hold."""
        return self.claimed and not self.holds

    def __str__(self) -> str:
        what = "draws, in distribution" if self.in_distribution else "draws"
        text = wording.counted(self.judged, self.violated, self.up_to, self.claimed, what)
        base, _, condition = self.name.partition(" when ")
        if self.claimed and self.name != wording.CONTRACT:
            text += f" (claimed{' when ' if condition else ''}{condition})"
        return wording.row(base, text)


@dataclass(frozen=True)
class Findings:
    """What `check_function` found.

    Attributes:
        name: of the function.
        assumed: how it was called, and how that was found out.
        draws: how many adversarial Jacobians.
        objectives: the least and the largest number of objectives among them.
        seed: of the draws.
        results: the contract, and each property.
        notes: what else was seen: random numbers, printed lines, warnings, a dtype.
    """

    name: str
    assumed: str
    draws: int
    objectives: tuple[int, int]
    seed: int
    results: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[str, ...]:
        """The names of what is promised and does not hold; the contract always is."""
        return tuple(result.name for result in self.results if result.failed)

    @property
    def passed(self) -> bool:
        """Whether everything that is promised holds."""
        return not self.failures

    def as_dict(self) -> dict[str, Any]:
        """All of it in dicts, lists, strings and numbers, as JSON takes it."""
        found: dict[str, Any] = _plain(asdict(self))
        for part, result in zip(found["results"], self.results, strict=True):
            part["holds"] = result.holds
        return {**found, "passed": self.passed, "failures": list(self.failures)}

    def __str__(self) -> str:
        least, most = self.objectives
        size = f"{least}" if least == most else f"{least} to {most}"
        drawn = f"{self.draws} adversarial draws of {size} objectives, seed {self.seed}."
        head = [self.name, wording.paragraph(wording.sentence(self.assumed), "  ")]
        head += [*(wording.paragraph(note, "  ") for note in self.notes), f"  {drawn}", ""]
        body = [str(result) for result in self.results]
        shown: dict[str, str] = {}
        for result in self.results:
            if result.example is not None:
                said = wording.meaning(result.name)
                example = str(result.example)
                first = shown.setdefault(example, result.name)
                if first != result.name:  # strict is broken where non-conflicting is
                    example = f"  Not here either: the J of {first}."
                body += ["", wording.paragraph(f"{result.name}: {said}"), example]
        if shown:
            body += ["", wording.paragraph(wording.LEGEND)]
        return "\n".join([*head, *body, "", wording.paragraph(self._verdict())])

    def _verdict(self) -> str:
        claimed = ["the contract"]
        claimed += [r.name.partition(" when ")[0] for r in self.results[1:] if r.claimed]
        if self.failures:
            return f"FAILED: {wording.listed(self.failures)}."
        more = "." if len(claimed) > 1 else "; nothing else is claimed."
        return f"Passed: {wording.listed(claimed)}{more}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    # JSON has no NaN
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
