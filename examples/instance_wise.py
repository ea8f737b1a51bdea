"""Every example an objective: a small CNN on real digits, and the losses in the tail.

Without mixtures each example of the batch is an objective of its own, 32 of them from one backward
pass. The direction of `upgrad` raises none of their losses to first order; that of the sum raises
those of examples the others are in conflict with. The same learning rates are tried for all, and
each strategy has the one with the least mean loss in validation:

    python examples/instance_wise.py
"""

import time
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import gradsurgery as gs
from gradsurgery.tasks.digits import load_digits, pooled

BATCH = 32
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)  # of plain SGD; the sum of 32 is 32 times the mean
QUANTILES = {"median": 0.5, "95 %": 0.95, "99 %": 0.99, "worst": 1.0}
Split = tuple[Tensor, Tensor]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def make_model() -> nn.Module:
    """Two convolutions and a linear layer, for images [n, 1, 14, 14]."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(400, 10),
    )  # fmt: skip


def train(strategy: str, rate: float, data: Split, epochs: int, seed: int) -> nn.Module:
    """A model trained with every example of a batch as an objective."""
    images, labels = data
    torch.manual_seed(seed)
    model = make_model()
    # [step]
    # an example that is fitted to the last digit has no gradient, and no part in the decision
    surgery = gs.Surgery(strategy, model, zero="absent")
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            losses = cross_entropy(model(images[rows]), labels[rows], reduction="none")
            optimizer.zero_grad()
            surgery.backward(gs.PerExample(losses))
            optimizer.step()
    # [end of step]
    return model


@torch.no_grad()
def measured(model: nn.Module, data: Split) -> tuple[Tensor, float]:
    """The losses of all examples, and the percentage that is right."""
    logits = model(data[0])
    right = (logits.argmax(1) == data[1]).float().mean()
    return cross_entropy(logits, data[1], reduction="none"), 100 * float(right)


@app.command()
def main(
    strategy: Annotated[list[str] | None, typer.Option(help="Strategies without memory.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    epochs: Annotated[int, typer.Option(min=1)] = 2,
    quick: Annotated[bool, typer.Option(help="One seed, one rate, an eighth of an epoch.")] = False,
) -> None:
    """Train with each strategy and print quantiles of the losses and the accuracy."""
    chosen, rates = strategy or ["sum", "upgrad", "mgda"], RATES
    if quick:
        seeds, epochs, rates = 1, 1, RATES[1:2]
    table = Table("strategy", "rate", *(f"train, {q}" for q in QUANTILES), "test right", "CPU s")
    for name in chosen:
        began, runs = time.process_time(), []
        for seed in range(seeds):
            digits = load_digits(seed=seed)
            training, validation, test = (
                (pooled(images)[:, None], labels)
                for images, labels in (digits.train, digits.validation, digits.test)
            )
            if quick:
                training = training[0][::8], training[1][::8]
            models = {rate: train(name, rate, training, epochs, seed) for rate in rates}
            runs.append(
                {
                    rate: (float(measured(m, validation)[0].mean()), m, training, test)
                    for rate, m in models.items()
                }
            )
        seconds = (time.process_time() - began) / len(rates) / seeds
        best = min(rates, key=lambda rate: sum(run[rate][0] for run in runs))
        found, right = [], []
        for run in runs:
            _, model, training, test = run[best]
            losses, _ = measured(model, training)
            found.append(torch.quantile(losses, torch.tensor(list(QUANTILES.values()))))
            right.append(measured(model, test)[1])
        values = torch.stack(found)  # [seeds, quantiles]
        spread = values.std(0) if seeds > 1 else torch.zeros(len(QUANTILES))
        table.add_row(
            name,
            f"{best:g}",
            *(f"{m:.3f} ± {s:.3f}" for m, s in zip(values.mean(0), spread, strict=True)),
            f"{sum(right) / seeds:.1f} %",
            f"{seconds:.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    app()
