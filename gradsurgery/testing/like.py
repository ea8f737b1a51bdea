"""The claims of a strategy, for a function that is to be like it."""

from dataclasses import replace

from gradsurgery.contract import get_strategy
from gradsurgery.contract.claims import Claim
from gradsurgery.errors import InputError


def claims_like(name: str) -> list[Claim]:
    """The claims of a strategy, as those of a function without its options.

    Raises:
        InputError: for a strategy that claims nothing.
        UnknownNameError: for an unknown one.

    Example:
        >>> [str(claim) for claim in claims_like("mean")][0]
        'homogeneous(1)'
    """
    strategy = get_strategy(name)
    options = strategy.options
    if not strategy.claims:
        raise InputError(f"--like {name}: this strategy claims nothing; give --claims.")

    def alone(claim: Claim) -> Claim:
        def holds(n: int, rank: int) -> bool:
            return claim.holds(n, rank, options)

        return replace(claim, degree=claim.degree_under(options), formula="", predicate=holds)

    return [alone(claim) for claim in strategy.claims]
