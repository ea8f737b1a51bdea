"""Group-robust training: digits whose colour agrees with the label, and the few where it does not.

The label is whether a digit is 5 or more. In training 95 of 100 digits of one label are red and of
the other green; in validation and test every digit comes in both colours. A group is a label with
a colour. Each objective is the mean loss of a group's examples in the batch, a mixture of
per-example losses, so that all groups take one backward pass:

    python examples/groups.py
    python examples/groups.py --tune    # where the learning rates come from
"""

import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradsurgery as gs
from gradsurgery.tasks.digits import Digits, load_digits, pooled

GROUPS = ("low green", "low red", "high green", "high red")  # of index 2 * label + colour
AGREES = 0.95  # of the training digits
BATCH = 128
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of SGD with momentum 0.9
TUNED = {"erm": 0.2, "sum": 0.02, "group-dro": 0.1, "mgda": 0.1, "upgrad": 0.05}
Data = tuple[Tensor, Tensor, Tensor]  # images [n, 2, 14, 14], labels [n], groups [n]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def coloured(images: Tensor, label: Tensor, colour: Tensor) -> Data:
    """Gray digits [n, 28, 28] as red or green ones of half the width."""
    found = torch.zeros(len(images), 2, 14, 14)
    found[torch.arange(len(images)), colour] = pooled(images)
    return found, label, 2 * label + colour


def training(digits: Digits, seed: int) -> Data:
    """The training digits, most of them in the colour of their label."""
    images, classes = digits.train
    label = (classes >= 5).long()
    agrees = torch.rand(len(label), generator=torch.Generator().manual_seed(seed)) < AGREES
    return coloured(images, label, torch.where(agrees, label, 1 - label))


def in_both_colours(images: Tensor, classes: Tensor) -> Data:
    """Every digit once in each colour."""
    label = (classes >= 5).long().repeat(2)
    return coloured(images.repeat(2, 1, 1), label, torch.arange(2).repeat_interleave(len(images)))


def make_model() -> nn.Module:
    """A small network for images [n, 2, 14, 14]."""
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(288, 64), nn.ReLU(),
        nn.Linear(64, 2),
    )  # fmt: skip


# [step]
def by_group(losses: Tensor, groups: Tensor) -> gs.PerExample:
    """The mean loss of each group's examples, as mixtures of the losses [B]."""
    masks = {name: (groups == i).float() for i, name in enumerate(GROUPS)}
    return gs.PerExample(losses, {name: m / m.sum().clamp(min=1) for name, m in masks.items()})


# [end of step]


def all_alike(losses: Tensor, groups: Tensor) -> gs.PerExample:
    """The mean loss, whatever the groups: empirical risk minimization."""
    return gs.PerExample(losses, {"all": torch.full_like(losses, 1 / len(losses)).detach()})


def accuracies(model: nn.Module, data: Data) -> Tensor:
    """Percent right in each group [4]."""
    images, labels, groups = data
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).float()
    return torch.stack([100 * right[groups == i].mean() for i in range(len(GROUPS))])


def train(
    strategy: str, rate: float, data: tuple[Data, Data, Data], epochs: int, seed: int
) -> tuple[float, Tensor]:
    """The worst group's best accuracy in validation, and the test accuracies of that epoch."""
    (images, labels, groups), validation, test = data
    objectives: Callable[[Tensor, Tensor], gs.PerExample] = by_group
    if strategy == "erm":
        strategy, objectives = "sum", all_alike
    torch.manual_seed(seed)
    model = make_model()
    # a group that a batch has nothing of has no gradient, and no part in the decision
    surgery = gs.Surgery(strategy, model, zero="absent")
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    best = (-1.0, torch.zeros(len(GROUPS)))
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            losses = cross_entropy(model(images[rows]), labels[rows], reduction="none")
            optimizer.zero_grad()
            surgery.backward(objectives(losses, groups[rows]))
            optimizer.step()
        worst = float(accuracies(model, validation).min())
        if worst > best[0]:
            best = worst, accuracies(model, test)
    return best


def splits(digits: Digits, seed: int) -> tuple[Data, Data, Data]:
    """For training, validation and test."""
    return (
        training(digits, seed),
        in_both_colours(*digits.validation),
        in_both_colours(*digits.test),
    )


def tune(strategies: list[str], epochs: int, seeds: range) -> None:
    """The worst group's accuracy in validation at each learning rate, on seeds of their own."""
    table = Table("strategy", *map(str, RATES), title="worst group, validation, mean over seeds")
    for strategy in strategies:
        means = []
        for rate in RATES:
            runs = (train(strategy, rate, splits(load_digits(seed=s), s), epochs, s) for s in seeds)
            means.append(sum(worst for worst, _ in runs) / len(seeds))
        table.add_row(strategy, *(f"{mean:.1f}" for mean in means))
    Console().print(table)


@app.command()
def main(
    strategy: Annotated[list[str] | None, typer.Option(help="Strategies, or erm.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    rate: Annotated[
        float | None, typer.Option(help="A learning rate for all, in place of those tuned.")
    ] = None,
    search: Annotated[bool, typer.Option("--tune", help="Try learning rates instead.")] = False,
    quick: Annotated[bool, typer.Option(help="Two strategies, one seed, one epoch.")] = False,
) -> None:
    """Train with each strategy and print the test accuracy of the worst group and of all."""
    chosen = strategy or (["sum", "mgda"] if quick else list(TUNED))
    if quick:
        seeds, epochs = 1, 1
    if search:
        tune(chosen, epochs, range(100, 100 + min(seeds, 3)))
        raise typer.Exit
    table = Table("strategy", "rate", "worst group, mean ± sd", "each seed", "mean group", "CPU s")
    for name in chosen:
        lr = rate or TUNED.get(name, 0.1)
        began, found = time.process_time(), []
        for seed in range(seeds):
            found.append(train(name, lr, splits(load_digits(seed=seed), seed), epochs, seed)[1])
        by_seed = torch.stack(found)  # [seeds, groups]
        worst = by_seed.min(1).values
        spread = float(worst.std()) if seeds > 1 else 0.0
        table.add_row(
            name,
            f"{lr:g}",
            f"{worst.mean():.1f} ± {spread:.1f}",
            " ".join(f"{value:.1f}" for value in worst),
            f"{by_seed.mean():.1f}",
            f"{(time.process_time() - began) / seeds:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    app()
