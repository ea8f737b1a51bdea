"""A parameter that is used only through what is computed from it, once for all examples."""

from typing import Any

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.local import flat
from gradsurgery.gradients.per_example.use import Use


class Through(Use):
    """The use of a tensor that follows from the parameter alone, and the way back to it.

    A mixture's gradient for that tensor is brought to the parameter by the backward of what lies
    between, once per mixture.

    Args:
        use: of the tensor.
        edge: where the tensor is in the graph, which is kept.
        like: of the tensor's shape and dtype.
        parameter: what gets the gradient.
    """

    graph = True

    def __init__(self, use: Use, edge: Any, like: Tensor, parameter: Tensor) -> None:
        self.use, self.edge, self.like, self.parameter = use, edge, like, parameter
        self.examples, self.size = use.examples, parameter.numel()

    @property
    def device(self) -> torch.device:
        return self.parameter.device

    def one(self, factors: Tensor) -> Tensor:
        return self._back(self.use.one(factors), factors.dtype)

    def many(self, mixture: Tensor) -> Tensor:
        dtype = torch.promote_types(self.parameter.dtype, torch.float32)
        return torch.stack([self._back(row, dtype) for row in self.use.many(mixture)])

    def bounds(self) -> None:
        return None

    def _back(self, gradient: Tensor, dtype: torch.dtype) -> Tensor:
        root = gradient.to(self.like.dtype).view(self.like.shape)
        (found,) = torch.autograd.grad(
            [self.edge], [self.parameter], [root], retain_graph=True, allow_unused=True
        )
        if found is None:
            return torch.zeros(self.size, dtype=dtype, device=self.device)
        return flat(found.detach()).to(dtype)
