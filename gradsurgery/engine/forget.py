"""Objectives of a phase that is over: what they alone had split is one group again."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from gradsurgery.contract.state import State
from gradsurgery.engine.grouping import GroupKey
from gradsurgery.engine.history import History
from gradsurgery.engine.reach import Reach
from gradsurgery.errors import InputError, one_of


def without(memory: History, names: Collection[str]) -> History:
    """The memory as if these objectives had never been; groups that become one share their states.

    Raises:
        InputError: for no name, or one that no loss has had.
    """
    loaded = [key for key in memory.waiting if isinstance(key, frozenset)]
    known = sorted(set().union(*memory.reach.values(), memory.weights, *loaded))
    if not names:
        raise InputError(
            f"forget: name the objectives of the phase that is over; there were {', '.join(map(repr, known)) or 'none'}. To forget all make a new Surgery."
        )
    for name in names:
        if not isinstance(name, str):
            given = list(name) if isinstance(name, list | tuple | set | frozenset) else []
            one = given[0] if given and isinstance(given[0], str) else known[0] if known else "a"
            advice = f'give each name by itself, as in forget("{one}")'
            raise InputError(f"forget: expected names of objectives; got {name!r}: {advice}.")
        if name not in known:
            raise InputError("forget: " + one_of("objective", name, known))
    gone = frozenset(names)
    reach = memory.reach.without(gone)
    return replace(
        memory,
        reach=reach,
        states=_joined(memory.states, gone, memory.reach),
        waiting=_joined(memory.waiting, gone, None),
        observed={name: value for name, value in memory.observed.items() if name not in gone},
        weights={name: weight for name, weight in memory.weights.items() if name not in gone},
        replay={},
    )


def _joined(
    states: Mapping[GroupKey, State], gone: frozenset[str], reach: Reach | None
) -> dict[GroupKey, State]:
    def later(item: tuple[GroupKey, State]) -> bool:
        """Groups that these never reached go first: where two have a number, its number stays."""
        return isinstance(item[0], frozenset) and bool(item[0] & gone)

    found: dict[GroupKey, State] = {}
    for key, state in sorted(states.items(), key=later):
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
