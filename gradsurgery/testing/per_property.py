"""What is found of the contract of a call, and of each property."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from gradsurgery.contract import Claim, Strategy, homogeneous
from gradsurgery.errors import InputError
from gradsurgery.testing.adversarial import samples
from gradsurgery.testing.calls import NOT_REPEATED, broken_contract
from gradsurgery.testing.checks import (
    CANDIDATES,
    CANDIDATES_IN_DISTRIBUTION,
    DRAWS_IN_DISTRIBUTION,
)
from gradsurgery.testing.failing import no_answer, safely
from gradsurgery.testing.findings import Finding
from gradsurgery.testing.foreign import Adopted
from gradsurgery.testing.properties import PROPERTIES
from gradsurgery.testing.runner import SKIP, claims_of, is_random, run, scaled
from gradsurgery.testing.sample import Sample
from gradsurgery.testing.tally import tally
from gradsurgery.testing.wording import CONTRACT

EXPLAINED = (
    f"{NOT_REPEATED}. The generators of random, numpy and torch were alike for both calls, so "
    "something else differs: a counter, a clock, a generator of its own"
)


def judgeable(contract: Finding) -> bool:
    """Whether there are draws with an answer that comes again, so that properties can be judged."""
    says = "" if contract.example is None else contract.example.says
    if says in (NOT_REPEATED, EXPLAINED):
        return False
    return contract.violated < contract.judged or not no_answer(says)


def contract_of(adopted: Adopted, drawn: Sequence[Sample], least: int) -> Finding:
    """What is found of the contract of a call.

    Args:
        adopted: what is asked.
        drawn: the draws, in the order of their size.
        least: the least number of objectives.
    """
    strategy = adopted.strategy

    def violation(sample: Sample) -> str | None:
        said = broken_contract(strategy, sample)
        return EXPLAINED if said == NOT_REPEATED and adopted.call is not None else said

    def refusal(sample: Sample) -> str | None:
        try:
            return violation(sample)
        except InputError as error:
            return f"it refuses these gradients: {error}"

    # to refuse a number of objectives is fair, to refuse some gradients of a number is not
    accepted = {s.count for s in drawn if safely(violation, s) is not SKIP}
    return tally(
        CONTRACT,
        strategy,
        [s for s in drawn if s.count in accepted or not accepted],
        refusal,
        claimed=True,
        budget=CANDIDATES,
        least=least,
        answers=False,
    )


def property_of(
    adopted: Adopted, name: str, drawn: Sequence[Sample], seed: int, sizes: tuple[int, int]
) -> Iterator[Finding]:
    """What is found of a property: on the draws where it is claimed, and on the others.

    Args:
        adopted: what is asked.
        name: of the property.
        drawn: the draws, in the order of their size.
        seed: of the draws.
        sizes: the least and the largest number of objectives.
    """
    strategy, known = adopted.strategy, PROPERTIES[name]
    in_distribution = name == "permutation-equivariant" and is_random(strategy)
    if in_distribution:  # one draw is hundreds of calls
        few = [n for n in (4, 3, 2, 5) if sizes[0] <= n <= sizes[1]]
        drawn = samples(DRAWS_IN_DISTRIBUTION, seed=seed, sizes=few or sizes[:1], scales=False)
    parts: dict[tuple[str, bool], tuple[Claim, list[Sample]]] = {}
    for sample in drawn:
        made = claims_of(strategy, name, sample)
        claim = made[0] if made else Claim(name)
        parts.setdefault((str(claim), bool(made)), (claim, []))[1].append(sample)
    for (_, claimed), (claim, part) in parts.items():
        if claim.name == "homogeneous" and claim.degree is None:
            claim = _with_degree(strategy, part)
        if claim.name == "sums-to-one" and "rows" in strategy.inputs and not claimed:
            continue  # a direction has no weights

        def violation(sample: Sample, claim: Claim = claim) -> str | None:
            return known.violation(strategy, sample, claim)

        yield tally(
            str(claim),
            strategy,
            part,
            violation,
            claimed=claimed,
            budget=CANDIDATES_IN_DISTRIBUTION if in_distribution else CANDIDATES,
            least=sizes[0],
            in_distribution=in_distribution,
        )


def _with_degree(strategy: Strategy, drawn: Sequence[Sample]) -> Claim:
    """The claim with the degree that the first of these draws has, to a millionth."""
    for sample in drawn:
        with contextlib.suppress(Exception):
            one, half = (run(strategy, each).vector for each in (sample, scaled(sample, 0.5)))
            lengths = float(np.linalg.norm(one)), float(np.linalg.norm(half))
            if min(lengths) > 0:
                return homogeneous(round(float(np.log2(lengths[0] / lengths[1])), 6) + 0.0)
    return Claim("homogeneous")
