"""What a command line or a caller gives, as lists of names, seeds and rates."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gradsurgery import InputError, Strategy, get_strategy


def listed(
    what: str, given: Any, kind: Any, example: str, alone: Any = (str, Strategy)
) -> tuple[Any, ...]:
    """What was given as a list; a name alone is a list of one.

    Raises:
        InputError: for no list, or one of other things.
    """
    if alone and isinstance(given, alone):
        return (given,)
    wrong = f"{what}: give a list, {example}; got {given!r}."
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InputError(wrong)
    found = tuple(given)
    if kind is not str and not all(isinstance(x, kind) and not isinstance(x, bool) for x in found):
        raise InputError(wrong)
    return found


def parse_strategy(text: str | Strategy) -> tuple[str, Strategy]:
    """The label and the strategy for "name" or "name(option=value, ...)".

    Values are Python literals.

    Raises:
        UnknownNameError: for a name or an option that does not exist, with the nearest match.
        StrategyError: for text that cannot be read, or a value that an option does not take.

    Example:
        >>> from gradsurgery.compare import parse_strategy
        >>> parse_strategy(" mgda(normalize='l2')")[0]
        "mgda(normalize='l2')"
    """
    strategy = get_strategy(text)
    options = ", ".join(f"{name}={value!r}" for name, value in strategy.given)
    return f"{strategy.name}({options})" if options else strategy.name, strategy


def split_list(values: Sequence[str]) -> list[str]:
    """Flatten values that may each be a comma-separated list.

    Commas within brackets do not separate.

    Example:
        >>> from gradsurgery.compare import split_list
        >>> split_list(["sum,cagrad(c=1.0, rescale=1)", "mgda"])
        ['sum', 'cagrad(c=1.0, rescale=1)', 'mgda']
    """
    pieces = [piece.strip() for value in values for piece in re.split(r",(?![^(]*\))", value)]
    return [piece for piece in pieces if piece]


def parse_seeds(values: Sequence[str]) -> list[int]:
    """Seeds from a command line.

    One number N is the seeds 0 to N − 1; a list, as in "0,7", is those seeds.

    Raises:
        InputError: when these are not numbers, or there are none.

    Example:
        >>> from gradsurgery.compare import parse_seeds
        >>> parse_seeds(["3"]), parse_seeds(["5,7"]), parse_seeds(["5,"])
        ([0, 1, 2], [5, 7], [5])
    """
    pieces = split_list(values)
    if not pieces or not all(re.fullmatch(r"\d+", piece) for piece in pieces):
        raise InputError(
            "seeds: give how many, as in 3, or which, as in 0,7; "
            f"got {', '.join(values) or 'nothing'}."
        )
    numbers = [int(piece) for piece in pieces]
    if len(numbers) > 1 or "," in values[0]:
        return numbers
    if numbers[0] == 0:
        raise InputError(
            "seeds: 0 seeds is no comparison; give how many, as in 3, or which, as in 0,7 "
            "(only the seed 0: 0,)."
        )
    return list(range(numbers[0]))


def parse_rates(values: Sequence[str]) -> list[float]:
    """Learning rates from a command line.

    Raises:
        InputError: when these are not positive numbers.

    Example:
        >>> from gradsurgery.compare import parse_rates
        >>> parse_rates(["0.1,0.01", "1e-3"])
        [0.1, 0.01, 0.001]
    """
    try:
        rates = [float(piece) for piece in split_list(values)]
    except ValueError as error:
        raise InputError(
            f"lr: give learning rates as in 0.1,0.01; got {', '.join(values)}."
        ) from error
    if not all(0 < rate < float("inf") for rate in rates):
        raise InputError(f"lr: learning rates are positive; got {', '.join(values)}.")
    return rates
