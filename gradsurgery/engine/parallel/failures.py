"""What one rank tells the others of an exception, and what they raise then."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from gradsurgery import errors
from gradsurgery.errors import GradSurgeryError, NonFiniteError, RankError


@dataclass(frozen=True)
class Failure:
    """An exception of one rank: its class by name, its text, and the rank's number."""

    kind: str
    text: str
    rank: int


def failure_of(error: BaseException, rank: int) -> Failure:
    return Failure(type(error).__name__, str(error), rank)


def error_of(found: Sequence[object]) -> GradSurgeryError | None:
    """What a rank without a failure raises: the first failure, by the rank's number.

    Args:
        found: by rank its `Failure`, or something else.
    """
    for failure in found:
        if isinstance(failure, Failure):
            rank = failure.rank
            kind = getattr(errors, failure.kind, None)
            if not (isinstance(kind, type) and issubclass(kind, GradSurgeryError)):
                return RankError(f"rank {rank}: {failure.kind}: {failure.text}")
            if issubclass(kind, NonFiniteError) and failure.text.startswith("rank"):
                return kind(failure.text)  # it names the ranks that it came from
            return kind(f"rank {rank}: {failure.text}")
    return None


@contextmanager
def group_works(doing: str) -> Iterator[None]:
    """Calls of the process group; where it fails, as for a rank that is gone, the error says when.

    Args:
        doing: what the ranks exchange.

    Raises:
        RankError: in place of the group's own error.
    """
    try:
        yield
    except GradSurgeryError:
        raise
    except RuntimeError as error:
        what = f"the process group failed while {doing}, as it does where a rank is gone"
        raise RankError(f"{what}: {error}") from error


def ranks_named(ranks: Sequence[int]) -> str:
    """ "rank 1" or "ranks 0, 2" """
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def name_ranks(
    error: NonFiniteError,
    numbers: Sequence[int],
    values: Sequence[Sequence[float]],
    odd: Mapping[int, set[int]],
) -> None:
    """Say in an error which ranks NaN or infinity came from, as far as that is known.

    Args:
        error: it is changed.
        numbers: the ranks' global numbers.
        values: per rank what it gave to the last sum.
        odd: loss -> the ranks whose gradients were not finite.
    """
    text = str(error)
    if text.startswith("rank"):
        return
    finite = [all(abs(v) < float("inf") for v in own) for own in values]
    ranks = {rank for rank, good in enumerate(finite) if not good}
    ranks = ranks or {rank for found in odd.values() for rank in found}
    if ranks:
        error.args = (f"{ranks_named([numbers[rank] for rank in sorted(ranks)])}: {text}",)
