"""The metric of an optimizer's step: how far a coordinate moves for a unit of gradient."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.parallel.dtensor import local_of
from gradsurgery.engine.preconditioners import Diagonal, Numbers, plain_sgd, rule_of
from gradsurgery.engine.refusals import unwrapped
from gradsurgery.errors import InputError
from gradsurgery.gradients.transfer import Total, to_host

SAMPLE = 65_536  # coordinates that a median is of
ROWS = 2 * 3 * 5 * 7 * 11 * 13  # a stride without factors of a row's size goes through all columns


@dataclass(frozen=True)
class Metric:
    """The diagonal P of one optimizer's step, by parameter: u' − u = −P Jᵀλ.

    P is the learning rate times what the step multiplies a gradient by.

    Attributes:
        scales: id(parameter) -> P: a tensor of the parameter's shape, float32 (float64 for
            parameters in float64), or one number for all its coordinates. Of a complex parameter
            it has the shape of `torch.view_as_real`, of a DTensor that of this rank's part. 0 for
            what the optimizer does not hold or holds with a learning rate of 0: it never moves.
        names: id(parameter) -> "adam", "rmsprop", ...; "identity" where P is the learning rate,
            "identity for Lion" where that is assumed of an optimizer that is not known. Of those
            that it holds.
    """

    scales: Mapping[int, Tensor | float]
    names: dict[int, str]


class Scales(Mapping[int, Tensor | float]):
    """P by parameter, each made when it is read: it is never held as a whole.

    Args:
        made: id(parameter) -> its P, or what makes it.
    """

    def __init__(self, made: Mapping[int, Callable[[], Tensor | float] | float]) -> None:
        self._made = made

    def __getitem__(self, key: int) -> Tensor | float:
        found = self._made[key]
        return found() if callable(found) else found

    def __iter__(self) -> Iterator[int]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@torch.no_grad()
def metric_of(
    optimizer: Any,
    parameters: Iterable[Tensor],
    *,
    bound: float = 10.0,
    total: Total | None = None,
) -> Metric:
    """The metric of the step that an optimizer has just made, for the parameters of one group.

    P = lr · s, where s = 1 / ((1 − β₁ᵗ)(√v̂ + ε)) for Adam, and its like for others of torch.optim
    (`preconditioners.py`); a factor 1 − β that all coordinates share is left out. For SGD s = 1,
    and so it is assumed for every other optimizer. Only ratios of P within a group matter to a
    correction.

    s is bounded by `bound` times its median, over coordinates that have had a gradient (v̂ > 0).
    A coordinate with v̂ = 0, where s = 1/ε, has that bound. The learning rate is left out of bound
    and median: it is the user's word on how far a parameter moves. A parameter without state has
    never moved and has the median; where none has a state, s = 1.

    The median is that of every k-th coordinate, of at most 65,536: the same at every call.
    Nothing waits for a device, unless it keeps step counts or learning rates.

    Args:
        optimizer: one that `check_optimizer` lets pass, after its step.
        parameters: those of the group.
        bound: the largest s, in medians; at least 1.
        total: sums numbers over the processes where each has a part of the parameters, so that
            all bound alike: by the geometric mean of their medians.

    Raises:
        InputError: for a bound that is no finite number of at least 1.
    """
    check_bound(bound)
    own = unwrapped(optimizer)
    held, states, known = held_by(own), own.state, rule_of(own)
    given = {id(p): p for p in parameters}
    inside = [p for key, p in given.items() if key in held]
    name, rule = known or (_assumed(own), None)
    kept = [states.get(p, {}) if rule else {} for p in inside]
    rates, numbers = _on_host([held[id(p)] for p in inside], kept)
    found: dict[int, Diagonal | float] = {}
    for parameter, rate, t in zip(inside, rates, numbers, strict=True):
        if rule is not None and rate and t.step >= 1:  # a step that found infinities counts none
            found[id(parameter)] = rule(held[id(parameter)], states[parameter], t)
    diagonals = [d for d in found.values() if isinstance(d, Diagonal)]
    middle = _median(diagonals) if diagonals else None
    if total is not None and rule is not None:
        middle = _agreed(middle, total)
    scales: dict[int, Callable[[], Tensor | float] | float] = dict.fromkeys(given, 0.0)
    names: dict[int, str] = {}
    least = None if middle is None else (bound * middle).reciprocal_()  # of 1/s
    for parameter, rate in zip(inside, rates, strict=True):
        key = id(parameter)
        s = found.get(key)
        names[key] = "identity" if isinstance(s, float) else name
        if middle is None or least is None or isinstance(s, float) or not rate:
            scales[key] = rate * (s if isinstance(s, float) else 1.0)
        elif s is None:
            scales[key] = partial(_like, parameter, rate * middle)
        else:
            scales[key] = partial(_bounded, s, least, rate)
    return Metric(Scales(scales), names)


def scale_here(
    scale: Tensor | float, parameter: Tensor, part: Callable[[Tensor], Tensor]
) -> Tensor | float:
    """P for this process's part of a parameter, in the form of its gradients in real numbers.

    Args:
        scale: P of the parameter.
        parameter: the parameter, whole.
        part: takes this process's part of a tensor like it.
    """
    if not isinstance(scale, Tensor):
        return scale
    own = part(torch.view_as_complex(scale.contiguous()) if parameter.is_complex() else scale)
    return torch.view_as_real(own) if own.is_complex() else own


def held_by(optimizer: Any) -> dict[int, dict[str, Any]]:
    """id(parameter) -> the param group of the optimizer that holds it."""
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


def _assumed(optimizer: Any) -> str:
    """What the identity is called where no form is known: that of SGD is the identity."""
    return "identity" if plain_sgd(optimizer) else f"identity for {type(optimizer).__name__}"


def is_identity(name: str) -> bool:
    """Whether a metric of this name is the learning rate alone."""
    return name.startswith("identity")


def check_bound(bound: Any) -> None:
    """Refuse a bound of P that is no finite number of at least 1.

    Raises:
        InputError: for one.
    """
    try:
        good = isinstance(bound, Real) and not isinstance(bound, bool)
        good = good and 1 <= float(bound) < math.inf
    except OverflowError:  # an integer beyond all floats
        good = False
    if not good:
        shown = repr(bound) if len(repr(bound)) < 40 else f"a number of {len(repr(bound))} digits"
        raise InputError(f"bound: expected a finite number of at least 1; got {shown}.")


def _on_host(
    groups: Sequence[dict[str, Any]], states: Sequence[dict[str, Any]]
) -> tuple[list[float], list[Numbers]]:
    """The learning rate and the scalars of each parameter; what lies on a device in one copy."""
    wanted: list[Any] = []
    for group, state in zip(groups, states, strict=True):
        rate = group.get("lr")  # None where a step is as long as the optimizer finds right
        betas = group.get("betas", (0.0, 0.0)) if state else (0.0, 0.0)
        wanted += (
            1.0 if rate is None else rate,
            state.get("step", 0.0),
            *betas,
            state.get("mu_product", 0.0),
        )
    tensors = [local_of(value) for value in wanted if isinstance(value, Tensor)]
    arrived = iter(to_host([], tensors) if tensors else ())
    plain = [next(arrived) if isinstance(value, Tensor) else float(value) for value in wanted]
    return plain[::5], [Numbers(*plain[i + 1 : i + 5]) for i in range(0, len(plain), 5)]


def _median(diagonals: Sequence[Diagonal]) -> Tensor:
    """The median of s where a gradient has been; 1 where none has been anywhere."""
    count = sum(d.moments[0].numel() for d in diagonals)
    stride = -(-count // SAMPLE)
    while math.gcd(stride, ROWS) > 1:
        stride += 1
    parts: list[Tensor] = []
    begin = 0  # strides go on over the ends of tensors
    for d in diagonals:
        moments = [tensor.reshape(-1)[begin::stride] for tensor in d.moments]
        none = (moments[0] <= d.floor) | moments[0].isinf()  # of a moment that overflowed s is 0
        scale = d.inverse(*moments).reciprocal_().masked_fill_(none, torch.nan)
        parts.append(scale.to(diagonals[0].moments[0].device))
        begin = (begin - d.moments[0].numel()) % stride
    middle = torch.cat(parts).nanmedian()
    return torch.where(middle.isnan(), torch.ones_like(middle), middle)


def _agreed(middle: Tensor | None, total: Total) -> Tensor | None:
    """The geometric mean of the processes' medians; None where none has one."""
    here = torch.ones((), dtype=torch.float64) if middle is None else middle.double()
    counted = torch.full_like(here, middle is not None)
    log, count = to_host([], [here.log() * counted, counted], total=total)
    return torch.tensor(math.exp(log / count), dtype=torch.float64) if count else None


@torch.no_grad()
def _bounded(s: Diagonal, least: Tensor, rate: float) -> Tensor:
    """P = rate · s, where 1/s is at least `least`."""
    inverse = s.inverse(*s.moments)
    torch.maximum(inverse, least.to(inverse), out=inverse)
    return inverse.reciprocal_().mul_(rate)


def _like(parameter: Tensor, number: Tensor) -> Tensor:
    own = local_of(parameter).detach()
    if own.is_complex():
        own = torch.view_as_real(own)
    dtype = own.dtype if own.dtype == torch.float64 else torch.float32
    return number.to(own.device, dtype).expand(own.shape)
