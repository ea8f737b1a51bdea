"""Strategies by name: the decorator that registers a function, and the lookup."""

import contextlib
import copyreg
import importlib
import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from gradsurgery.contract.about import About
from gradsurgery.contract.claims import Claim, as_claims
from gradsurgery.contract.definition import ActsOn, Strategy
from gradsurgery.contract.inputs import FROM_GRADIENTS, INPUTS, unknown
from gradsurgery.contract.near import unknown_strategy
from gradsurgery.contract.plugins import load_plugins, turn
from gradsurgery.contract.written import read_call
from gradsurgery.errors import InputError, StrategyError, UnknownNameError, one_of, warn

SCALES = ("sum", "mean", "convex", "own")
# No option may be named like an argument of a call of the strategy, or like one that is reserved.
_reserved = {"gradients", "step"}
_registry: dict[str, Strategy] = {}
_discovered = False  # set when all of them are there, and not before
_temporary = threading.RLock()


def reserve(names: Iterable[str]) -> None:
    """Names that no option of a strategy may have: those of arguments that go elsewhere."""
    _reserved.update(names)


def strategy(
    name: str,
    *,
    paper: str = "",
    scale: str = "own",
    claims: Sequence[Any] = (),
    acts_on: ActsOn = "group",
    inputs: Callable[[dict[str, Any]], set[str]] | None = None,
    variants: Sequence[Mapping[str, Any]] = (),
    also: Sequence[str] = (),
    about: About | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as a strategy; its signature is the contract.

    Positional parameters are inputs, injected by name; one with the default None is optional.
    Keyword-only parameters are its options. It returns weights [n] (or [k, n], one row per
    parameter tensor), or a `Solution` whose value is the weights and whose gap the Record then
    shows. One that takes `rows` returns the direction [d].

    Args:
        name: lower case, words joined by hyphens.
        paper: the source, as one would cite it; empty for what is not published.
        scale: the size of the direction: that of the "sum" or the "mean" of the gradients,
            "convex" (weights sum to one), or the method's "own".
        claims: names of claims, `homogeneous(k)`, and `when(condition, predicate, *claims)`.
        acts_on: "group" (weights per parameter group) or "losses" (one weighted backward pass).
        inputs: from the bound options to the inputs needed under them.
        variants: settings of the options under which the claims are checked too, beside the
            defaults: one for each way in which an option changes what is promised.
        also: other names that the method goes by: hints where a name is unknown, and no names
            themselves.
        about: its family, when to use it, its papers, methods that are near: what its page says.

    Raises:
        StrategyError: at import, for an unknown input, scale, claim or variant, or an option with
            a reserved name.

    Example:
        >>> from gradsurgery import get_strategy, strategy
        >>> @strategy("smallest-docs-example")
        ... def smallest(gram):
        ...     return (gram.diagonal() == gram.diagonal().min()).astype(float)
        >>> get_strategy("smallest-docs-example").weights([[4.0, 0.0], [0.0, 1.0]]).tolist()
        [0.0, 1.0]
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        promised = _checked(name, function, scale, claims, acts_on)
        others = (also,) if isinstance(also, str) else tuple(also)
        settings = tuple(dict(v) for v in variants)
        facts = about or About()
        new = Strategy(
            name, function, paper, scale, promised, acts_on, inputs, (), settings, others, facts
        )
        for option in [option for variant in settings for option in variant]:
            if option not in new.defaults:
                raise StrategyError(
                    f"strategy {name!r}: its variants name an "
                    + one_of("option", option, new.defaults)
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
            if parameter.name in _reserved or parameter.name in INPUTS:
                raise StrategyError(
                    f"{where}the option {parameter.name!r} is named like an argument of Surgery "
                    "or an input; choose another name."
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
        # function is part of is half imported: the next call here asks for it.
        _discover(besides=new.function.__module__ or "")
    old = _registry.get(new.name)
    if old is not None and _home(old.function) != _home(new.function):
        raise StrategyError(
            f"strategy {new.name!r} is already registered by {_home(old.function)}: "
            "choose another name."
        )
    _registry[new.name] = new


@contextlib.contextmanager
def temporary_strategies() -> Iterator[None]:
    """Strategies registered within this context are gone from the registry at its end.

    The registry is then as it was before, also after an exception. A strategy object that was made
    within can still be called. Contexts nest; that of another thread waits for the end of this one.

    Example:
        >>> import gradsurgery as gs
        >>> from gradsurgery.testing import temporary_strategies
        >>> with temporary_strategies():
        ...     @gs.strategy("halves")
        ...     def halves(gram):
        ...         return [0.5] * len(gram)
        ...     chosen = gs.get_strategy("halves")
        >>> "halves" in gs.strategy_names()
        False
        >>> chosen.weights([[1.0, 0.0], [0.0, 1.0]]).tolist()
        [0.5, 0.5]
    """
    with _temporary:
        _discover()  # before the copy: strategies that are found later would be taken for new ones
        before = dict(_registry)
        try:
            yield
        finally:
            for name in [name for name in list(_registry) if name not in before]:
                del _registry[name]
            _registry.update(before)


def _home(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", "?")
    return f"{module}.{getattr(function, '__qualname__', repr(function))}"


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
        names = ", ".join(repr(s.name) for s in found)
        raise InputError(f"this function is registered as {names}: give one of the names.")
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
    """The strategy of this name with its options bound.

    Options may also be written with the name, as in "cagrad(c=0.4)".

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


def registered(name: str) -> Strategy:
    """The strategy of this name as it was declared: no option bound, not even required ones."""
    _discover()
    if not isinstance(name, str):
        got = f"expected a name or a Strategy; got {type(name).__name__}."
        hint = " The order is Surgery(strategy, model)." if hasattr(name, "parameters") else ""
        raise UnknownNameError(f"strategy: {got}{hint} Known: {', '.join(strategy_names())}.")
    if name not in _registry:
        every = list(_registry.values())
        also = {s.name: (*s.also, *s.about.related) for s in every}
        said = {other: text for s in every for other, text in s.about.related.items()}
        raise UnknownNameError(unknown_strategy(name, strategy_names(), also, said))
    return _registry[name]
