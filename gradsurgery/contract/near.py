"""Which strategy an unknown name means: another spelling, a slip, or a method that is near."""

import re
from collections.abc import Iterable, Mapping

from gradsurgery.errors import nearest

# What libraries add to a method's name: UPGradWeighting, PCGradOperator, GradNormLossWeighter.
SUFFIX = re.compile(r"[-_ ]?(loss[-_ ]?)?(weight(ing|er|s)?|aggregator|operator|optimizer)$", re.I)
LETTERS = 4  # from which the beginning of a single name is taken for it
LONG = 8  # letters, from which a name may be misspelt at two places


def unknown_strategy(
    given: str, names: Iterable[str], also: Mapping[str, Iterable[str]], said: Mapping[str, str]
) -> str:
    """The sentence for a name that no strategy has.

    Names of published methods differ by a letter or two, so that a hint has to be nearer than for
    other names: a slip in one place, or in two of a long name.

    Args:
        given: what was given.
        names: of all strategies.
        also: a strategy's name -> others for which it is the hint.
        said: other names -> how these methods differ, which ends the sentence.
    """
    known = list(names)
    near = meant(given.strip(), known, also)
    hint = "" if near is None else f" Did you mean {near!r}?"
    other = nearest(given, said, cutoff=1.0)
    ends = "" if other is None else f" {other}: {said[other]}"
    return f"unknown strategy {given!r}.{hint} Known: {', '.join(known) or 'none'}.{ends}"


def meant(given: str, known: list[str], also: Mapping[str, Iterable[str]]) -> str | None:
    """The strategy that was probably meant; None where no name is near."""
    for spelled in (given, SUFFIX.sub("", given)):
        same = nearest(spelled, known, also, cutoff=1.0)
        if same is not None:
            return same
    plain = _plain(given)
    began = [name for name in known if len(plain) >= LETTERS and _plain(name).startswith(plain)]
    if len(began) == 1:
        return began[0]
    return _slip(plain, {_plain(name): name for name in known}, also)


def _slip(given: str, known: dict[str, str], also: Mapping[str, Iterable[str]]) -> str | None:
    others = {_plain(word): name for name, words in also.items() for word in words}
    long = {word: name for word, name in others.items() if len(word) >= LONG}
    for allowed, pool in ((1, known), (1, long), (2 if len(given) >= LONG else 0, known)):
        for word, name in pool.items():
            exchanged = sorted(word) == sorted(given)  # short names differ by a letter as it is
            if (exchanged or len(given) > LETTERS) and _slips(given, word) <= allowed:
                return name
    return None


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).casefold()


def _slips(one: str, other: str) -> int:
    """How many letters are missing, added, wrong, or exchanged with the next one."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
