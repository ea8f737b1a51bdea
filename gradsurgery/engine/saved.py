"""A saved state brought to the parameters that are given now: names found again, and what does not fit refused."""

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, get_args

import numpy as np
from torch import Tensor
from torch.nn.parameter import is_lazy

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.registry import get_strategy
from gradsurgery.contract.state import State
from gradsurgery.engine.grouping import GroupKey
from gradsurgery.engine.history import LOSSES, History
from gradsurgery.engine.naming import found_again
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.reach import Reach
from gradsurgery.errors import GradSurgeryError, InputError

FEATURES = re.compile(r"\.features(\[.*\])?", re.DOTALL)  # names that a step gave to features
NUMBERED = re.compile(r"#[0-9]+")  # the names of parameters that were not given
LOOSE = "strict=False takes what fits, and drops the rest."


def described(strategy: Strategy, parameters: Parameters) -> dict[str, Any]:
    """What a state says of the Surgery it comes from: the strategy, its options as text, and the explicit groups."""
    return {
        "strategy": strategy.name,
        "options": _options(strategy),
        "explicit": parameters.groups,
    }


def resumed(state: Any, strategy: Strategy, parameters: Parameters, strict: bool) -> History:
    """The memory that a saved state gives here.

    Raises:
        InputError: when it is no saved state, or belongs to another strategy; under `strict` also to other options, groups or parameters.
    """
    if not isinstance(state, Mapping) or "strategy" not in state:
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; got {type(state).__name__} without a strategy."
        )
    if not isinstance(state["strategy"], str) or state["strategy"] != strategy.name:
        raise InputError(
            f"load_state_dict: this state belongs to strategy {state['strategy']!r}, not to {strategy.name!r}."
        )
    if strict and "options" in state:
        _check_options(strategy, state["options"])
    # A number that is not one yet is not saved any more; states without options are older, and have it.
    memory = History.from_state_dict(state, whole="options" in state, finite=strategy.shipped)
    groups = _explicit_of(state, memory, strategy)
    if strict:
        _check_groups(groups, memory, parameters)
    return (
        _unnamed(memory, groups, strict)
        if parameters.discover
        else _named(memory, parameters, strict)
    )


def written(value: Any) -> str:
    """An option as text, equal for equal values: 1 and 1.0, a list and an array."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return repr(float(value))
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return written(value.tolist())
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(sorted(f"{key!r}: {written(item)}" for key, item in value.items()))
            + "}"
        )
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(written, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, Strategy):
        return repr(_call(value))
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def _options(strategy: Strategy) -> dict[str, str]:
    return {name: written(_meant(strategy, name)) for name in strategy.options}


def _meant(strategy: Strategy, option: str) -> Any:
    """An option's value; the strategy itself where the option is one and has its name."""
    value = strategy.options[option]
    if isinstance(value, str) and Strategy in get_args(strategy.annotations.get(option)):
        with contextlib.suppress(GradSurgeryError):
            return get_strategy(value)
    return value


def _older(strategy: Strategy, option: str) -> set[str]:
    """How earlier versions wrote an option that is a strategy: as it was given."""
    if option not in strategy.options:
        return set()
    value, meant = strategy.options[option], _meant(strategy, option)
    return {written(value), repr(meant)} if isinstance(meant, Strategy) else set()


def _call(strategy: Strategy) -> str:
    """A strategy as one writes it: its name, and the options that are not the defaults."""
    own = _options(strategy)
    given = [f"{name}={own[name]}" for name in own if own[name] != written(strategy.defaults[name])]
    return f"{strategy.name}({', '.join(given)})" if given else strategy.name


def _check_options(strategy: Strategy, saved: Any) -> None:
    if not isinstance(saved, Mapping) or not all(
        isinstance(x, str) for pair in saved.items() for x in pair
    ):
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; its options are {saved!r}."
        )
    own = _options(strategy)
    other = [name for name in saved if saved[name] != own.get(name)]
    if other := [name for name in other if saved[name] not in _older(strategy, name)]:
        before = ", ".join(f"{name}={saved[name]}" for name in other)
        now = ", ".join(
            f"{name}={own[name]}" if name in own else f"no option {name}" for name in other
        )
        raise InputError(
            f"load_state_dict: this state was saved with {strategy.name}({before}); this Surgery has {strategy.name}({now}). "
            "Give the same options; strict=False goes on with other ones."
        )


def _explicit_of(state: Mapping[str, Any], memory: History, strategy: Strategy) -> tuple[str, ...]:
    """The explicit groups of a saved state; an older one tells of those that have a state."""
    groups = state.get("explicit", ())
    if not isinstance(groups, list | tuple) or not all(isinstance(name, str) for name in groups):
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; its explicit groups are {groups!r}."
        )
    found = [
        key for key in (*memory.states, *memory.waiting, *memory.replay) if isinstance(key, str)
    ]
    own = () if strategy.acts_on == "group" else (LOSSES,)
    return tuple(dict.fromkeys((*groups, *(key for key in found if key not in own))))


