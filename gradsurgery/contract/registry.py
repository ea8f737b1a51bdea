"""Strategies by name: the decorator that registers a function, and the lookup."""

import ast
import copyreg
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gradsurgery.contract.claims import Claim, as_claims, forwarded, homogeneous, when
from gradsurgery.contract.definition import ActsOn, Strategy
from gradsurgery.contract.helpers import Optimizer, descend, warn_of_underflow
from gradsurgery.contract.inputs import FROM_GRADIENTS, INPUTS, unknown
from gradsurgery.contract.options import (
    NON_NEGATIVE,
    POSITIVE,
    SHARE,
    ObjectiveName,
    PerObjective,
    Range,
    by_objective,
)
from gradsurgery.contract.plugins import load_plugins, turn
from gradsurgery.contract.state import State
from gradsurgery.errors import InputError, StrategyError, UnknownNameError, one_of, warn
from gradsurgery.types import Array

__all__ = [
    "NON_NEGATIVE", "POSITIVE", "SHARE", "Claim", "ObjectiveName", "Optimizer", "PerObjective",
    "Range", "State", "Strategy", "by_objective", "descend", "forwarded", "get_strategy",
    "homogeneous", "losses_from_zero", "modality_score", "positive_losses", "read_call",
    "registered", "strategy", "strategy_names", "warn_of_underflow", "when",
]  # fmt: skip

# No option may be named like an argument of Surgery, backward, or a call of the strategy.
RESERVED = frozenset(INPUTS) | {
    "strategy", "parameters", "seed", "every", "protect", "nonfinite", "others", "min_objectives", "method", "memory",
    "measure", "zero", "process_group", "features", "scaler", "weights", "retain_graph", "step", "gradients",
}  # fmt: skip
SCALES = ("sum", "mean", "convex", "own")
_registry: dict[str, Strategy] = {}
_discovered = False  # set when all of them are there, and not before


def positive_losses(
    where: str, losses: Array | None, objectives: Sequence[str] | None, above: float = 0.0
) -> Array:
    """The losses, which a formula needs to be positive (or above a bound).

    Raises:
        InputError: that names the first loss which is not.
        StrategyError: when there are no losses.
    """
    if losses is None:
        raise StrategyError(f"{where} needs the input 'losses': pass losses=.")
    if not (losses > above).all():
        i = int(np.argmin(losses > above))
        name = objectives[i] if objectives is not None else str(i)
        raise InputError(
            f"{where} needs losses above {above:g}; {name!r} is {losses[i]:.4g}: leave it out of losses in that step."
        )
    return losses


def modality_score(
    name: str,
    scores: Mapping[str, float] | None,
    group: str,
    modality: Mapping[str, str] | None,
    positive: bool = True,
) -> tuple[float | None, list[float]]:
    """The score of a group's modality and those of the others; None where the group has no modality among the scores.

    Raises:
        InputError: when there are no scores, fewer than two, or one that cannot be used, or when `modality` names one without a score.
    """
    if scores is None:
        raise InputError(
            f"strategy {name!r} needs a score per modality: surgery.backward(losses, scores={{modality: number, ...}})."
        )
    numbers = dict(scores)
    if len(numbers) < 2 or not all(
        np.isfinite(x) and (x > 0 or not positive) for x in numbers.values()
    ):
        raise InputError(
            f"strategy {name!r}: expected {'positive' if positive else 'finite'} scores of two or more modalities; got {numbers}."
        )
    own = (modality or {}).get(group, group)
    if own not in numbers:
        if group in (modality or {}):
            raise InputError(
                f"strategy {name!r}: group {group!r} has the " + one_of("modality", own, numbers)
            )
        return None, []
    return numbers[own], [value for key, value in numbers.items() if key != own]


def losses_from_zero(
    where: str,
    losses: Array,
    objectives: Sequence[str],
    zero: float = 0.0,
) -> Array:
    """The losses, which a formula needs not to be negative; one of exactly zero counts as `zero`.

    Raises:
        InputError: that names the first loss which is negative.
    """
    if (losses < 0).any():
        i = int(np.argmax(losses < 0))
        given = f"{objectives[i]!r} is {losses[i]:.4g}"
        raise InputError(f"{where} needs losses of 0 or more; {given}.")
    return np.where(losses == 0, zero, losses) if zero else losses


