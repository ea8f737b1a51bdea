"""Objectives of a phase that is over: groups that they alone had split are one again."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from gradsurgery.contract.state import State
from gradsurgery.engine.grouping import GroupKey
from gradsurgery.engine.history import History
from gradsurgery.engine.reach import Reach
from gradsurgery.errors import InputError, one_of


def without_objectives(history: History, names: Collection[str]) -> History:
    """The history as if these objectives had never been; groups that become one share states.

    Raises:
        InputError: for no name, or one that no loss has had.
    """
    _check_names(history, names)
    gone = frozenset(names)
    return replace(
        history,
        reach=history.reach.without(gone),
        states=_united(history.states, gone, history.reach),
        waiting=_united(history.waiting, gone, None),
        observed={name: value for name, value in history.observed.items() if name not in gone},
        weights={name: weight for name, weight in history.weights.items() if name not in gone},
        replay={},
    )


def _check_names(history: History, names: Collection[Any]) -> None:
    loaded = [key for key in history.waiting if isinstance(key, frozenset)]
    known = sorted(history.objectives.union(*loaded))
    if not names:
        raise InputError(
            "forget: name the objectives of the phase that is over; there were "
            f"{', '.join(map(repr, known)) or 'none'}. To forget all make a new Surgery."
        )
    for name in names:
        if not isinstance(name, str):
            given = list(name) if isinstance(name, list | tuple | set | frozenset) else []
            one = given[0] if given and isinstance(given[0], str) else known[0] if known else "a"
            advice = f'give each name by itself, as in forget("{one}")'
            raise InputError(f"forget: expected names of objectives; got {name!r}: {advice}.")
        if name not in known:
            raise InputError("forget: " + one_of("objective", name, known))


def _united(
    states: Mapping[GroupKey, State], gone: frozenset[str], reach: Reach | None
) -> dict[GroupKey, State]:
    """The states per group that is left; without `reach` it is not known whose rows they have."""

    def was_reached(item: tuple[GroupKey, State]) -> bool:
        """Groups that these never reached go first: where two have a number, its number stays."""
        return isinstance(item[0], frozenset) and bool(item[0] & gone)

    found: dict[GroupKey, State] = {}
    for key, state in sorted(states.items(), key=was_reached):
        left = key - gone if isinstance(key, frozenset) else key
        if not left:
            continue
        if reach is not None and isinstance(key, frozenset):
            # A group keeps old rows of parameters that have left it.
            state = state.copy([name for name, objectives in reach.items() if objectives == key])
        kept = state.without(gone)
        if left in found:
            found[left].absorb(kept)
        else:
            found[left] = kept
    return found
