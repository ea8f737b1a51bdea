"""A saved state brought to the parameters that are given now; what does not fit is refused."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.state import State
from gradsurgery.engine.described import check_options
from gradsurgery.engine.grouping import GroupKey
from gradsurgery.engine.history import LOSSES, History
from gradsurgery.engine.naming import own_names
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.saved import history_of
from gradsurgery.errors import InputError

FEATURES = re.compile(r"\.features(\[.*\])?", re.DOTALL)  # names that a step gave to features
NUMBERED = re.compile(r"#[0-9]+")  # the names of parameters that were not given
LOOSE = "strict=False takes what fits, and drops the rest."


def resumed(state: Any, strategy: Strategy, parameters: Parameters, strict: bool) -> History:
    """The history with which a saved state goes on here.

    Raises:
        InputError: when it is no saved state, or belongs to another strategy; under `strict` also
            to other options, groups or parameters.
    """
    if not isinstance(state, Mapping) or "strategy" not in state:
        raise InputError(
            "load_state_dict: expected what state_dict() returned; "
            f"got {type(state).__name__} without a strategy."
        )
    if not isinstance(state["strategy"], str) or state["strategy"] != strategy.name:
        raise InputError(
            f"load_state_dict: this state belongs to strategy {state['strategy']!r}, "
            f"not to {strategy.name!r}."
        )
    if strict and "options" in state:
        check_options(strategy, state["options"])
    # A number that is not one yet is not saved any more; states without options are older.
    history = history_of(state, no_nan="options" in state, no_infinity=strategy.shipped)
    groups = _explicit_of(state, history, strategy)
    if strict:
        _check_groups(groups, history, parameters)
    if parameters.discover:
        return _by_number(history, groups, strict)
    return _by_name(history, parameters, strict)


def _explicit_of(state: Mapping[str, Any], history: History, strategy: Strategy) -> tuple[str, ...]:
    """The explicit groups of a saved state; an older one tells of those that have a state."""
    groups = state.get("explicit", ())
    if not isinstance(groups, list | tuple) or not all(isinstance(name, str) for name in groups):
        raise InputError(
            "load_state_dict: expected what state_dict() returned; "
            f"its explicit groups are {groups!r}."
        )
    every = (*history.states, *history.waiting, *history.replay)
    own = () if strategy.acts_on == "group" else (LOSSES,)
    found = [key for key in every if isinstance(key, str) and key not in own]
    return tuple(dict.fromkeys((*groups, *found)))


def _check_groups(saved: tuple[str, ...], history: History, parameters: Parameters) -> None:
    """Every group that has a state here is one there."""
    own = parameters.groups
    reached = [name for name in history.reach if not FEATURES.fullmatch(name)]
    by_reach = any(isinstance(key, frozenset) for key in history.waiting)
    by_reach = by_reach or any("/" not in name for name in reached)
    if (parameters.explicit and by_reach) or not set(saved) <= set(own):
        raise InputError(
            f"load_state_dict: this state was saved with {_layout(saved)}; this Surgery has "
            f"{_layout(own)}. Give parameters= in the same groups. {LOOSE}"
        )


def _by_number(history: History, groups: tuple[str, ...], strict: bool) -> History:
    """Without given parameters: objectives tell a group, and numbers whose a gradient is."""
    odd = [name for name in history.parameters if not NUMBERED.fullmatch(name)]
    if odd and strict:
        raise InputError(
            "load_state_dict: the saved gradients are of parameters that are known by name "
            f"({_listed(odd)}), which parameters=None does not know: make the Surgery with "
            f"parameters=, as before saving. {LOOSE}"
        )
    states = _without({**history.waiting, **history.states}, groups)
    if odd:
        states = {key: state.copy(()) for key, state in states.items()}
    by_name = {key for key in states if isinstance(key, str)}
    here, waiting = _without(states, set(states) - by_name), _without(states, by_name)
    replay = _without(history.replay, groups)
    return replace(history, reach=Reach(), states=here, waiting=waiting, replay=replay)


def _by_name(history: History, parameters: Parameters, strict: bool) -> History:
    """With given parameters: names of the state are theirs, and gradients have their shapes."""
    own = parameters.everything()
    reached = (name for name in history.reach if not FEATURES.fullmatch(name))
    saved = dict.fromkeys((*reached, *history.parameters))
    names = own_names(saved, own, parameters.groups)
    if strict and (unknown := [name for name in saved if name not in names]):
        raise InputError(
            f"load_state_dict: the state has {len(unknown)} parameters that are not among the "
            f"{len(own)} given: {_listed(unknown)} (given: {_listed(own)}). {_reason(unknown)} "
            f"{LOOSE}"
        )
    states = {key: state.renamed(names) for key, state in history.states.items()}
    waiting = {key: state.renamed(names) for key, state in history.waiting.items()}
    for state in (*states.values(), *waiting.values()):
        _check_shapes(state, own)
    reach = {
        names.get(name, name): objectives
        for name, objectives in history.reach.items()
        if name in names or FEATURES.fullmatch(name)
    }
    groups = set(parameters.groups) | {LOSSES}
    every = (*states, *waiting, *history.replay)
    lost: set[GroupKey] = {key for key in every if isinstance(key, str) and key not in groups}
    alive = set(reach.values())
    lost |= {key for key in states if isinstance(key, frozenset) and key not in alive}
    here, later, replay = (_without(found, lost) for found in (states, waiting, history.replay))
    return replace(history, reach=Reach.of(reach), states=here, waiting=later, replay=replay)


def _check_shapes(state: State, own: Mapping[str, Tensor]) -> None:
    """A gradient has its parameter's shape; of a complex one it may be in pairs of real numbers."""
    for name, shape in state.shapes():
        if is_lazy(own[name]):
            continue
        wanted = tuple(own[name].shape)
        if shape != wanted and not (own[name].is_complex() and shape == (*wanted, 2)):
            raise InputError(
                f"load_state_dict: a saved gradient of parameter {name!r} has shape {list(shape)}, "
                f"the parameter {list(wanted)}: the state belongs to another model."
            )


def _reason(unknown: Iterable[str]) -> str:
    if all(map(NUMBERED.fullmatch, unknown)):
        return (
            "It was saved with parameters=None, which numbers parameters: load it into such a "
            "Surgery."
        )
    return "It belongs to another model, or parameters= was given in another way."


def _layout(groups: tuple[str, ...]) -> str:
    return f"the explicit groups {_listed(groups)}" if groups else "groups by reach"


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return ", ".join(map(repr, shown[:4])) + more


def _without(found: Mapping[GroupKey, Any], keys: Iterable[Any]) -> dict[GroupKey, Any]:
    left_out = set(keys)
    return {key: value for key, value in found.items() if key not in left_out}
