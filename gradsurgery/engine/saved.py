"""A history as a saved state, and back: strings, numbers, tuples and tensors only.

Each field is a leaf for `torch.distributed.checkpoint`, which loads into a template: it goes
through dicts and lists, drops what the template's lack, and takes a tuple as it is. In the template
of a Surgery without steps most fields are empty, so that they are tuples of pairs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gradsurgery.contract.state import State
from gradsurgery.contract.stored import as_names, as_numbers, as_pairs
from gradsurgery.engine.grouping import GroupKey
from gradsurgery.engine.history import History
from gradsurgery.engine.reach import Reach
from gradsurgery.errors import InputError

Counts = Iterable[tuple[str, int]]
MOST = 1 << 62  # a count beyond it is none, and could not be saved once it had grown


def as_saved(history: History, named: bool, counts: Counts = ()) -> dict[str, Any]:
    """What to save of a history and counts; `history_of` and `counts_in` are the inverse.

    Args:
        history: the history.
        named: whether parameters have names that hold in another process.
        counts: of `Surgery.corrections`, name and number.
    """
    reach = tuple((name, tuple(sorted(found))) for name, found in history.reach.items())
    states = {**history.waiting, **history.states}
    return {
        "step": history.step,
        "reach": reach if named else (),
        "groups": tuple((_plain(key), state.state_dict()) for key, state in states.items()),
        "observed": tuple(history.observed.items()),
        "weights": tuple(history.weights.items()),
        "solved": history.solved,
        "numbered": history.numbered,
        "replay": tuple((_plain(key), dict(row)) for key, row in history.replay.items()),
        "corrections": tuple(sorted(counts)),
    }


def history_of(saved: Mapping[str, Any], no_nan: bool, no_infinity: bool) -> History:
    """The history of which `as_saved` made this.

    Args:
        saved: what it made.
        no_nan: whether a NaN among the strategy's numbers is an error.
        no_infinity: whether an infinity is.

    Raises:
        InputError: for anything that it would not have made.
    """
    try:
        step = _count("step", saved["step"])
        solved = _count("solved", saved.get("solved", 0))
        numbered = _count("numbered", saved.get("numbered", 0))
        if solved > step:
            raise InputError(
                f"load_state_dict: the weights are of step {solved}, after step {step}."
            )
        reach = {name: frozenset(as_names(o)) for name, o in as_pairs(saved["reach"])}
        groups = {
            _key(key): State.from_state_dict(state, no_nan, no_infinity)
            for key, state in saved["groups"]
        }
        replay = {_key(key): as_numbers(found) for key, found in saved.get("replay", ())}
        if len(groups) < len(saved["groups"]) or len(replay) < len(saved.get("replay", ())):
            raise InputError("load_state_dict: a group comes twice.")
        observed = as_numbers(saved.get("observed", ()))
        weights = as_numbers(saved.get("weights", ()))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; {error!r}."
        ) from error
    reached = set(reach.values())
    states = {k: s for k, s in groups.items() if isinstance(k, str) or k in reached}
    waiting = {k: s for k, s in groups.items() if k not in states}
    numbers = observed, weights, solved, replay, numbered
    return History(step, Reach.of(reach), states, waiting, {}, *numbers)


def counts_in(saved: Mapping[str, Any]) -> Counter[str]:
    """What `Surgery.corrections` had counted; older states have no counts, which start from zero.

    Raises:
        InputError: for anything else than whole numbers by name.
    """
    try:
        pairs = as_pairs(saved.get("corrections", ()))
        return Counter({name: _count(f"corrections of {name!r}", n) for name, n in pairs})
    except TypeError as error:
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; {error!r}."
        ) from error


def _count(name: str, saved: Any) -> int:
    if type(saved) is not int or not 0 <= saved < MOST:
        raise InputError(
            f"load_state_dict: {name} is a whole number that is not negative; got {saved!r}."
        )
    return saved


def _plain(key: GroupKey) -> str | tuple[str, ...]:
    return key if isinstance(key, str) else tuple(sorted(key))


def _key(saved: str | Sequence[str]) -> GroupKey:
    return saved if isinstance(saved, str) else frozenset(as_names(saved))
