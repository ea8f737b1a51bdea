"""A function by someone who does not know this library, as a `Strategy` that can be checked."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract import Strategy, get_strategy
from gradsurgery.contract.claims import Claim, as_claims
from gradsurgery.contract.inputs import INPUTS
from gradsurgery.contract.registry import of_function
from gradsurgery.errors import GradSurgeryError, InputError, one_of
from gradsurgery.testing.plain_call import Kind, PlainCall
from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array

KINDS: tuple[Kind, ...] = ("gram", "rows")
TAKES = {
    "gram": "G = JJᵀ, the Gram matrix [n, n] (numpy, float64), for weights [n]",
    "rows": "J, one gradient per row [n, d] (torch, float64), for a direction [d]",
}
GRAM_NAMES = ("gram", "grams", "gramian", "grammatrix", "gg", "gtg", "ggt", "jjt")
ROWS_NAMES = ("rows", "row", "j", "jac", "jacobian", "grad", "grads", "gradient", "gradients")
TRIAL = np.array([[1.0, 2.0, 0.0, 0.5, 0.0], [0.0, 1.0, 3.0, 0.0, 1.0], [-1.0, 0.0, 1.0, 0.0, 2.0]])


@dataclass(frozen=True)
class Adopted:
    """What will be checked.

    Attributes:
        name: as the user gave it, or the function's own.
        strategy: with its claims; that of a plain function as one that draws no random numbers.
        kind: "gram" or "rows" for a plain function; None for a strategy.
        assumed: what was taken for granted, in a sentence.
        call: the plain function; None for a strategy.
    """

    name: str
    strategy: Strategy
    kind: Kind | None
    assumed: str
    call: PlainCall | None = None

    def random_on(self, samples: Sequence[Sample]) -> "Adopted":
        """The same, seeded before each call where it draws from global generators."""
        call, kind = self.call, self.kind
        if call is None or kind is None or not any(call.draws(_argument(kind, s)) for s in samples):
            return self
        return replace(self, strategy=_plain_strategy(self.name, call, kind, True, self.claims))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What is promised."""
        return self.strategy.claims


def adopt(
    chosen: Any, kind: str | None = None, claims: Sequence[Any] | None = None, name: str = ""
) -> Adopted:
    """A plain function, a strategy or its name, as what will be checked.

    Args:
        chosen: a function of G or J, an object that is called so, a class of such objects, a
            decorated function, a `Strategy`, or the name of one.
        kind: "gram" or "rows"; None finds out for a plain function.
        claims: as in the decorator; None is what the strategy itself claims.
        name: for the report; empty for the function's own.

    Raises:
        InputError: for what cannot be called with one argument, or where the kind stays unclear.
    """
    if kind is not None and kind not in KINDS:
        raise InputError("input: " + one_of("kind of input", kind, KINDS))
    promised = None if claims is None else as_claims(tuple(claims))
    made = ""
    if inspect.isclass(chosen):
        chosen, made = _instance(chosen), f"{chosen.__name__}() "
    strategy = _as_strategy(chosen)
    name = name or (
        getattr(chosen, "__name__", type(chosen).__name__) if strategy is None else repr(strategy)
    )
    if strategy is not None:
        if kind is not None:
            raise InputError(
                f"input: {name} is a strategy, whose parameters say what it takes: leave it out."
            )
        if promised is not None:
            strategy = replace(strategy, claims=promised)
        taken = ", ".join(row for row in INPUTS if row in strategy.inputs)
        return Adopted(name, strategy, None, f"a strategy; it takes {taken}")
    if not callable(chosen):
        raise InputError(f"{name}: expected a function or a strategy; got {chosen!r}.")
    parameter = _parameter(name, chosen)
    call = PlainCall(chosen)
    found, why = (kind, "as you said") if kind else _kind_of(name, call, parameter)
    strategy = _plain_strategy(name, call, found, False, promised or ())
    assumed = f"{made}called with {TAKES[found]}: {why}"
    return Adopted(name, strategy, found, assumed, call)


