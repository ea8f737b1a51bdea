"""A tensor of the examples themselves, such as features: its gradient has a part per example."""

import torch
from torch import Tensor

from gradsurgery.gradients.per_example.layout import Layout
from gradsurgery.gradients.per_example.use import Use, sizes


class Own(Use):
    """W_b is the part of Δ that belongs to example b, and zero elsewhere.

    Args:
        delta: Δ, the gradient of Σ ℓ_b for the tensor.
        layout: where the examples are in it.
        examples: B.
    """

    def __init__(self, delta: Tensor, layout: Layout, examples: int) -> None:
        self.delta, self.layout = delta, layout
        self.examples, self.size = examples, delta.numel()

    @property
    def device(self) -> torch.device:
        return self.delta.device

    def one(self, factors: Tensor) -> Tensor:
        return self.layout.times(self.delta.to(factors.dtype), factors).reshape(-1)

    def many(self, mixture: Tensor) -> Tensor:
        dtype = torch.promote_types(self.delta.dtype, torch.float32)
        return torch.stack([self.one(row) for row in mixture.to(dtype)])

    def along(self, step: Tensor) -> Tensor:
        both = self.delta.to(step.dtype) * step.view_as(self.delta)
        return self.layout.split(both, self.examples).reshape(self.examples, -1).sum(1)

    def kernel(self, wide: bool) -> Tensor:
        parts = self.layout.split(self.delta, self.examples).reshape(self.examples, -1)
        return parts.double().square().sum(1).diag()

    def forms(self, n: int) -> bool:
        return False

    def bounds(self) -> Tensor:
        return sizes(self.layout.split(self.delta, self.examples))