def _check_groups(saved: tuple[str, ...], memory: History, parameters: Parameters) -> None:
    """Every group that has a state here is one there."""
    own = parameters.groups
    by_reach = any(isinstance(key, frozenset) for key in memory.waiting)
    by_reach = by_reach or any(
        "/" not in name for name in memory.reach if not FEATURES.fullmatch(name)
    )
    if (parameters.explicit and by_reach) or not set(saved) <= set(own):
        before, now = _layout(saved), _layout(own)
        raise InputError(
            f"load_state_dict: this state was saved with {before}; this Surgery has {now}. Give parameters= in the same groups. {LOOSE}"
        )


def _layout(groups: tuple[str, ...]) -> str:
    return f"the explicit groups {_listed(groups)}" if groups else "groups by reach"


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(map(repr, shown[:4])) + (
        f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    )


def _unnamed(memory: History, groups: tuple[str, ...], strict: bool) -> History:
    """Without given parameters: groups are found again by their objectives, and gradients by number."""
    odd = [name for name in memory.parameters if not NUMBERED.fullmatch(name)]
    if odd and strict:
        raise InputError(
            f"load_state_dict: the saved gradients are of parameters that are known by name ({_listed(odd)}), which parameters=None "
            f"does not know: make the Surgery with parameters=, as before saving. {LOOSE}"
        )
    states = {
        key: state
        for key, state in {**memory.waiting, **memory.states}.items()
        if key not in groups
    }
    if odd:
        states = {key: state.copy(()) for key, state in states.items()}
    by_name = {key for key in states if isinstance(key, str)}
    here, waiting = _without(states, set(states) - by_name), _without(states, by_name)
    return replace(
        memory, reach=Reach(), states=here, waiting=waiting, replay=_without(memory.replay, groups)
    )


def _named(memory: History, parameters: Parameters, strict: bool) -> History:
    """With given parameters: each name of the state is one of theirs, and each saved gradient has its parameter's shape."""
    own = parameters.everything()
    saved = dict.fromkeys(
        (*(name for name in memory.reach if not FEATURES.fullmatch(name)), *memory.parameters)
    )
    names = found_again(saved, own, parameters.groups)
    if strict and (unknown := [name for name in saved if name not in names]):
        raise InputError(
            f"load_state_dict: the state has {len(unknown)} parameters that are not among the {len(own)} given: {_listed(unknown)} "
            f"(given: {_listed(own)}). {_reason(unknown)} {LOOSE}"
        )
    states = {key: state.renamed(names) for key, state in memory.states.items()}
    waiting = {key: state.renamed(names) for key, state in memory.waiting.items()}
    for state in (*states.values(), *waiting.values()):
        _check_shapes(state, own)
    reach = {
        names.get(name, name): objectives
        for name, objectives in memory.reach.items()
        if name in names or FEATURES.fullmatch(name)
    }
    groups = set(parameters.groups) | {LOSSES}
    reached = set(reach.values())
    every = (*states, *waiting, *memory.replay)
    lost: set[GroupKey] = {key for key in every if isinstance(key, str) and key not in groups}
    lost |= {key for key in states if isinstance(key, frozenset) and key not in reached}
    here, later, replay = (_without(found, lost) for found in (states, waiting, memory.replay))
    return replace(memory, reach=Reach.of(reach), states=here, waiting=later, replay=replay)


def _reason(unknown: Iterable[str]) -> str:
    if all(map(NUMBERED.fullmatch, unknown)):
        return "It was saved with parameters=None, which numbers parameters: load it into such a Surgery."
    return "It belongs to another model, or parameters= was given in another way."


def _check_shapes(state: State, own: Mapping[str, Tensor]) -> None:
    """A saved gradient has the shape of its parameter; that of a complex one may be in pairs of real numbers."""
    for name, shape in state.shapes():
        if is_lazy(own[name]):
            continue
        wanted = tuple(own[name].shape)
        if shape != wanted and not (own[name].is_complex() and shape == (*wanted, 2)):
            raise InputError(
                f"load_state_dict: a saved gradient of parameter {name!r} has shape {list(shape)}, the parameter "
                f"{list(wanted)}: the state belongs to another model."
            )


def _without(found: Mapping[GroupKey, Any], keys: Iterable[Any]) -> dict[GroupKey, Any]:
    left_out = set(keys)
    return {key: value for key, value in found.items() if key not in left_out}
