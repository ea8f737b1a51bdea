"""check_strategy: everything a strategy promises, looked at on adversarial gradients; what fails is shown small."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gradsurgery.contract.registry import Claim, Strategy, get_strategy, of_function, registered
from gradsurgery.errors import ConformanceError, GradSurgeryError, InputError, one_of
from gradsurgery.testing import report
from gradsurgery.testing.adversarial import Sample, samples
from gradsurgery.testing.calls import broken_contract
from gradsurgery.testing.properties import PROPERTIES, Registered, is_random
from gradsurgery.testing.runner import SKIP
from gradsurgery.testing.shrink import shrink
from gradsurgery.testing.variants import unvaried, works

DRAWS = 600  # for a claim
UNCLAIMED_DRAWS = 1000  # for a property that nobody claims
UNVARIED = 5  # one sample in so many for each value of an option that no variant has
DRAWS_IN_DISTRIBUTION = 14  # where one draw is hundreds of calls: each kind once
Chosen = str | Strategy | Callable[..., Any]


@dataclass(frozen=True)
class Check:
    """One thing to check, by name; call it with the strategy."""

    name: str
    look: Callable[[Strategy], None]

    def __call__(self, strategy: Strategy) -> None:
        """Raise `ConformanceError` when the strategy does not keep it."""
        self.look(strategy)

    def __str__(self) -> str:
        return self.name


def check_strategy(
    strategy: Chosen, *, expected_failures: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Check what a strategy promises: its contract, and each of its claims on 600 adversarial Jacobians.

    The claims alone decide what is checked, under the strategy's options and under each of its `variants`. For the
    strategies that ship with the library a property that is not claimed and yet holds on 1,000 adversarial draws is a
    failure too: a promise withheld.

    Args:
        strategy: a registered name, the decorated function, or what `get_strategy` returns (then just these options).
        expected_failures: check name -> the reason why it is known to fail. One that passes all the same is a failure.

    Returns:
        check name -> "passed", or "expected failure: " and the reason.

    Raises:
        ConformanceError: (an AssertionError) for every check that fails, with the claim it breaks, the smallest failing
            Jacobian that was found, and what the strategy returned there.
        InputError: for a strategy or an expected failure that does not exist, with the nearest match.

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
                    f"{bound!r}, check {name!r}: it was expected to fail ({expected[name]}) but passes; remove it from expected_failures."
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
            f"{what}: expected a dict from the name of a check to the reason why it fails; got {given!r}."
        )
    return dict(given or {})


def cases_of(strategy: Chosen) -> list[tuple[Strategy, Check, str]]:
    """(strategy with its options, check, name of the case) for all of its settings."""
    bound = settings(strategy)
    cases = [
        (one, check, f"{check.name} [{label}]" if label else check.name)
        for one, label in bound
        for check in checks_of(one)
    ]
    more = (
        []
        if isinstance(strategy, Strategy)
        else unvaried([one for one, _ in bound], bound[0][0].variants)
    )
    for one, label in more:
        named = [
            check for check in checks_of(one, UNVARIED) if not check.name.startswith("unclaimed")
        ]
        cases += [
            (one, Check(check.name, _where_it_works(check.look)), f"{check.name} [{label}]")
            for check in named
        ]
        bound.append((one, label))
    never = [
        c
        for c in bound[0][0].claims
        if not any(c.holds(s.count, s.rank, one.options) for one, _ in bound for s in _draws())
    ]
    if never and not isinstance(
        strategy, Strategy
    ):  # options bound by hand may well rule a claim out
        conditions = ", ".join(f"{str(claim)!r}" for claim in never)

        def unmet(strategy: Strategy) -> None:
            raise ConformanceError(
                f"{strategy!r}, check 'conditions': the conditions of {conditions} are met by no sample under its defaults or any of its variants, "
                "so that nothing can be checked: declare variants= that meet them, or take the claim back."
            )

        cases.append((bound[0][0], Check("conditions", unmet), "conditions"))
    return cases


def settings(strategy: Chosen) -> list[tuple[Strategy, str]]:
    """The strategy under its defaults and under each of its variants, each with a label; a bound one just as it is."""
    if isinstance(strategy, Strategy):
        return [(strategy, "")]
    if callable(strategy):
        found = of_function(strategy)
        if found is None:
            raise InputError(
                f"strategy: {getattr(strategy, '__qualname__', strategy)!r} is not registered; decorate it with @gradsurgery.strategy(...)."
            )
        strategy = found.name
    base = registered(strategy)
    bound = [] if base.required else [(get_strategy(base.name), "")]
    bound += [
        (
            get_strategy(base.name, **variant),
            ", ".join(f"{k}={_short(v)}" for k, v in variant.items()),
        )
        for variant in base.variants
    ]
    if not bound:
        raise InputError(
            f"strategy {base.name!r} needs the option {base.required[0]!r}: give get_strategy({base.name!r}, {base.required[0]}=...), or declare variants=."
        )
    return bound


def _where_it_works(check: Callable[[Strategy], None]) -> Callable[[Strategy], None]:
    """The check, where the options' values can be used."""

    def checked(strategy: Strategy) -> None:
        if works(strategy):
            check(strategy)

    return checked