def other_kind_works(adopted: Adopted) -> bool:
    """Whether the plain function gives a usable answer for the other kind of input."""
    if adopted.kind is None or adopted.call is None:
        return False
    kind: Kind = "rows" if adopted.kind == "gram" else "gram"
    return _trial(adopted.call, kind) is None


def _as_strategy(chosen: Any) -> Strategy | None:
    if isinstance(chosen, str):
        return get_strategy(chosen)
    if isinstance(chosen, Strategy):
        return chosen
    if not callable(chosen):
        return None
    found = of_function(chosen)
    return None if found is None else get_strategy(found.name)


def _instance(kind: type) -> Any:
    try:
        return kind()
    except Exception as error:
        raise InputError(
            f"{kind.__name__} is a class, and {kind.__name__}() raised {type(error).__name__}: "
            f"{error}. Give an object of it, or a function, by a name in the module."
        ) from error


def _parameter(name: str, function: Callable[..., Any]) -> inspect.Parameter | None:
    """The one parameter that it is called with; None where Python cannot tell."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    spread = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
    needed = [p.name for p in positional[1:] if p.default is p.empty]
    needed += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if needed or not (positional or spread):
        takes = ", ".join(p.name for p in positional) or "no argument"
        raise InputError(
            f"{name} takes {takes}{f'; {needed} without a default' if needed else ''}; "
            "the check calls it with one argument, G or J: wrap it in a function of that one."
        )
    return positional[0] if positional else None


def _kind_of(name: str, call: PlainCall, parameter: inspect.Parameter | None) -> tuple[Kind, str]:
    """What a plain function takes, and how that was found out."""
    if parameter is not None:
        plain = parameter.name.casefold().replace("_", "")
        named = f"its parameter is named {parameter.name!r}"
        if parameter.name == "G" or plain in GRAM_NAMES:
            return "gram", named
        if plain in ROWS_NAMES:
            return "rows", named
    tried = {kind: _trial(call, kind) for kind in KINDS}
    works = [kind for kind in KINDS if tried[kind] is None]
    if len(works) == 1:
        return works[0], "found by trying, as its parameter's name does not say"
    outcome = (
        "it gives an answer of the right shape for both"
        if works
        else "; ".join(f"for {kind} {why}" for kind, why in tried.items())
    )
    raise InputError(
        f"{name}: say --input gram ({TAKES['gram']}) or --input rows ({TAKES['rows']}). "
        f"Its parameter's name does not tell, and tried on 3 gradients in 5 dimensions {outcome}."
    )


def _trial(call: PlainCall, kind: Kind) -> str | None:
    """Why a call on three gradients gives no answer that can be used, or None."""
    sample = Sample.of(TRIAL)
    trial = PlainCall(call.function)
    try:
        if kind == "gram":
            trial.weights(_argument(kind, sample), np.random.default_rng(0))
        else:
            trial.direction(_argument(kind, sample), np.random.default_rng(0))
    except GradSurgeryError as error:
        return str(error)
    except Exception as error:
        return f"it raised {type(error).__name__}: {error}"
    return None


def _argument(kind: Kind, sample: Sample) -> Any:
    return sample.gram.copy() if kind == "gram" else torch.from_numpy(sample.jacobian.copy())


def _plain_strategy(
    name: str, call: PlainCall, kind: Kind, random: bool, claims: tuple[Claim, ...]
) -> Strategy:
    """The plain function under the signature that a strategy has."""

    def weights(gram: Array) -> Array:
        return call.weights(gram)

    def random_weights(gram: Array, rng: np.random.Generator) -> Array:
        return call.weights(gram, rng)

    def direction(rows: Tensor) -> Tensor:
        return call.direction(rows)

    def random_direction(rows: Tensor, rng: np.random.Generator) -> Tensor:
        return call.direction(rows, rng)

    forms: dict[tuple[str, bool], Callable[..., Any]] = {
        ("gram", False): weights,
        ("gram", True): random_weights,
        ("rows", False): direction,
        ("rows", True): random_direction,
    }
    return Strategy(name, forms[kind, random], "", "own", claims, "group")
