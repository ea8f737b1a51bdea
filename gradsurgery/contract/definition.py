"""The contract of a strategy: its inputs by name, its options bound, and what it may return."""

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.contract.claims import Claim
from gradsurgery.contract.options import annotations, check_option, names_objective
from gradsurgery.errors import InputError, NonFiniteError, StrategyError, UnknownNameError, one_of
from gradsurgery.gradients.matrix import Objectives, without_autocast
from gradsurgery.solvers import DEFAULT_EPS, Solution, as_gram

Array = NDArray[np.float64]
INPUTS = (
    "gram", "block_grams", "rows", "losses", "observed", "scores", "cross", "splits", "generator",
    "objectives", "group", "state", "rng", "eps",
)  # fmt: skip
FROM_GRADIENTS = frozenset({"gram", "block_grams", "rows", "splits", "eps", "cross"})
ActsOn = Literal["group", "losses"]


@dataclass(frozen=True)
class Outcome:
    """What a strategy returned, checked: weights [n] or [k, n], or a direction [d]; and its solver's gap, if any."""

    weights: Array | None
    direction: Tensor | None = None
    gap: float | None = None
    converged: bool | None = None


@dataclass(frozen=True, repr=False)
class Strategy:
    """A strategy with its options bound. Get one from `get_strategy`; call it on gradients, or ask it for weights.

    Attributes:
        name: the registered name.
        function: the plain function.
        options: every option with the value it has here.
        paper: its source.
        scale: the size of the direction: "sum" or "mean" of the gradients, "convex" (weights sum to one), or "own".
        claims: what it promises (`Claim`), some of it under conditions.
        acts_on: "group" (weights are solved per parameter group) or "losses" (one weighted backward for all).
        variants: other settings of its options under which the conformance checks look at its claims.
        also: other names that the method goes by, for hints.

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
                f"strategy {self.name!r}: `inputs` named {sorted(wanted - named)}, which its signature does not have."
            )
        return wanted

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
        """Whether it looks at gradients at all; one that does not decides from losses, names and chance."""
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
    def shipped(self) -> bool:
        """Whether it comes with the library, rather than from a user or an entry point."""
        return (self.function.__module__ or "").startswith("gradsurgery.strategies.")

    @property
    def description(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.function) or ""

    def with_options(self, **options: Any) -> "Strategy":
        """The same strategy with options changed; an unknown one is an error with the nearest match."""
        for name in options:
            if name not in self.defaults:
                raise UnknownNameError(
                    f"strategy {self.name!r}: " + one_of("option", name, self.defaults)
                )
        bound = {**dict(self.given), **options}
        missing = [n for n in self.required if n not in bound]
        if missing:
            raise StrategyError(
                f"strategy {self.name!r} needs the option {missing[0]!r}: get_strategy({self.name!r}, {missing[0]}=...)."
            )
        for name, value in options.items():
            check_option(f"strategy {self.name!r}", name, value, self.annotations.get(name, Any))
        return replace(self, given=tuple(sorted(bound.items(), key=lambda i: i[0])))

    def __repr__(self) -> str:
        return f"Strategy({', '.join([repr(self.name), *(f'{k}={v!r}' for k, v in self.options.items())])})"

    def solve(self, given: Mapping[str, Any], n: int, blocks: int | None = None) -> Outcome:
        """Call the function with the inputs it takes and check what it returns."""
        arguments: dict[str, Any] = dict.fromkeys(self._absent)  # None
        for name in self.inputs:
            if given.get(name) is not None:
                arguments[name] = given[name]
            elif self._signature[name].default is inspect.Parameter.empty:
                raise StrategyError(
                    f"strategy {self.name!r} needs the input {name!r}, which is not given here: pass {name}=."
                )
        result = self.function(**arguments, **self.options)
        if "rows" in self.inputs:
            if not isinstance(result, Tensor) or result.shape != (given["rows"].shape[1],):
                raise StrategyError(
                    f"strategy {self.name!r} takes `rows`, so it returns a direction [d]; got {_shape(result)}."
                )
            return Outcome(None, result)
        gap, converged = (
            (result.gap, result.converged) if isinstance(result, Solution) else (None, None)
        )
        try:
            weights = np.array(
                result.value if isinstance(result, Solution) else result, dtype=np.float64
            )
            if result is None:
                raise TypeError
        except (TypeError, ValueError) as error:
            raise StrategyError(
                f"strategy {self.name!r} returned {type(result).__name__}; expected weights [{n}]."
            ) from error
        if "cross" in self.inputs:
            shapes: list[tuple[int, ...]] = [(len(given["cross"]), n)]
        else:
            shapes = [(n,)] if blocks is None else [(n,), (blocks, n)]
        if weights.shape not in shapes:
            raise StrategyError(
                f"strategy {self.name!r} returned weights of shape {list(weights.shape)}; expected {list(shapes[0])}."
            )
        if not (math.isfinite(weights.sum()) or np.isfinite(weights).all()):
            raise NonFiniteError(
                f"strategy {self.name!r} returned weights that are not finite: {weights.tolist()}."
            )
        return Outcome(weights, None, gap, converged)

    def weights(self, gram: Any, *, step: int = 0, **inputs: Any) -> Array:
        """The weights [n] for a Gram matrix; any input by keyword (losses, rng, state, objectives, eps, ...).

        Args:
            gram: G [n, n]: numpy, torch or nested lists. float32 entries are taken to be accurate to 1e-6.
            step: together with seed 0 it makes the random numbers, unless `rng` is given.
            **inputs: any input of the strategy by name.

        Raises:
            StrategyError: when the strategy needs gradients, or an input that is missing.
        """
        if "rows" in self.inputs:
            raise StrategyError(
                f"strategy {self.name!r} works on the gradients' coordinates: call it on the gradients."
            )
        single = getattr(gram, "dtype", None) in (torch.float32, np.dtype(np.float32))
        array = as_gram(
            np.array(
                gram.detach().cpu().numpy() if isinstance(gram, Tensor) else gram, dtype=np.float64
            )
        )
        inputs.setdefault("eps", 1e-6 if single else DEFAULT_EPS)
        outcome = self._alone(
            {"gram": array, "block_grams": array[None], **inputs}, len(array), step
        )
        assert outcome.weights is not None
        return outcome.weights

    def __call__(
        self, gradients: Sequence[Tensor] | Tensor, *, step: int = 0, **inputs: Any
    ) -> Tensor:
        """The direction [d] for n gradients, flattened: a list of [d] tensors, or one [n, d] tensor.

        Strategies that take `cross` are given m independent batches of them: a list of m such, or one [m, n, d] tensor.
        `splits=` says how many of the d coordinates belong to each parameter tensor.

        Returns:
            d [d], on the gradients' device and in their dtype (float16, bfloat16, float32 or float64).

        Raises:
            InputError: when the gradients are not n >= 1 vectors of one length, dtype and device.
            NonFiniteError: when a gradient holds a NaN or an infinity; the message names it.
            StrategyError: when an input is missing, for example `state` for a strategy that remembers.
        """
        batches = 1
        if "cross" in self.inputs:
            parts = [_as_rows(part) for part in gradients]
            batches = len(parts)
            if any(len(part) != len(parts[0]) for part in parts):
                raise InputError(
                    f"gradients: every batch has the same objectives; got {[len(part) for part in parts]} gradients."
                )
            rows = _as_rows([row for part in parts for row in part])
        else:
            rows = _as_rows(gradients)
        n = len(rows) // batches
        sizes = list(inputs.get("splits") or [len(rows[0])])
        if sum(sizes) != len(rows[0]):
            raise InputError(
                f"splits: {sizes} do not sum to the {len(rows[0])} coordinates of the gradients."
            )
        objectives = Objectives([torch.split(row, sizes) for row in rows], batches=batches)
        if isinstance(gradients, Tensor) and "rows" in self.inputs:
            objectives.take_rows(gradients.detach())
        names = inputs.get("objectives") or tuple(map(str, range(n)))
        with without_autocast(rows[0].device):
            bad = [names[i % n] for i in objectives.not_finite()]
        if bad:
            raise NonFiniteError(
                f"the gradient of objective {', '.join(map(repr, bad))} has NaN or inf entries, or its square overflows float64."
            )
        with without_autocast(rows[0].device):
            given = gradient_inputs(self, objectives)
            outcome = self._alone({**given, **inputs}, n, step, objectives)
            if outcome.direction is not None:
                return outcome.direction.to(rows[0].dtype)
            assert outcome.weights is not None
            pieces = [piece for piece in objectives.combine(outcome.weights) if piece is not None]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def _alone(
        self, given: dict[str, Any], n: int, step: int, objectives: Objectives | None = None
    ) -> Outcome:
        """One call outside a training loop: default names, a generator, and the state adopted at the end."""
        for name in given:
            if name not in INPUTS:
                raise UnknownNameError(f"strategy {self.name!r}: " + one_of("input", name, INPUTS))
        given.setdefault("objectives", tuple(map(str, range(n))))
        if len(given["objectives"]) != n:
            raise InputError(f"objectives: expected {n} names; got {list(given['objectives'])}.")
        given.setdefault("group", "all")
        if "rng" in self.inputs and "rng" not in given:
            given["rng"] = rng_for(0, step, given["group"])
        if "generator" in self.inputs:
            device = torch.device("cpu") if objectives is None else objectives.like[0].device
            given.setdefault("generator", generator_for(0, step, given["group"], device))
        for name in ("losses", "observed"):
            if given.get(name) is not None:
                values = given[name]
                values = (
                    [values[o] for o in given["objectives"]]
                    if isinstance(values, Mapping)
                    else values
                )
                given[name] = np.array([float(x) for x in values])
                if given[name].shape != (n,):
                    raise InputError(f"{name}: expected {n} numbers; got {len(given[name])}.")
        blocks = 1 if given.get("block_grams") is None else len(given["block_grams"])
        state = given.get("state")
        if state is None:
            if "state" in self.inputs:
                raise StrategyError(
                    f"strategy {self.name!r} remembers between steps: pass state=gradsurgery.State(), the same one each time."
                )
            return self.solve(given, n, blocks)
        like = objectives.like if objectives is not None else ()
        given["state"] = step_state = state.bind(
            given["objectives"], tuple(map(str, range(len(like)))), like
        )
        outcome = self.solve(given, n, blocks)
        state.adopt(step_state)
        return outcome


def gradient_inputs(strategy: Strategy, objectives: Objectives) -> dict[str, Any]:
    """The inputs that come from gradients, and only those that the strategy takes."""
    sources: dict[str, Callable[[], Any]] = {
        "gram": lambda: objectives.gram,
        "block_grams": lambda: objectives.block_grams,
        "rows": lambda: objectives.rows,
        "cross": lambda: objectives.cross,
        "splits": lambda: tuple(objectives.splits),
        "eps": lambda: objectives.eps,
    }
    return {name: source() for name, source in sources.items() if name in strategy.inputs}


def rng_for(seed: int, step: int, group: str) -> np.random.Generator:
    """A generator derived from (seed, step, group), so that nothing is carried from step to step."""
    return np.random.default_rng([seed & (2**64 - 1), step, _digest(group)])


@lru_cache(maxsize=4096)
def _digest(group: str) -> int:
    return int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "little")


def generator_for(seed: int, step: int, group: str, device: torch.device) -> torch.Generator:
    """The same for random numbers that are drawn by torch, on the gradients' device."""
    digest = hashlib.blake2b(f"{seed}/{step}/{group}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)


def _as_rows(gradients: Sequence[Tensor] | Tensor) -> list[Tensor]:
    if isinstance(gradients, Tensor) and gradients.ndim != 2:
        raise InputError(
            f"gradients: expected one [n, d] tensor or a list of [d] tensors; got a tensor of shape {list(gradients.shape)}."
        )
    rows = [g.detach() if isinstance(g, Tensor) else g for g in gradients]
    if not rows:
        raise InputError("gradients: at least one is needed; got none.")
    for i, row in enumerate(rows):
        if not isinstance(row, Tensor):
            raise InputError(f"gradients[{i}]: expected a tensor; got {type(row).__name__}.")
        if (
            row.ndim != 1
            or row.shape != rows[0].shape
            or row.device != rows[0].device
            or row.dtype != rows[0].dtype
        ):
            raise InputError(
                f"gradients: expected [d] vectors alike in length, dtype and device; got {_shape(rows[0])} and {_shape(row)}."
            )
        if not row.is_floating_point() or row.layout != torch.strided:
            raise InputError(
                f"gradients[{i}]: expected dense floating point numbers; got {row.dtype}, {row.layout}."
            )
    return rows


def _shape(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return (
        f"{type(value).__name__}"
        if shape is None
        else f"{dtype} {list(shape)} on {getattr(value, 'device', 'cpu')}"
    )
