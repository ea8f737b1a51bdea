"""The time of an MMPareto step beside the official procedure's, alternating in one process.

`python -m benchmarks.multimodal`: the two-encoder model, three losses. The official procedure is
the one that the tests compare with, written out as published: four backward passes, gradients
cloned, norms per tensor.
"""

import json
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from benchmarks.measure import about, medians
from benchmarks.models import CASES
from benchmarks.steps import floor, passes, plain, surgery
from gradsurgery.errors import extra
from tests.support.mmpareto import official_procedure

with extra("bench", "the benchmark"):
    import typer
    from rich.console import Console
    from rich.table import Table

NAMES = ("fused", "audio", "visual")


def official(model: nn.Module, losses: list[Tensor]) -> None:
    official_procedure(model, dict(zip(NAMES, losses, strict=True)), 1.5)


def main(
    rounds: Annotated[int, typer.Option(min=3)] = 41,
    threads: Annotated[int, typer.Option(min=1)] = torch.get_num_threads(),
    out: Annotated[Path, typer.Option(help="Where the figures go.")] = Path(
        "comparisons/multimodal.json"
    ),
) -> None:
    """Print the medians and their ratios."""
    torch.set_num_threads(threads)
    model, forward = CASES["two encoders, batch 64"].build(3)
    steps = {
        "official procedure": official,
        "mmpareto": surgery("mmpareto"),
        "mmpareto(rescale='tensor')": surgery("mmpareto(rescale='tensor')"),
        "sum": surgery("sum"),
        "floor": floor,
        "n passes": passes,
        "sum().backward()": plain,
    }
    found = medians(model, forward, steps, rounds)
    table = Table(
        title=f"two encoders, batch 64, three losses: median ms of {rounds}", title_justify="left"
    )
    for heading in ("step", "ms", "/ official procedure"):
        table.add_column(heading, justify="right")
    for name, milliseconds in found.items():
        table.add_row(
            name, f"{milliseconds:.2f}", f"{milliseconds / found['official procedure']:.2f}"
        )
    console = Console(width=110)
    console.print(about())
    console.print(table)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**about(), "rounds": rounds, "milliseconds": found}, indent=1))


if __name__ == "__main__":
    typer.run(main)
