"""Objectives of a phase that is over: without them the parameters that they alone had split off are one group again."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from gradsurgery.autograd.groups import GroupKey, Reach
from gradsurgery.autograd.memory import Memory
from gradsurgery.errors import InputError, one_of
from gradsurgery.state import State


def without(memory: Memory, names: Collection[str]) -> Memory:
    """The memory as if these objectives had never reached a parameter; groups that become one share their states.

    Raises:
        InputError: for no name, or one that no loss has had.
    """
    known = sorted(set().union(*memory.reach.values(), memory.weights, *(key for key in memory.waiting if isinstance(key, frozenset))))
    if not names:
        raise InputError(f"forget: name the objectives of the phase that is over; there were {', '.join(map(repr, known)) or 'none'}. For all: a new Surgery.")
    for name in names:
        if name not in known:
            raise InputError("forget: " + one_of("objective", name, known))
    gone = frozenset(names)
    reach: Reach = {parameter: left for parameter, objectives in memory.reach.items() if (left := objectives - gone)}
    return replace(
        memory,
        reach=reach,
        states=_joined(memory.states, gone, memory.reach),
        waiting=_joined(memory.waiting, gone, None),
        observed={name: value for name, value in memory.observed.items() if name not in gone},
        weights={name: weight for name, weight in memory.weights.items() if name not in gone},
        replay={},
    )


def _joined(states: Mapping[GroupKey, State], gone: frozenset[str], reach: Reach | None) -> dict[GroupKey, State]:
    found: dict[GroupKey, State] = {}
    # a group which these never reached goes first: where two have a number, its number stays
    for key, state in sorted(states.items(), key=lambda item: isinstance(item[0], frozenset) and bool(item[0] & gone)):
        left = key - gone if isinstance(key, frozenset) else key
        if not left:
            continue
        if reach is not None and isinstance(key, frozenset):  # a group keeps old rows of parameters that have left it
            state = state.copy([name for name, objectives in reach.items() if objectives == key])
        kept = state.without(gone)
        if left in found:
            found[left].absorb(kept)
        else:
            found[left] = kept
    return found
