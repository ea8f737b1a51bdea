"""What a saved state says of its Surgery: the strategy, its options as text, explicit groups."""

import contextlib
from collections.abc import Mapping
from numbers import Real
from typing import Any, get_args

import numpy as np
from torch import Tensor

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.registry import get_strategy
from gradsurgery.contract.stored import as_pairs
from gradsurgery.engine.parameters import Parameters
from gradsurgery.errors import GradSurgeryError, InputError


def described(strategy: Strategy, parameters: Parameters) -> dict[str, Any]:
    """What goes into a state beside the history."""
    return {
        "strategy": strategy.name,
        "options": tuple(_options(strategy).items()),
        "explicit": parameters.groups,
    }


def check_options(strategy: Strategy, saved: Any) -> None:
    """The strategy has the options that a state was saved with.

    Raises:
        InputError: for other ones, or for what is no record of options.
    """
    given = dict(as_pairs(saved))
    if not all(isinstance(value, str) for value in given.values()):
        raise InputError(
            f"load_state_dict: expected what state_dict() returned; its options are {saved!r}."
        )
    own = _options(strategy)
    other = [name for name in given if given[name] != own.get(name)]
    if other := [name for name in other if given[name] not in _older(strategy, name)]:
        before = ", ".join(f"{name}={given[name]}" for name in other)
        now = ", ".join(
            f"{name}={own[name]}" if name in own else f"no option {name}" for name in other
        )
        raise InputError(
            f"load_state_dict: this state was saved with {strategy.name}({before}); this Surgery "
            f"has {strategy.name}({now}). Give the same options; strict=False goes on with other "
            "ones."
        )


def as_text(value: Any) -> str:
    """An option as text, equal for equal values: 1 and 1.0, a list and an array."""
    if isinstance(value, Real) and not isinstance(value, bool):
        return repr(float(value))
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return as_text(value.tolist())
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{k!r}: {as_text(item)}" for k, item in value.items())) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(as_text, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_text, value)) + "]"
    if isinstance(value, Strategy):
        return repr(_call(value))
    if callable(value):
        name = getattr(value, "__qualname__", type(value).__qualname__)
        return f"{getattr(value, '__module__', '')}.{name}"
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def _options(strategy: Strategy) -> dict[str, str]:
    return {name: as_text(_meant(strategy, name)) for name in strategy.options}


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
    return {as_text(value), repr(meant)} if isinstance(meant, Strategy) else set()


def _call(strategy: Strategy) -> str:
    """A strategy as one writes it: its name, and the options that are not the defaults."""
    own = _options(strategy)
    given = [f"{name}={own[name]}" for name in own if own[name] != as_text(strategy.defaults[name])]
    return f"{strategy.name}({', '.join(given)})" if given else strategy.name