def strategy(
    name: str,
    *,
    paper: str,
    scale: str,
    claims: Sequence[Any] = (),
    acts_on: ActsOn = "group",
    inputs: Callable[[dict[str, Any]], set[str]] | None = None,
    variants: Sequence[Mapping[str, Any]] = (),
    also: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a strategy. Its signature is the contract.

    Positional parameters are inputs, injected by name; one with the default None is optional. Keyword-only parameters
    are its options. It returns weights [n] (or [k, n], one row per parameter tensor), or a `Solution` whose value is
    the weights and whose gap the Record then shows; one that takes `rows` returns the direction [d].

    Args:
        name: lower case, words joined by hyphens.
        paper: the source, as one would cite it.
        scale: "sum", "mean", "convex" or "own".
        claims: names of claims, `homogeneous(k)`, and `when(condition, predicate, *claims)`.
        acts_on: "group" or "losses".
        inputs: from the bound options to the inputs needed under them.
        variants: settings of the options under which the claims are worth checking, beside the defaults: one for each
            way in which an option changes what is promised (`gradsurgery.testing` runs all of them).
        also: other names that the method goes by: hints where a name is unknown, and no names themselves.

    Raises:
        StrategyError: at import, for an unknown input, scale, claim or variant, or an option with a reserved name.

    Example:
        >>> from gradsurgery import get_strategy, strategy
        >>> @strategy("smallest-docs-example", paper="none", scale="convex")
        ... def smallest(gram):
        ...     '''All weight on the shortest gradient.'''
        ...     return (gram.diagonal() == gram.diagonal().min()).astype(float)
        >>> get_strategy("smallest-docs-example").weights([[4.0, 0.0], [0.0, 1.0]]).tolist()
        [0.0, 1.0]
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        promised = _checked(name, function, scale, claims, acts_on)
        others = (also,) if isinstance(also, str) else tuple(also)
        settings = tuple(dict(v) for v in variants)
        new = Strategy(
            name,
            function,
            paper,
            scale,
            promised,
            acts_on,
            inputs,
            variants=settings,
            also=others,
        )
        for variant in new.variants:
            if unknown := [option for option in variant if option not in new.defaults]:
                raise StrategyError(
                    f"strategy {name!r}: its variants name an "
                    + one_of("option", unknown[0], new.defaults)
                )
        _add(new)
        return function

    return register


def _checked(
    name: str, function: Callable[..., Any], scale: str, claims: Sequence[Any], acts_on: str
) -> tuple[Claim, ...]:
    where = f"strategy {name!r}: "
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise StrategyError(
                f"{where}its parameters are a contract, so *args and **kwargs are not allowed."
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name in RESERVED:
                raise StrategyError(
                    f"{where}the option {parameter.name!r} is named like an argument of Surgery or an input; choose another name."
                )
        elif parameter.name not in INPUTS:
            raise StrategyError(where + unknown(parameter.name))
    if scale not in SCALES:
        raise StrategyError(where + one_of("scale", scale, SCALES))
    if acts_on not in ("group", "losses"):
        raise StrategyError(where + one_of("acts_on", acts_on, ("group", "losses")))
    if acts_on == "losses" and FROM_GRADIENTS & set(inspect.signature(function).parameters):
        raise StrategyError(
            f"{where}it acts on losses, so it cannot take inputs made of gradients."
        )
    try:
        return as_claims(tuple(claims))
    except StrategyError as error:
        raise StrategyError(f"{where}{error}") from error


def _add(new: Strategy) -> None:
    if not new.shipped:
        # So that a name that is taken is an error here, where it is given. The plugin that this
        # function is part of is half imported: the next look-up asks for it.
        _discover(besides=new.function.__module__ or "")
    old = _registry.get(new.name)
    if old is not None and _home(old.function) != _home(new.function):
        raise StrategyError(
            f"strategy {new.name!r} is already registered by {_home(old.function)}: choose another name."
        )
    _registry[new.name] = new


def _home(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', repr(function))}"


def _discover(besides: str = "") -> None:
    """Import all strategies: once, and again from where an interrupt left off.

    Every part may run twice: a module is imported once, and a function may register again.
    """
    global _discovered
    if _discovered:
        return
    with turn() as mine:
        if _discovered or not mine:
            return
        importlib.import_module("gradsurgery.strategies")
        failures, complete = load_plugins(besides)
        _discovered = complete
    for failure in failures if complete else ():  # after all: warnings may be errors
        warn(failure)


def of_function(function: Callable[..., Any]) -> Strategy | None:
    """The strategy that this decorated function was registered as, or None."""
    _discover()
    found = [s for s in list(_registry.values()) if s.function is function]
    if len(found) > 1:
        raise InputError(
            f"this function is registered as {', '.join(repr(s.name) for s in found)}: give one of the names."
        )
    return found[0] if found else None


def _restored(name: str, given: tuple[tuple[str, Any], ...]) -> Strategy:
    return get_strategy(name, **dict(given))


# A bound strategy is its name and its options, to pickle and to copy.
copyreg.pickle(Strategy, lambda bound: (_restored, (bound.name, bound.given)))


def strategy_names() -> list[str]:
    """Every registered strategy, by name, sorted."""
    _discover()
    return sorted(_registry)


def get_strategy(name: str | Strategy, **options: Any) -> Strategy:
    """The strategy of this name with its options bound; they may also be written behind the name, as in "cagrad(c=0.4)".

    Raises:
        UnknownNameError: for an unknown name or option, with the nearest match and the list.
        StrategyError: for an option's value that cannot be used, or options that cannot be read.

    Example:
        >>> from gradsurgery import get_strategy
        >>> get_strategy("pcgrad", reduction="mean").options
        {'reduction': 'mean'}
        >>> get_strategy("cagrad(c=0.4)") == get_strategy("cagrad", c=0.4)
        True
    """
    if isinstance(name, str) and "(" in name:
        name, written = read_call(name)
        options = {**written, **options}
    return (name if isinstance(name, Strategy) else registered(name)).with_options(**options)


def read_call(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of "name(option=value, ...)"; values are Python literals.

    Raises:
        StrategyError: when the text cannot be read so.
    """
    match = re.fullmatch(r"\s*([^()\s]*)\s*(?:\((.*)\))?\s*", text, re.S)
    if match is None:
        raise StrategyError(
            f"strategy {text!r}: write a name, or a name with options as in cagrad(c=1.0)."
        )
    try:
        call = ast.parse(f"f({match[2] or ''})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise SyntaxError("brackets that end before the text does")
        if call.args or any(k.arg is None for k in call.keywords):
            raise StrategyError(
                f"strategy {text!r}: every option is given by name, as in cagrad(c=1.0)."
            )
        options = {}
        for keyword in call.keywords:
            if keyword.arg in options:
                raise StrategyError(
                    f"strategy {text!r}: the option {keyword.arg!r} is given twice."
                )
            try:
                options[str(keyword.arg)] = ast.literal_eval(keyword.value)
            except (ValueError, TypeError) as error:
                value = ast.unparse(keyword.value)
                raise StrategyError(
                    f"strategy {text!r}: {value} is no value; write a number or a quoted string, {keyword.arg}={value!r}."
                ) from error
    except SyntaxError as error:
        raise StrategyError(
            f"strategy {text!r}: {match[2]!r} are not options; write name=value, separated by commas."
        ) from error
    return match[1], options


def registered(name: str) -> Strategy:
    """The strategy of this name as it was declared, no option bound: some of them may be required."""
    _discover()
    if not isinstance(name, str):
        got = f"expected a name or a Strategy; got {type(name).__name__}."
        hint = " The order is Surgery(strategy, model)." if hasattr(name, "parameters") else ""
        raise UnknownNameError(f"strategy: {got}{hint} Known: {', '.join(strategy_names())}.")
    if name not in _registry:
        also = {s.name: s.also for s in list(_registry.values())}
        raise UnknownNameError(one_of("strategy", name, strategy_names(), also))
    return _registry[name]