def checks_of(strategy: Strategy, every: int = 1) -> list[Check]:
    """The contract, one check per claim that is made under these options, and for our own strategies the properties not claimed.

    With `every` on each so many-th sample only.
    """
    found = [Check("contract", _contract(every))]
    for name, known in PROPERTIES.items():
        if any(_made(strategy, name, sample) for sample in _draws()):
            found.append(Check(name, _claimed(known, every)))
        if strategy.shipped and any(not _made(strategy, name, sample) for sample in _draws()):
            found.append(Check(f"unclaimed {name}", _unclaimed(known)))
    return found


@lru_cache(maxsize=4)
def _draws(count: int = DRAWS, seed: int = 0) -> tuple[Sample, ...]:
    return tuple(samples(count, seed=seed))


def _made(strategy: Strategy, name: str, sample: Sample) -> list[Claim]:
    """The claims of this name that the strategy makes for such gradients."""
    return [
        c
        for c in strategy.claims
        if c.name == name and c.holds(sample.count, sample.rank, strategy.options)
    ]


def _in_distribution(strategy: Strategy, name: str) -> bool:
    return name == "permutation-equivariant" and is_random(strategy)


def _contract(every: int) -> Callable[[Strategy], None]:
    def look(strategy: Strategy) -> None:
        accepted: set[int] = set()
        refused: dict[int, Sample] = {}

        def violation(sample: Sample) -> str | None:
            return broken_contract(strategy, sample)

        draws = _draws()[::every]
        for sample in [s for i, s in enumerate(draws) if i % 2 == 0 or s.count == 1]:
            broken = _safely(violation, sample)
            if broken is SKIP:
                refused.setdefault(sample.count, sample)
            elif broken:
                _fail(strategy, "contract", "", broken, sample, violation)
            else:
                accepted.add(sample.count)
        if not accepted:
            raise ConformanceError(
                f"{strategy!r}, check 'contract': it refuses every sample: {_refusal(violation, refused[min(refused)])}."
            )
        if max(accepted) < 2:
            raise ConformanceError(
                f"{strategy!r}, check 'contract': it refuses two or more objectives: {_refusal(violation, refused[min(refused)])}"
            )
        for n in accepted & set(refused):
            what = f"it works for {n} objectives, yet refuses some gradients: {_refusal(violation, refused[n])}"
            raise ConformanceError(
                f"{strategy!r}, check 'contract': {what}.\n{report.matrix(refused[n])}\n  A sample of the kind {str(refused[n])!r}."
            )

    return look


def _claimed(known: Registered, every: int) -> Callable[[Strategy], None]:
    def look(strategy: Strategy) -> None:
        draws: Sequence[Sample] = _draws()[::every]
        judged = 0
        if _in_distribution(strategy, known.name):
            draws = samples(DRAWS_IN_DISTRIBUTION, sizes=(4, 3, 2, 5), scales=False)

        def violation(sample: Sample) -> str | None:
            found = (
                known.violation(strategy, sample, claim)
                for claim in _made(strategy, known.name, sample)
            )
            return next((v for v in found if v is not None), None)

        for sample in draws:
            if not _made(strategy, known.name, sample):
                continue
            broken = _safely(violation, sample)
            judged += broken is not SKIP
            if broken and broken is not SKIP:
                claim = str(_made(strategy, known.name, sample)[0])
                budget = 25 if _in_distribution(strategy, known.name) else 400
                _fail(
                    strategy, known.name, f"claims {claim!r}: ", broken, sample, violation, budget
                )
        if not judged:
            raise ConformanceError(
                f"{strategy!r} claims {known.name!r} under a condition that no sample meets, so that it cannot be checked."
            )

    return look


def _unclaimed(known: Registered) -> Callable[[Strategy], None]:
    def look(strategy: Strategy) -> None:
        claim, judged = Claim(known.name), 0
        draws: Sequence[Sample] = _draws(UNCLAIMED_DRAWS, 1)
        if _in_distribution(strategy, known.name):
            draws = samples(DRAWS_IN_DISTRIBUTION, seed=1, sizes=(4, 3, 2, 5), scales=False)
        for sample in draws:
            if _made(strategy, known.name, sample):
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
                f"{strategy!r} does not claim {known.name!r}, yet it holds on all {judged} of {len(draws)} adversarial draws that can tell: claim it, "
                f"or say when it holds: when('...', predicate, {known.name!r})."
            )

    return look


def _safely(violation: Callable[[Sample], str | None], sample: Sample) -> str | None:
    """What is wrong, an exception included; an InputError says that the strategy is not made for so many objectives."""
    try:
        return violation(sample)
    except InputError:
        return SKIP
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"


def _refusal(violation: Callable[[Sample], str | None], sample: Sample) -> str:
    try:
        return str(violation(sample))
    except InputError as error:
        return str(error)


def _fail(
    strategy: Strategy,
    check: str,
    claim: str,
    broken: str,
    sample: Sample,
    violation: Callable[[Sample], str | None],
    budget: int = 400,
) -> None:
    raised = broken.startswith("it raised")

    def fails(candidate: Sample) -> bool:
        found = _safely(violation, candidate)
        return found is not None and found is not SKIP and found.startswith("it raised") == raised

    small = shrink(sample, fails, budget) if fails(sample) else sample
    found = _safely(violation, small) or broken
    raise ConformanceError(
        f"{strategy!r}, check {check!r}: {claim}{found}.\n"
        f"  Smallest failing Jacobian found, [n, d] = [{small.count}, {small.jacobian.shape[1]}]{report.splits(small)}:\n{report.matrix(small)}\n"
        f"{report.returned(strategy, small)}{report.given(strategy, small)}"
        f"  First seen on a sample of the kind {str(sample)!r}."
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 24 else text[:20] + "..."
