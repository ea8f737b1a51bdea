"""A failing draw made small: what is wrong with it in words, exceptions included."""

from collections.abc import Callable

from gradsurgery.errors import InputError
from gradsurgery.testing.answers import UnusableAnswer
from gradsurgery.testing.runner import SKIP
from gradsurgery.testing.sample import Sample
from gradsurgery.testing.shrink import shrink

Violation = Callable[[Sample], str | None]
NO_ANSWER = ("it raised", "it returned")  # how a sentence begins where there is nothing to judge


def safely(violation: Violation, sample: Sample) -> str | None:
    """What is wrong, an exception included; `SKIP` for an InputError.

    An InputError says that the strategy is not made for so many objectives.
    """
    try:
        return violation(sample)
    except InputError:
        return SKIP
    except UnusableAnswer as error:
        return str(error)
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"


def no_answer(said: str | None) -> str:
    """How a sentence of `safely` begins, where it says that there was no answer; else empty."""
    return next((start for start in NO_ANSWER if (said or "").startswith(start)), "")


def smallest(violation: Violation, sample: Sample, budget: int, least: int = 1) -> Sample:
    """The smallest Jacobian found that fails as the sample does: with an answer, or without.

    Args:
        violation: what is wrong with a sample.
        sample: one that fails.
        budget: how many candidates to try at most.
        least: the least number of objectives.
    """
    kind = no_answer(safely(violation, sample))

    def fails(candidate: Sample) -> bool:
        found = SKIP if candidate.count < least else safely(violation, candidate)
        return found is not None and found is not SKIP and no_answer(found) == kind

    return shrink(sample, fails, budget) if fails(sample) else sample
