"""Parameters so small that every example's gradient is formed: biases, scales, shifts, tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.use import Use, sizes


class Each(Use):
    """The gradients of all examples, W [B, size]."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.examples, self.size = rows.shape

    @property
    def device(self) -> torch.device:
        return self.rows.device

    def one(self, factors: Tensor) -> Tensor:
        return factors @ self.rows.to(factors.dtype)

    def many(self, mixture: Tensor) -> Tensor:
        return mixture.to(self.rows.dtype) @ self.rows

    def along(self, step: Tensor) -> Tensor:
        return self.rows.to(step.dtype) @ step.reshape(-1)

    def bounds(self) -> Tensor:
        return sizes(self.rows)


def summed(parts: Tensor, shape: Sequence[int]) -> Tensor:
    """[B, size] from gradients [B, ...] at an output over which a parameter was broadcast.

    Args:
        parts: the gradients at the output, times what the parameter was multiplied with.
        shape: the parameter's, aligned to the right as broadcasting does.
    """
    parts = parts.to(torch.promote_types(parts.dtype, torch.float32))
    own = (*[1] * (parts.ndim - 1 - len(shape)), *shape)
    over = [i + 1 for i, size in enumerate(own) if size == 1 and parts.shape[i + 1] != 1]
    found = parts.sum(over) if over else parts
    return found.reshape(len(parts), -1)
