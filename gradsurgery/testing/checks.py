"""The checks themselves: the contract of a call, each claim that is made, and each that is not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gradsurgery.contract import Claim, Strategy
from gradsurgery.errors import ConformanceError, GradSurgeryError, InputError
from gradsurgery.testing import report
from gradsurgery.testing.adversarial import samples
from gradsurgery.testing.calls import broken_contract
from gradsurgery.testing.failing import Violation, safely, smallest
from gradsurgery.testing.properties import PROPERTIES, Registered
from gradsurgery.testing.runner import SKIP, claims_of, is_random
from gradsurgery.testing.sample import Sample

DRAWS = 600  # for a claim
UNCLAIMED_DRAWS = 1000  # for a property that is not claimed
DRAWS_IN_DISTRIBUTION = 14  # where one draw is hundreds of calls: each kind once
EVERY = slice(None)
CANDIDATES, CANDIDATES_IN_DISTRIBUTION = 400, 25  # smaller Jacobians tried, once one fails


@dataclass(frozen=True)
class Check:
    """One thing to check, by name; call it with the strategy."""

    name: str
    run: Callable[[Strategy], None]

    def __call__(self, strategy: Strategy) -> None:
        """Raise `ConformanceError` when the strategy does not keep it."""
        self.run(strategy)

    def __str__(self) -> str:
        return self.name

    @property
    def look(self) -> Callable[[Strategy], None]:
        """The same as `run`: its earlier name."""
        return self.run


def checks_of(strategy: Strategy, every: int = 1, start: int = 0) -> list[Check]:
    """The checks that belong to a strategy under its options.

    The contract, one check per claim that is made, and for strategies that ship with the library
    one per property that is not claimed.

    Args:
        strategy: with its options bound.
        every: check the contract and the claims on each so many-th sample only.
        start: the first of these.
    """
    part = slice(start, None, every)
    found = [Check("contract", _contract(part))]
    # a claim's condition knows no more of a sample than these two
    cases = {(sample.count, sample.rank): sample for sample in common_samples()}.values()
    for name, known in PROPERTIES.items():
        made = [bool(claims_of(strategy, name, sample)) for sample in cases]
        if any(made):
            found.append(Check(name, _claimed(known, part)))
        if strategy.shipped and not all(made):
            found.append(Check(f"unclaimed {name}", _unclaimed(known)))
    return found


@lru_cache(maxsize=4)
def common_samples(count: int = DRAWS, seed: int = 0) -> tuple[Sample, ...]:
    """The samples that checks of all strategies share."""
    return tuple(samples(count, seed=seed))


def _samples_for(
    strategy: Strategy, name: str, count: int, seed: int, part: slice = EVERY
) -> Sequence[Sample]:
    """The samples for a property: few where it is one in distribution."""
    if not _in_distribution(strategy, name):
        return common_samples(count, seed)[part]
    return samples(DRAWS_IN_DISTRIBUTION, seed=seed, sizes=(4, 3, 2, 5), scales=False)


def _in_distribution(strategy: Strategy, name: str) -> bool:
    return name == "permutation-equivariant" and is_random(strategy)


def _contract(part: slice) -> Callable[[Strategy], None]:
    def run(strategy: Strategy) -> None:
        accepted: set[int] = set()
        refused: dict[int, Sample] = {}

        def violation(sample: Sample) -> str | None:
            return broken_contract(strategy, sample)

        for i, sample in enumerate(common_samples()[part]):
            if i % 2 and sample.count > 1:
                continue
            broken = safely(violation, sample)
            if broken is SKIP:
                refused.setdefault(sample.count, sample)
            elif broken:
                _fail(strategy, "contract", "", broken, sample, violation)
            else:
                accepted.add(sample.count)
        said = f"{strategy!r}, check 'contract': it"
        if not accepted:
            why = _refusal(violation, refused[min(refused)])
            raise ConformanceError(f"{said} refuses every sample: {why}.")
        if max(accepted) < 2:
            why = _refusal(violation, refused[min(refused)])
            raise ConformanceError(f"{said} refuses two or more objectives: {why}")
        for n in accepted & set(refused):
            why = _refusal(violation, refused[n])
            raise ConformanceError(
                f"{said} works for {n} objectives, yet refuses some gradients: {why}.\n"
                f"{report.matrix(refused[n])}\n  A sample of the kind {str(refused[n])!r}."
            )

    return run


def _claimed(known: Registered, part: slice) -> Callable[[Strategy], None]:
    def run(strategy: Strategy) -> None:
        name, judged = known.name, 0

        def violation(sample: Sample) -> str | None:
            found = (
                known.violation(strategy, sample, claim)
                for claim in claims_of(strategy, name, sample)
            )
            return next((v for v in found if v is not None), None)

        for sample in _samples_for(strategy, name, DRAWS, 0, part):
            if not (made := claims_of(strategy, name, sample)):
                continue
            broken = safely(violation, sample)
            judged += broken is not SKIP
            if broken and broken is not SKIP:
                _fail(strategy, name, f"claims {str(made[0])!r}: ", broken, sample, violation)
        if not judged:
            raise ConformanceError(
                f"{strategy!r} claims {name!r} under a condition that holds for no sample, "
                "so that it cannot be checked."
            )

    return run


def _unclaimed(known: Registered) -> Callable[[Strategy], None]:
    def run(strategy: Strategy) -> None:
        name, claim, judged = known.name, Claim(known.name), 0
        draws = _samples_for(strategy, name, UNCLAIMED_DRAWS, 1)
        for sample in draws:
            if claims_of(strategy, name, sample):
                continue
            try:
                broken = known.violation(strategy, sample, claim)
            except GradSurgeryError:
                return
            if broken is SKIP:
                continue
            if broken:
                return
            judged += 1
        if judged:
            raise ConformanceError(
                f"{strategy!r} does not claim {name!r}, yet it holds on all {judged} of "
                f"{len(draws)} adversarial draws that can tell: claim it, "
                f"or say when it holds: when('...', predicate, {name!r})."
            )

    return run


def _refusal(violation: Violation, sample: Sample) -> str:
    try:
        return str(violation(sample))
    except InputError as error:
        return str(error)


def _fail(
    strategy: Strategy, check: str, claim: str, broken: str, sample: Sample, violation: Violation
) -> None:
    """Raise the error of a failed check, with the smallest failing Jacobian found."""
    budget = CANDIDATES_IN_DISTRIBUTION if _in_distribution(strategy, check) else CANDIDATES
    small = smallest(violation, sample, budget)
    found = safely(violation, small) or broken
    shape = f"[n, d] = [{small.count}, {small.jacobian.shape[1]}]{report.splits(small)}"
    raise ConformanceError(
        f"{strategy!r}, check {check!r}: {claim}{found}.\n"
        f"  Smallest failing Jacobian found, {shape}:\n{report.matrix(small)}\n"
        f"{report.returned(strategy, small)}{report.given(strategy, small)}"
        f"  First seen on a sample of the kind {str(sample)!r}."
    )
