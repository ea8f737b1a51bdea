"""Per-example losses in one pass: time and memory beside TorchJD's Engine, and beside a plain step.

`python -m benchmarks.per_example` measures all of it (a quarter of an hour on one core) and writes
the figures; `--quick` tries the way. Times are CPU seconds of one thread, in turns.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradsurgery as gs
from benchmarks.measure import about, need_torchjd
from benchmarks.memory import status
from benchmarks.models import Encoder, mlp
from gradsurgery.errors import extra
from gradsurgery.types import Array

with extra("bench", "the benchmark"):
    import typer

Step = Callable[[], Any]
Losses = Callable[[], Tensor]
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}


@gs.strategy("equal-weights", scale="mean", claims=(), paper="none: what a step costs unsolved")
def equal_weights(gram: Array) -> Array:
    """Equal weights, after the Gram matrix was formed."""
    return np.full(len(gram), 1 / len(gram))


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


class Transformer(nn.Module):
    """Two layers on 32 tokens of 128 numbers, and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = Encoder(), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def of_classes(model: nn.Module, shape: tuple[int, ...]) -> Losses:
    """A forward pass to losses [B]."""
    x, labels = torch.randn(shape), torch.randint(10, (shape[0],))
    return lambda: F.cross_entropy(model(x), labels, reduction="none")


def of_tokens(model: nn.Module, b: int, t: int) -> Losses:
    """A forward pass to losses [B], the sum over an example's tokens."""
    tokens = torch.randint(512, (b, t + 1))

    def losses() -> Tensor:
        found = F.cross_entropy(
            model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        return found.view(b, t).sum(1)

    return losses


SINGLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP, 3 x 256": (perceptron, (256,)),
    "CNN, 32 x 32": (cnn, (3, 32, 32)),
}
MIXED: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Losses], int]] = {
    "MLP, 4 x 1,024": (
        lambda: nn.Sequential(mlp(), nn.Linear(1024, 10)),
        lambda model: of_classes(model, (64, 1024)),
        64,
    ),
    "MLP, 4 x 1,024, batch 256": (
        lambda: nn.Sequential(mlp(), nn.Linear(1024, 10)),
        lambda model: of_classes(model, (256, 1024)),
        256,
    ),
    "transformer": (Transformer, lambda model: of_classes(model, (16, 32, 128)), 16),
    "transformer, batch 64": (Transformer, lambda model: of_classes(model, (64, 32, 128)), 64),
    "transformer, batch 256": (Transformer, lambda model: of_classes(model, (256, 32, 128)), 256),
    "LoRA decoder": (Decoder, lambda model: of_tokens(model, 16, 64), 16),
}


def alternated(steps: dict[str, Step], turns: int) -> dict[str, float]:
    """The median CPU milliseconds of each, in turns after two that do not count."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 2):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if turn > 1:
                found[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in found.items()}


def ours(strategy: str, model: nn.Module, losses: Losses, mixtures: Any = None) -> Step:
    """Our step; after the first one examples are not checked again."""
    surgery = gs.Surgery(strategy, model)

    def step() -> None:
        model.zero_grad()
        surgery.backward(gs.PerExample(losses(), mixtures))

    return step


def plain(model: nn.Module, losses: Losses) -> Step:
    """A step of the sum of all losses."""

    def step() -> None:
        model.zero_grad()
        losses().sum().backward()

    return step


def engine(strategy: str | None, model: nn.Module, losses: Losses) -> Step:
    """TorchJD's step with its Engine; without a solver for None."""
    from torchjd.aggregation import MGDAWeighting, UPGradWeighting
    from torchjd.autogram import Engine

    made = Engine(model, batch_dim=0)
    weigh = {"upgrad": UPGradWeighting, "mgda": MGDAWeighting}[strategy]() if strategy else None

    def step() -> None:
        model.zero_grad()
        found = losses()
        gramian = made.compute_gramian(found)
        found.backward(weigh(gramian) if weigh else torch.full_like(found, 1 / len(found)))

    return step


def made(kind: str, n: int) -> tuple[nn.Module, Losses]:
    """A model whose n examples are objectives."""
    torch.manual_seed(0)
    make, shape = SINGLE[kind]
    model = make()
    return model, of_classes(model, (n, *shape))


def beside_engine(kind: str, n: int, turns: int) -> dict[str, float]:
    """Every example an objective: our step and the Engine's, with and without a solver."""
    steps = {"plain": plain(*made(kind, n))}
    for strategy in ("upgrad", "mgda", None):
        steps[f"ours, {strategy}"] = ours(strategy or "equal-weights", *made(kind, n))
        steps[f"engine, {strategy}"] = engine(strategy, *made(kind, n))
    return alternated(steps, turns)


def of_mixtures(kind: str, turns: int) -> dict[str, float]:
    """Steps of n mixtures beside a plain one; a third of the examples is left out of each."""
    torch.manual_seed(0)
    make, losses_of, batch = MIXED[kind]
    model = make()
    losses = losses_of(model)
    steps = {"plain": plain(model, losses)}
    for n in (3, 8, 64):
        table = torch.rand(n, batch) * (torch.rand(n, batch) > 1 / 3)
        named = {f"objective {i}": row for i, row in enumerate(table)}
        steps[str(n)] = ours("mgda", model, losses, named)
    return alternated(steps, turns)


def peak(which: str, kind: str, n: int) -> int:
    """Bytes that a step takes at most beyond what was there before, forward pass included.

    It is the second one: the first checks examples, and loads what the process has not yet.
    """
    step = (ours if which == "ours" else engine)("mgda", *made(kind, n))
    step()
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before = status("VmRSS")
    step()
    return status("VmHWM") - before


def peaks(kind: str, n: int, repeats: int) -> dict[str, float]:
    """The median peak of both, in processes of their own, in megabytes."""
    found = {}
    for which in ("ours", "engine"):
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.per_example"]
        command += ["--probe", f"{which}/{kind}/{n}"]
        runs = []
        for _ in range(repeats):
            env = {**os.environ, **ALLOCATOR}
            run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
            runs.append(int(run.stdout.split()[-1]) / 1e6)
        found[which] = statistics.median(runs)
    return found


def main(
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(
        "comparisons/per_example.json"
    ),
    turns: Annotated[int, typer.Option(min=1)] = 9,
    quick: Annotated[bool, typer.Option(help="One turn of the smallest cases.")] = False,
    probe: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Measure, print, and write the figures."""
    torch.set_num_threads(1)
    if probe:
        which, kind, n = probe.split("/")
        print(peak(which, kind, int(n)))
        return
    need_torchjd()
    turns, sizes = (1, (8,)) if quick else (turns, (32, 64, 128))
    figures: dict[str, Any] = {"single": [], "mixtures": []}
    for kind in SINGLE:
        for n in sizes:
            row = {"model": kind, "n": n, "milliseconds": beside_engine(kind, n, turns)}
            row["megabytes"] = peaks(kind, n, 1 if quick else 3)
            figures["single"].append(row)
            print(row, flush=True)
    for kind in list(MIXED)[: 1 if quick else None]:
        row = {"model": kind, "batch": MIXED[kind][2], "milliseconds": of_mixtures(kind, turns)}
        figures["mixtures"].append(row)
        print(row, flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**about(), "turns": turns, "figures": figures}, indent=1))


if __name__ == "__main__":
    typer.run(main)
