"""PerExample: the losses of a batch by example, and the objectives that are mixtures of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gradsurgery.engine.losses import LARGEST, Losses
from gradsurgery.engine.per_example.misread import got_losses, got_names, got_weights, odd_weights
from gradsurgery.engine.per_example.origin import Origin
from gradsurgery.engine.per_example.profiles import profiles_of
from gradsurgery.errors import InputError
from gradsurgery.types import Array

Verify = Literal["first", "always", "never"]
BY_OBJECTIVE = "a pass per objective"


class PerExample:
    """Losses by example, and objectives that are weighted sums of them.

    Objective i is Lᵢ = Σ_b Aᵢ_b ℓ_b. Its gradient is had from the one backward pass of Σ_b ℓ_b: at
    each layer the part that belongs to example b is multiplied with Aᵢ_b. So any number of
    objectives (rewards, groups, domains, classes, single examples) costs about one pass, where
    objectives given as a dict take one each.

    Args:
        losses: ℓ [B], one loss per example, or [B, T], one per token. They are not reduced: a mean
            over the batch is a mixture with weights 1/B.
        mixtures: name -> weights of the shape of `losses`: numbers that need no gradient, such as
            advantages, or a mask of a group. A mixture is the weighted sum. One whose weights are
            all zero is present with a gradient of zero. None makes an objective of every example
            ([B, T]: of the sum of each row), for strategies that keep no state.
        names: of the examples, where `mixtures` is None; by default "0" to "B−1".
        verify: whether examples are independent of each other is checked in the first step, and
            whenever the graph is another one ("first"), in every step ("always"), or never. "first"
            also checks a step with what no check has seen: a gradient or a gate that was zero then,
            a larger coefficient, or entries picked by other indices; after 4, 8, 16, 32 steps and
            every 64; and each step where a coefficient that is zero may let in others. A check
            takes up to three backward passes more, and finds what other examples add from about
            3e-5 of a gradient on (float32; 0.05 in half precision). Without it examples are taken
            to be first in every tensor, and where they are not gradients are wrong.

    Raises:
        InputError: for losses, weights or names of the wrong kind or shape; and in the step, where
            an example's loss depends on other examples, as through batch normalization, a
            contrastive loss or a mean within the loss. Give such objectives as a dict of scalars.

    With [B, T] the weights of an example's tokens are c_b·v_bt in all mixtures where one pass is
    to do; otherwise it takes as many as the weights of an example have dimensions.

    Example:
        >>> import torch, gradsurgery as gs
        >>> model = torch.nn.Linear(3, 1)
        >>> x, y = torch.randn(4, 3), torch.randn(4)
        >>> losses = (model(x)[:, 0] - y).square()
        >>> women = torch.tensor([1.0, 0.0, 1.0, 0.0])
        >>> record = gs.backward(
        ...     gs.PerExample(losses, {"women": women / 2, "men": (1 - women) / 2}), model, "mgda"
        ... )
        >>> record["men+women"].objectives
        ('women', 'men')
    """

    def __init__(
        self,
        losses: Tensor,
        mixtures: Mapping[str, Any] | None = None,
        *,
        names: Sequence[str] | None = None,
        verify: Verify = "first",
    ) -> None:
        if not isinstance(losses, Tensor) or losses.ndim not in (1, 2) or not losses.numel():
            raise InputError(
                "PerExample: losses is a tensor [B] with one loss per example, or [B, T] with one "
                f"per token, not reduced; {got_losses(losses)}"
            )
        if not losses.requires_grad or losses.dtype not in LARGEST:
            raise InputError(
                "PerExample: losses is a real tensor that requires grad; got one of "
                f"{losses.dtype} {'that does not' if not losses.requires_grad else ''}".rstrip()
                + "."
            )
        if verify not in get_args(Verify):
            options = ", ".join(map(repr, get_args(Verify)))
            raise InputError(f"PerExample: verify is one of {options}; got {verify!r}.")
        self.losses = losses
        self.verify = verify
        self.single = mixtures is None
        self.eps = 0.0  # the rounding of the weights
        if mixtures is None:
            self.names = _names(names, len(losses))
            self.weights = np.eye(len(losses))
            if losses.ndim == 2:
                self.weights = np.repeat(self.weights[..., None], losses.shape[1], 2)
        else:
            if names is not None:
                raise InputError("PerExample: names are of examples; mixtures have their own.")
            self.names, self.weights = _weights(mixtures, losses)
            self.eps = max(map(_rounding, mixtures.values()))

    def __repr__(self) -> str:
        return f"PerExample({list(self.losses.shape)}, {len(self.names)} objectives)"


def parsed(given: PerExample, weights: Array) -> Losses:
    """The mixtures as scalars with a graph, and what one pass needs to know of them.

    Args:
        given: what the user gave.
        weights: the user's own weight per objective [n].
    """
    losses, mixtures = given.losses, given.weights
    dtype = torch.promote_types(losses.dtype, torch.float32)
    table = torch.as_tensor(mixtures.reshape(len(mixtures), -1), dtype=dtype).to(losses.device)
    values = table @ losses.reshape(-1).to(dtype)
    own = mixtures * weights.reshape(-1, *[1] * losses.ndim)
    examples = profiles_of(losses, own, given.eps, given.verify, given.single)
    origin = Origin(given.names, losses.detach(), mixtures)
    return Losses(
        given.names,
        values.unbind(),
        weights,
        examples=examples,
        origin=origin,
        method=BY_OBJECTIVE if examples else f"{BY_OBJECTIVE}, for the weights within an example",
    )


def _names(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(count)))
    found = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else ()
    wrong = not all(isinstance(name, str) for name in found)
    if len(found) != count or len(set(found)) != count or wrong:
        raise InputError(
            f"PerExample: names are {count} different strings, one per example; "
            f"{got_names(names, found)}"
        )
    return found


def _rounding(weights: Any) -> float:
    """That of the dtype of some weights; 0 for whole numbers and those of Python."""
    if isinstance(weights, Tensor):
        return torch.finfo(weights.dtype).eps if weights.is_floating_point() else 0.0
    dtype = np.asarray(weights).dtype
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0


def _weights(mixtures: Any, losses: Tensor) -> tuple[tuple[str, ...], Array]:
    """The names, and the weights [n, B] or [n, B, T]."""
    if not isinstance(mixtures, Mapping) or not mixtures:
        raise InputError(
            "PerExample: mixtures is a dict of name -> weights of the shape of the losses; got "
            f"{mixtures!r}. A matrix [n, B] is one as dict(zip(names, matrix))."
        )
    rows = []
    for name, given in mixtures.items():
        if not isinstance(name, str):
            raise InputError(f"PerExample: a mixture's name is a string; got {name!r}.")
        if odd := odd_weights(given):
            raise InputError(f"PerExample: the weights of {name!r} are {odd}")
        if isinstance(given, Tensor):
            if given.requires_grad:
                raise InputError(
                    f"PerExample: the weights of {name!r} require grad, and a mixture's weights "
                    "are constants: give them detached."
                )
            given = given.detach().cpu()
            given = given.double() if given.is_floating_point() else given  # NumPy has no bfloat16
        try:
            row = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"PerExample: the weights of {name!r} are no numbers.") from error
        if row.shape != tuple(losses.shape):
            raise InputError(
                f"PerExample: the weights of {name!r} have shape {list(row.shape)}, the losses "
                f"{list(losses.shape)}: {got_weights(row.shape, losses.shape)}"
            )
        if not np.isfinite(row).all():
            raise InputError(f"PerExample: the weights of {name!r} have NaN or infinity.")
        rows.append(row)
    return tuple(mixtures), np.stack(rows)
