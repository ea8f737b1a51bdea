"""What is checked of a strategy: its settings, each with the checks that belong to it."""

from collections.abc import Callable
from typing import Any

from gradsurgery.contract import Claim, Strategy, get_strategy
from gradsurgery.contract.registry import of_function, registered
from gradsurgery.errors import ConformanceError, InputError
from gradsurgery.testing.checks import Check, checks_of, common_samples
from gradsurgery.testing.variants import unvaried, works

UNVARIED = 5  # one sample in so many for each value of an option that no variant has
Chosen = str | Strategy | Callable[..., Any]
Case = tuple[Strategy, Check, str]  # with its options; what to check; the name of the case


def cases_of(strategy: Chosen) -> list[Case]:
    """Every check of a strategy, under its defaults, its variants, and options no variant has.

    One that is given with its options bound is checked under just these.
    """
    bound = settings(strategy)
    cases = [
        (one, check, f"{check.name} [{label}]" if label else check.name)
        for one, label in bound
        for check in checks_of(one)
    ]
    if isinstance(strategy, Strategy):  # options bound by hand may well rule a claim out
        return cases
    more = unvaried([one for one, _ in bound], bound[0][0].variants)
    for one, label in more:
        cases += [
            (one, Check(check.name, _where_it_works(check.run)), f"{check.name} [{label}]")
            for check in checks_of(one, UNVARIED)
            if not check.name.startswith("unclaimed")
        ]
    first = bound[0][0]
    if never := _never_made(first.claims, [one for one, _ in bound + more]):
        cases.append((first, _unchecked(never), "conditions"))
    return cases


def settings(strategy: Chosen) -> list[tuple[Strategy, str]]:
    """The strategy under its defaults and under each of its variants, each with a label.

    One with its options bound is returned just as it is.
    """
    if isinstance(strategy, Strategy):
        return [(strategy, "")]
    if callable(strategy):
        found = of_function(strategy)
        if found is None:
            name = getattr(strategy, "__qualname__", strategy)
            advice = "decorate it with @gradsurgery.strategy(...)"
            raise InputError(f"strategy: {name!r} is not registered; {advice}.")
        strategy = found.name
    base = registered(strategy)
    bound = [] if base.required else [(get_strategy(base.name), "")]
    for variant in base.variants:
        label = ", ".join(f"{k}={_short(v)}" for k, v in variant.items())
        bound.append((get_strategy(base.name, **variant), label))
    if not bound:
        needed = base.required[0]
        raise InputError(
            f"strategy {base.name!r} needs the option {needed!r}: "
            f"give get_strategy({base.name!r}, {needed}=...), or declare variants=."
        )
    return bound


def _never_made(claims: tuple[Claim, ...], settings: list[Strategy]) -> list[Claim]:
    """The claims whose condition holds for no sample under any of these settings."""
    return [
        claim
        for claim in claims
        if not any(
            claim.holds(sample.count, sample.rank, one.options)
            for one in settings
            for sample in common_samples()
        )
    ]


def _unchecked(claims: list[Claim]) -> Check:
    """A check that fails, as the conditions of these claims never hold."""
    conditions = ", ".join(f"{str(claim)!r}" for claim in claims)

    def run(strategy: Strategy) -> None:
        raise ConformanceError(
            f"{strategy!r}, check 'conditions': the conditions of {conditions} hold for no sample "
            "under its defaults or any of its variants, so that nothing can be checked: "
            "declare variants= under which they hold, or take the claim back."
        )

    return Check("conditions", run)


def _where_it_works(check: Callable[[Strategy], None]) -> Callable[[Strategy], None]:
    """The check, where the options' values can be used."""

    def checked(strategy: Strategy) -> None:
        if works(strategy):
            check(strategy)

    return checked


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 24 else text[:20] + "..."
