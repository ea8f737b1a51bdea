"""By what the optimizers of torch.optim multiply a gradient, coordinate by coordinate.

Each form is what torch's own step does, read from the state that the step leaves. Where a step
averages gradients as m ← βm + (1 − β)g, the factor 1 − β is left out: it is common to all.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradsurgery.engine.parallel.dtensor import local_of


@dataclass(frozen=True)
class Numbers:
    """The scalars of one parameter's step, on the host: t, β₁, β₂, and NAdam's product of μ."""

    step: float
    beta1: float
    beta2: float
    product: float


@dataclass(frozen=True)
class Diagonal:
    """One number s per coordinate, in a form that can also be had of some coordinates alone.

    Attributes:
        moments: what it is made of, the first of them a second moment or its like: that is above
            `floor` where a gradient has been.
        inverse: moments -> 1/s, in memory of its own.
        floor: what the first of them is where no gradient has been.
    """

    moments: tuple[Tensor, ...]
    inverse: Callable[..., Tensor]
    floor: float = 0.0


Group = Mapping[str, Any]
State = Mapping[str, Any]
Rule = Callable[[Group, State, Numbers], "Diagonal | float"]


def adam(group: Group, state: State, t: Numbers) -> Diagonal:
    """1 / ((1 − β₁ᵗ)(√(v / (1 − β₂ᵗ)) + ε)); under `amsgrad` v is the largest so far."""
    second = _real(state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"])
    factor = 1 / (1 - t.beta1**t.step)
    return _by_root(second, 1 / math.sqrt(1 - t.beta2**t.step), group["eps"], factor)


def nadam(group: Group, state: State, t: Numbers) -> Diagonal:
    """c / (√(v / (1 − β₂ᵗ)) + ε), where c has both places of the gradient in the step.

    c = (1 − μₜ) / ((1 − β₁)(1 − Πμ)) + μₜ₊₁ / (1 − μₜ₊₁ Πμ): the gradient itself and that in m.
    """
    decay = group["momentum_decay"]
    now, after = (t.beta1 * (1 - 0.5 * 0.96 ** (k * decay)) for k in (t.step, t.step + 1))
    factor = (1 - now) / ((1 - t.beta1) * (1 - t.product)) + after / (1 - t.product * after)
    second = _real(state["exp_avg_sq"])
    return _by_root(second, 1 / math.sqrt(1 - t.beta2**t.step), group["eps"], factor)


def radam(group: Group, state: State, t: Numbers) -> Diagonal | float:
    """r √(1 − β₂ᵗ) / ((1 − β₁ᵗ)(√v + ε)); while ρₜ <= 5 one number, 1 / (1 − β₁ᵗ)."""
    left: float = 1 - t.beta2**t.step
    most = 2 / (1 - t.beta2) - 1
    length = most - 2 * t.step * (1 - left) / left
    factor: float = 1 / (1 - t.beta1**t.step)
    if length <= 5:
        return factor
    above = (length - 4) * (length - 2) * most
    rectified = math.sqrt(above / ((most - 4) * (most - 2) * length))
    return _by_root(
        _real(state["exp_avg_sq"]), 1.0, group["eps"], factor * rectified * math.sqrt(left)
    )


def adamax(group: Group, state: State, t: Numbers) -> Diagonal:
    """1 / ((1 − β₁ᵗ) u), where u, the infinity norm, is ε where no gradient has been."""
    left = 1 - t.beta1**t.step
    floor = 1.01 * group["eps"]  # in a state of 16 bits ε is rounded
    return Diagonal((_real(state["exp_inf"]),), lambda norm: norm * left, floor)


def rmsprop(group: Group, state: State, t: Numbers) -> Diagonal:
    """1 / (√v + ε); `centered`, v less the square of the mean."""
    second = _real(state["square_avg"])
    if group["centered"]:
        mean = _real(state["grad_avg"])
        second = torch.addcmul(second, mean, mean, value=-1).clamp_(min=0)
    return _by_root(second, 1.0, group["eps"])


def adagrad(group: Group, state: State, t: Numbers) -> Diagonal:
    """1 / ((1 + (t − 1) lr_decay)(√(Σ g²) + ε))."""
    factor = 1 / (1 + (t.step - 1) * group["lr_decay"])
    return _by_root(_real(state["sum"]), 1.0, group["eps"], factor)


def adadelta(group: Group, state: State, t: Numbers) -> Diagonal:
    """√(a + ε) / √(v + ε).

    The step multiplies by the a from before it, which it then overwrites. The one found here lies
    between √ρ and √2 times that.
    """
    moments = _real(state["square_avg"]), _real(state["acc_delta"])
    eps = group["eps"]
    return Diagonal(moments, lambda v, a: (v + eps).div_(a + eps).sqrt_())


def sparse_adam(group: Group, state: State, t: Numbers) -> Diagonal:
    """√(1 − β₂ᵗ) / ((1 − β₁ᵗ)(√v + ε)), in rows with a gradient; the others it does not move."""
    factor = math.sqrt(1 - t.beta2**t.step) / (1 - t.beta1**t.step)
    return _by_root(_real(state["exp_avg_sq"]), 1.0, group["eps"], factor)


RULES: dict[type[Optimizer], Rule] = {
    torch.optim.AdamW: adam,
    torch.optim.Adam: adam,
    torch.optim.NAdam: nadam,
    torch.optim.RAdam: radam,
    torch.optim.Adamax: adamax,
    torch.optim.RMSprop: rmsprop,
    torch.optim.Adagrad: adagrad,
    torch.optim.Adadelta: adadelta,
    torch.optim.SparseAdam: sparse_adam,
}


def rule_of(optimizer: Optimizer) -> tuple[str, Rule] | None:
    """The name and the form of an optimizer's preconditioner; None where the identity stands in.

    It is known where the step that runs is torch's own, and so is what makes the state. A subclass
    with a step of its own may write anything under the same keys.
    """
    for kind, rule in RULES.items():
        if _steps_as(optimizer, kind):
            return kind.__name__.lower(), rule
    return None


def plain_sgd(optimizer: Optimizer) -> bool:
    """Whether the step is that of torch's SGD, which multiplies all coordinates by one number."""
    return _steps_as(optimizer, torch.optim.SGD)


def _steps_as(optimizer: Optimizer, kind: type[Optimizer]) -> bool:
    return isinstance(optimizer, kind) and all(
        plain_function(getattr(optimizer, name)) is plain_function(getattr(kind, name))
        for name in ("step", "_init_group")
        if hasattr(kind, name)
    )


def plain_function(method: Any) -> Any:
    """The function within what torch, its schedulers and its compiler wrap it in."""
    while True:
        inner = inspect.unwrap(getattr(method, "__func__", method))
        if inner is method:
            return inner
        method = inner


def _real(moment: Tensor) -> Tensor:
    """This rank's part in real numbers, float32 at least; of complex ones the pairs."""
    own = local_of(moment).detach()
    if own.is_complex():
        own = torch.view_as_real(own)
    return own if own.dtype == torch.float64 else own.float()


def _by_root(second: Tensor, root: float, eps: float, factor: float = 1.0) -> Diagonal:
    """factor / (root·√second + eps)."""
    return Diagonal((second,), lambda v: v.sqrt().mul_(root / factor).add_(eps / factor))
