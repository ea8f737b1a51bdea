"""The contract of a strategy: its inputs by name, its options bound, and what it may return."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from gradsurgery.contract.about import About
from gradsurgery.contract.claims import Claim
from gradsurgery.contract.direct import direction_of, weights_of
from gradsurgery.contract.inputs import FROM_GRADIENTS, TABLE, Context
from gradsurgery.contract.options import annotations, check_option, names_objective
from gradsurgery.contract.outcome import Outcome, checked
from gradsurgery.errors import StrategyError, UnknownNameError, one_of
from gradsurgery.types import Array

ActsOn = Literal["group", "losses"]
UNPUBLISHED = "unpublished"


@dataclass(frozen=True, repr=False)
class Strategy:
    """A strategy with its options bound.

    `get_strategy` gives one. Call it on gradients for a direction, or ask it for the weights of a
    Gram matrix.

    Attributes:
        name: the registered name.
        function: the plain function.
        options: every option with the value it has here.
        paper: its source; empty where there is none.
        scale: the size of the direction: that of the "sum" or the "mean" of the gradients,
            "convex" (weights sum to one), or the method's "own".
        claims: what it promises (`Claim`), some of it under conditions.
        acts_on: "group" (weights per parameter group) or "losses" (one weighted backward pass).
        variants: other settings of its options under which its claims are checked.
        also: other names that the method goes by, for hints.
        about: its family, when to use it, its papers (`About`).

    Example:
        >>> import torch
        >>> from gradsurgery import get_strategy
        >>> get_strategy("mgda")([torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])])
        tensor([0.5000, 0.5000])
    """

    name: str
    function: Callable[..., Any]
    paper: str
    scale: str
    claims: tuple[Claim, ...]
    acts_on: ActsOn
    narrow: Callable[[dict[str, Any]], set[str]] | None = field(default=None, repr=False)
    given: tuple[tuple[str, Any], ...] = ()
    variants: tuple[Mapping[str, Any], ...] = ()
    also: tuple[str, ...] = ()
    about: About = field(default=About(), repr=False)

    @cached_property
    def _signature(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Every option with its default; `inspect.Parameter.empty` where there is none."""
        return {n: p.default for n, p in self._signature.items() if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def annotations(self) -> Mapping[str, Any]:
        """The annotation of every input and option."""
        return annotations(self.function)

    @cached_property
    def options(self) -> dict[str, Any]:
        """Every option with the value it has here."""
        return {**self.defaults, **dict(self.given)}

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The options that have no default."""
        return tuple(
            n for n, default in self.defaults.items() if default is inspect.Parameter.empty
        )

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The inputs it takes under these options."""
        named = frozenset(n for n, p in self._signature.items() if p.kind is not p.KEYWORD_ONLY)
        if self.narrow is None:
            return named
        wanted = frozenset(self.narrow(dict(self.options)))
        if not wanted <= named:
            raise StrategyError(
                f"strategy {self.name!r}: `inputs` named {sorted(wanted - named)}, "
                "which its signature does not have."
            )
        return wanted

    @cached_property
    def _sources(self) -> tuple[tuple[str, Callable[[Context], Any]], ...]:
        """Its inputs with what makes each, chosen once."""
        return tuple((row.name, row.provide) for row in TABLE if row.name in self.inputs)

    @cached_property
    def _absent(self) -> list[str]:
        """Inputs narrowed away that have no default."""
        empty = inspect.Parameter.empty
        return [
            n
            for n, p in self._signature.items()
            if n not in self.inputs and p.kind is not p.KEYWORD_ONLY and p.default is empty
        ]

    @cached_property
    def needs_gradients(self) -> bool:
        """Whether it needs gradients; else it decides from losses, names and random numbers."""
        return bool(self.inputs & FROM_GRADIENTS)

    @cached_property
    def named_objectives(self) -> dict[str, str]:
        """The options that name an objective, with the name."""
        return {
            name: value
            for name, value in self.options.items()
            if isinstance(value, str) and names_objective(self.annotations.get(name))
        }

    @property
    def summary(self) -> str:
        """What it does, in one line: the first of its docstring, without the full stop."""
        return self.description.partition("\n")[0].rstrip(".")

    @property
    def source(self) -> str:
        """Its source in words, also where there is none."""
        return self.paper or UNPUBLISHED

    @property
    def shipped(self) -> bool:
        """Whether it comes with the library, rather than from a user or an entry point."""
        return (self.function.__module__ or "").startswith("gradsurgery.strategies.")

    @property
    def description(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.function) or ""

    def with_options(self, **options: Any) -> "Strategy":
        """The same strategy with options changed.

        Raises:
            UnknownNameError: for an unknown option, with the nearest match.
            StrategyError: for a value that cannot be used, or a required option without one.
        """
        for name in options:
            if name not in self.defaults:
                raise UnknownNameError(
                    f"strategy {self.name!r}: " + one_of("option", name, self.defaults)
                )
        bound = {**dict(self.given), **options}
        missing = [n for n in self.required if n not in bound]
        if missing:
            raise StrategyError(
                f"strategy {self.name!r} needs the option {missing[0]!r}: "
                f"get_strategy({self.name!r}, {missing[0]}=...)."
            )
        for name, value in options.items():
            check_option(f"strategy {self.name!r}", name, value, self.annotations.get(name, Any))
        return replace(self, given=tuple(sorted(bound.items(), key=lambda i: i[0])))

    def __repr__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"Strategy({', '.join([repr(self.name), *options])})"

    def solve(self, given: Mapping[str, Any], n: int, blocks: int | None = None) -> Outcome:
        """Call the function with its part of the given inputs, and check what it returns.

        Args:
            given: inputs by name; one that is None counts as not given.
            n: the number of objectives.
            blocks: the number of parameter tensors, where one row of weights for each is allowed.
        """
        arguments: dict[str, Any] = dict.fromkeys(self._absent)  # None
        for name in self.inputs:
            if given.get(name) is not None:
                arguments[name] = given[name]
            elif self._signature[name].default is inspect.Parameter.empty:
                raise StrategyError(
                    f"strategy {self.name!r} needs the input {name!r}, which is not given here: "
                    f"pass {name}=."
                )
        result = self.function(**arguments, **self.options)
        return checked(self.name, self.inputs, given, result, n, blocks)

    def decide(self, context: Context) -> Outcome:
        """Ask it in a step of training, for one group.

        What it remembers changes in `context.state`, once what it returned is checked.
        """
        given = {name: provide(context) for name, provide in self._sources}
        outcome = self.solve(given, len(context.objectives), len(context.parameters))
        if context.state is not None and "state" in given:
            context.state.adopt(given["state"])
        return outcome

    def weights(self, gram: Any, *, step: int = 0, **inputs: Any) -> Array:
        """The weights [n] for a Gram matrix; any input by keyword (losses, rng, state, eps, ...).

        Args:
            gram: G [n, n]: numpy, torch or nested lists. Entries in float32 are taken to be
                accurate to 1e-6.
            step: together with seed 0 it makes the random numbers, unless `rng` is given.
            **inputs: any input of the strategy by name.

        Raises:
            StrategyError: when the strategy needs gradients, or an input that is missing.
        """
        return weights_of(self, gram, step, inputs)

    def __call__(
        self, gradients: Sequence[Tensor] | Tensor, *, step: int = 0, **inputs: Any
    ) -> Tensor:
        """The direction [d] for n gradients, flattened: a list of [d], or one [n, d] tensor.

        Strategies that take `cross` are given m independent batches of them: a list of m such, or
        one [m, n, d] tensor. `splits=` says how many of the d coordinates belong to each parameter
        tensor.

        Returns:
            d [d], on the gradients' device and in their dtype (float16, bfloat16, float32 or
            float64).

        Raises:
            InputError: when the gradients are not n >= 1 vectors of one length, dtype and device.
            NonFiniteError: when a gradient holds a NaN or an infinity; the message names it.
            StrategyError: when an input is missing: `state` for a strategy that remembers.
        """
        return direction_of(self, gradients, step, inputs)
