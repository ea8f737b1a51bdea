"""The steps that are timed: ours, TorchJD's, plain training, n passes and the floor.

A step goes from the losses of a model to `.grad`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import gradsurgery as gs

Step = Callable[[nn.Module, list[Tensor]], object]


def plain(model: nn.Module, losses: list[Tensor]) -> None:
    """The backward pass of the plain sum."""
    torch.stack(losses).sum().backward()


def passes(model: nn.Module, losses: list[Tensor]) -> list[tuple[Tensor | None, ...]]:
    """The gradients of each loss, in a pass of its own."""
    parameters = list(model.parameters())
    last = len(losses) - 1
    return [
        torch.autograd.grad(loss, parameters, retain_graph=i < last, allow_unused=True)
        for i, loss in enumerate(losses)
    ]


def floor(model: nn.Module, losses: list[Tensor]) -> None:
    """n passes, one Gram matrix of the tensors that several losses reach, one combination."""
    rows = passes(model, losses)
    grams: dict[int, Tensor] = {}
    for p, column in zip(model.parameters(), zip(*rows, strict=True), strict=True):
        found = [g for g in column if g is not None]
        if len(found) > 1:
            flat = torch.stack([g.reshape(-1) for g in found])
            product = flat @ flat.T
            grams[len(found)] = grams[len(found)].add_(product) if len(found) in grams else product
        if found:
            total = found[0].mul_(0.5)
            for g in found[1:]:
                total.add_(g, alpha=0.5)
            p.grad = total


def surgery(strategy: str, **settings: Any) -> Step:
    """Ours, one Surgery per model."""
    kept: dict[int, gs.Surgery] = {}

    def step(model: nn.Module, losses: list[Tensor]) -> None:
        if id(model) not in kept:
            kept[id(model)] = gs.Surgery(strategy, model, **settings)
        kept[id(model)].backward(losses)

    return step


ONE_PASS = {
    "sum": surgery("sum"),
    "sum, ignore": surgery("sum", nonfinite="ignore"),
    "uw": surgery("uw"),
    "uw, ignore": surgery("uw", nonfinite="ignore"),
}


def torchjd(chunk: int | None, gramian: bool) -> Step:
    """TorchJD's UPGrad, with so many rows at once (None: all, by vmap) and its Gramian option."""
    from torchjd.aggregation import UPGrad
    from torchjd.autojac import jac_to_grad, mtl_backward

    aggregator = UPGrad()

    def step(model: nn.Module, losses: list[Tensor]) -> None:
        mtl_backward(losses, model.features, parallel_chunk_size=chunk)
        shared = [p for p in model.parameters() if getattr(p, "jac", None) is not None]
        jac_to_grad(shared, aggregator, optimize_gramian_computation=gramian)

    return step
