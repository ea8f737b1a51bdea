"""Per-example losses in one pass: time and memory beside TorchJD's Engine, and beside a plain step.

`python -m benchmarks.per_example --out FILE` measures all of it; `--quick` tries the way.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradsurgery as gs
from benchmarks.models import Encoder, mlp

Step = Callable[[], Any]


class Low(nn.Module):
    """A frozen linear layer, and a trained one of rank 8 beside it."""

    def __init__(self, inside: int, outside: int, rank: int = 8) -> None:
        super().__init__()
        self.frozen = nn.Linear(inside, outside).requires_grad_(False)
        self.down = nn.Linear(inside, rank, bias=False)
        self.up = nn.Linear(rank, outside, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.frozen(x) + self.up(self.down(x))
        return found


class Layer(nn.Module):
    """A decoder's layer: causal attention and a feed-forward part, all by `Low`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = (nn.LayerNorm(width).requires_grad_(False) for _ in range(2))
        self.qkv, self.out = Low(width, 3 * width), Low(width, width)
        self.wide, self.narrow = Low(width, 4 * width), Low(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, width = x.shape
        q, k, v = self.qkv(self.first(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, width))
        return x + self.narrow(F.gelu(self.wide(self.second(x))))


class Decoder(nn.Module):
    """A small decoder with LoRA: 4 layers of 256, a vocabulary of 512."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(512, 256).requires_grad_(False)
        self.layers = nn.Sequential(*[Layer(256, 4) for _ in range(4)])
        self.head = nn.Linear(256, 512).requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.table(tokens)))
        return logits


def cnn() -> nn.Module:
    """Three convolutions with pooling, for images of 32 x 32."""
    layers: list[nn.Module] = []
    for inside, outside in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(inside, outside, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def perceptron() -> nn.Module:
    """Three layers of 256."""
    layers = [layer for _ in range(3) for layer in (nn.Linear(256, 256), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(256, 10))


def of_classes(model: nn.Module, shape: tuple[int, ...]) -> Callable[[], Tensor]:
    """A forward pass to losses [B]."""
    x, labels = torch.randn(shape), torch.randint(10, (shape[0],))
    return lambda: F.cross_entropy(model(x), labels, reduction="none")


def of_tokens(model: nn.Module, b: int, t: int) -> Callable[[], Tensor]:
    """A forward pass to losses [B], the sum over an example's tokens."""
    tokens = torch.randint(512, (b, t + 1))

    def losses() -> Tensor:
        found = F.cross_entropy(
            model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        return found.view(b, t).sum(1)

    return losses


def alternated(steps: dict[str, Step], turns: int) -> dict[str, float]:
    """The median CPU seconds of each, in turn; one thread, so that others' load counts little."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn > 1:
                found[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in found.items()}


def beside_engine(turns: int, quick: bool) -> list[dict[str, Any]]:
    """Every example an objective: our step, the Engine's, and both without the solver."""
    from torchjd.aggregation import MGDAWeighting, UPGradWeighting
    from torchjd.autogram import Engine

    rows = []
    kinds = {"mlp": (perceptron, (256,)), "cnn": (cnn, (3, 32, 32))}
    for kind, (make, shape) in kinds.items():
        for n in (8,) if quick else (32, 64, 128):
            for strategy, weighting in (("upgrad", UPGradWeighting), ("mgda", MGDAWeighting)):
                torch.manual_seed(0)
                model, theirs = make(), make()
                theirs.load_state_dict(model.state_dict())
                losses = of_classes(model, (n, *shape))
                torch.manual_seed(1)
                other = of_classes(theirs, (n, *shape))
                surgery, engine = gs.Surgery(strategy, model), Engine(theirs, batch_dim=0)
                weigh = weighting()
                plain = torch.ones(n)

                def ours(surgery=surgery, model=model, losses=losses):
                    model.zero_grad()
                    surgery.backward(gs.PerExample(losses()))

                def peer(theirs=theirs, other=other, engine=engine, weigh=weigh):
                    theirs.zero_grad()
                    found = other()
                    found.backward(weigh(engine.compute_gramian(found)))

                def peer_unsolved(theirs=theirs, other=other, engine=engine, plain=plain):
                    theirs.zero_grad()
                    found = other()
                    engine.compute_gramian(found)
                    found.backward(plain)

                unsolved = gs.Surgery("constant", model, weights=None)

                def one(model=model, losses=losses):
                    model.zero_grad()
                    losses().sum().backward()

                steps = {
                    "ours": ours,
                    "engine": peer,
                    "engine, no solver": peer_unsolved,
                    "plain": one,
                }
                found = alternated(steps, turns)
                rows.append({"model": kind, "n": n, "strategy": strategy, **found})
    return rows


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()


if __name__ == "__main__":
    main()
