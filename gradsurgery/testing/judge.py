"""check_function: which properties a function of G or J has, on adversarial gradients."""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gradsurgery.errors import InputError
from gradsurgery.testing.adversarial import samples
from gradsurgery.testing.checks import DRAWS
from gradsurgery.testing.findings import Finding, Findings
from gradsurgery.testing.foreign import Adopted, adopt, other_kind_works
from gradsurgery.testing.kinds import KINDS, least_size
from gradsurgery.testing.per_property import contract_of, judgeable, property_of
from gradsurgery.testing.properties import PROPERTIES
from gradsurgery.testing.runner import is_random
from gradsurgery.testing.sample import Sample
from gradsurgery.testing.wording import CONTRACT

WARNINGS = 3  # that are shown


def check_function(
    function: Any,
    *,
    input: str | None = None,
    claims: Sequence[Any] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    objectives: Sequence[int] | None = None,
    name: str = "",
    progress: Callable[[str], None] = lambda name: None,
) -> Findings:
    """Find out which properties a function has, and the smallest gradients where one fails.

    The function need not know this library. It takes G, numpy [n, n], and returns weights [n], or
    it takes J, torch [n, d], and returns the direction [d]. Where it draws from global random
    generators, these are seeded before each call.

    Args:
        function: such a function, a strategy, or the name of one.
        input: "gram" or "rows"; None goes by the name of the parameter, then by trying.
        claims: what it promises, as in the decorator. Without, every property is tried, and only
            the contract and what a strategy itself claims is promised.
        draws: how many adversarial Jacobians, as `samples` gives them.
        seed: another seed, other draws.
        objectives: the numbers of objectives to draw; None is 1 to 33.
        name: for the report; empty for the function's own.
        progress: called with the name of each property before it is tried.

    Returns:
        `Findings`; `print` shows them, `passed` says whether every promise holds.

    Raises:
        InputError: for what is no function of one argument, or where its input stays unclear.
        StrategyError: for claims that do not exist.

    Example:
        >>> import numpy as np
        >>> from gradsurgery.testing import check_function
        >>> found = check_function(lambda G: np.ones(len(G)), claims=["deterministic"], draws=50)
        >>> found.passed
        True
        >>> found = check_function(lambda G: np.ones(len(G)), claims=["strict"], draws=50)
        >>> found.failures, found.results[1].example.jacobian.shape
        (('strict',), (2, 1))
    """
    drawn = _draws(draws, seed, objectives)
    sizes = min(s.count for s in drawn), max(s.count for s in drawn)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        adopted = adopt(function, input, claims, name).random_on(drawn)
        progress(CONTRACT)
        results = [contract_of(adopted, drawn, sizes[0])]
        for known in PROPERTIES if judgeable(results[0]) else ():
            if claims is None or any(claim.name == known for claim in adopted.claims):
                progress(known)
                results += property_of(adopted, known, drawn, seed, sizes)
    notes = (*_notes(adopted, results[0]), *_warned(function, warned))
    return Findings(adopted.name, adopted.assumed, len(drawn), sizes, seed, tuple(results), notes)


def _draws(count: int, seed: int, objectives: Sequence[int] | None) -> list[Sample]:
    """The samples, with these numbers of objectives."""
    if count < 1:
        raise InputError(f"draws: expected 1 or more; got {count}.")
    if objectives is None:
        return samples(count, seed=seed)
    if not objectives or min(objectives) < 1:
        raise InputError(f"objectives: expected numbers of 1 or more; got {list(objectives)}.")
    kinds = [kind for kind in KINDS if least_size(kind) <= max(objectives)]
    # some kinds need more objectives than they were to have: those draws are left out
    found = samples(3 * count, seed=seed, kinds=kinds, sizes=list(objectives))
    fitting = [sample for sample in found if sample.count in objectives]
    return [fitting[i] for i in np.linspace(0, len(fitting) - 1, count).round().astype(int)]


def _notes(adopted: Adopted, contract: Finding) -> Iterator[str]:
    call = adopted.call
    if call is None:
        return
    if is_random(adopted.strategy):
        yield (
            "It draws from a global random generator, which was seeded before each call: claims "
            "are tried with several seeds."
        )
    if not judgeable(contract) and other_kind_works(adopted):
        other = "rows" if adopted.kind == "gram" else "gram"
        yield f"It does give an answer of the right shape for --input {other}."
    if not judgeable(contract):
        yield "Nothing more was tried: for that its answers have to come, and to come again."
    if call.printed:
        yield f"It prints, in {call.printed} calls: {call.first_line!r}."
    if call.narrowed:
        yield f"It answers in {call.narrowed} to float64, so that its own rounding counts."


def _warned(function: Any, warned: Iterable[warnings.WarningMessage]) -> Iterator[str]:
    """The warnings that came from the function's own file, each once."""
    try:
        file = inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
    except TypeError:
        return
    own = {(w.lineno, str(w.message)): w.category for w in warned if w.filename == file}
    for (line, message), category in list(own.items())[:WARNINGS]:
        yield f"It warns in line {line}: {category.__name__}: {message}."
