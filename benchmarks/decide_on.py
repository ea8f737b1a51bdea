"""`decide_on=` the last layer of the trunk: what it costs, and how near it comes to full surgery.

`python -m benchmarks.decide_on --out FILE` makes the runs that are not in FILE yet, one line of
JSON per run, and goes on where it was ended. Data are the digits of `multimnist`, of whose two
labels up to eight objectives are made, and `cg-mnist` as it ships. Kinds of runs:

* cost: CPU time of the plain sum, full surgery and `decide_on=` in turns, from the losses to
  `.grad`, and of the forward pass.
* near: along a training with upgrad and `decide_on=`, for each strategy and shared group, cosines
  of the directions of full surgery, of `decide_on=` and of the plain sum over the whole group; and
  the least cosine of each direction with a gradient, which is negative where an objective rises.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradsurgery as gs
from benchmarks import steps
from benchmarks.measure import about, medians
from benchmarks.models import Encoder, mlp, resnet18
from gradsurgery.errors import extra
from gradsurgery.tasks import Batch, Problem, get_task
from gradsurgery.tasks.tensors import batches
from gradsurgery.types import Array

with extra("bench", "the benchmark"):
    import typer

STRATEGIES = ("upgrad", "mgda", "cagrad")
# what is read from the left and the right digit, and how many classes that has
OBJECTIVES: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "left": (10, lambda a, b: a),
    "right": (10, lambda a, b: b),
    "sum": (19, lambda a, b: a + b),
    "larger": (2, lambda a, b: (a > b).long()),
    "left odd": (2, lambda a, b: a % 2),
    "right odd": (2, lambda a, b: b % 2),
    "left high": (2, lambda a, b: (a > 4).long()),
    "right high": (2, lambda a, b: (b > 4).long()),
}


class Digits(nn.Module):
    """A trunk on images of two digits, padded to 32 x 32, and a linear head per objective."""

    def __init__(self, trunk: nn.Module, width: int, n: int) -> None:
        super().__init__()
        self.trunk = trunk
        sizes = {name: classes for name, (classes, _) in list(OBJECTIVES.items())[:n]}
        self.heads = nn.ModuleDict({name: nn.Linear(width, k) for name, k in sizes.items()})

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images, labels = batch
        z = self.trunk(F.pad(images, (2, 2, 2, 2)))
        left, right = labels.unbind(1)
        return {
            name: F.cross_entropy(head(z), OBJECTIVES[name][1](left, right))
            for name, head in self.heads.items()
        }


class Rows(nn.Module):
    """The transformer of the benchmarks on the 32 rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Linear(32, 128), Encoder()
        self.place = nn.Parameter(0.02 * torch.randn(32, 128))

    def forward(self, images: Tensor) -> Tensor:
        z: Tensor = self.encoder(self.embed(images[:, 0]) + self.place)
        return z


@dataclass(frozen=True)
class Case:
    """A model, its task, and how it is trained.

    Attributes:
        make: from the task and the number of objectives to a model.
        last: the last layers of its trunks, one per shared group.
        layer: what they are, in words.
        task: the task with the data.
        objectives: the numbers of objectives.
        batch: examples per step.
        steps: how long it is trained.
        every: in which of these steps directions are compared.
        seeds: how many trainings.
    """

    make: Callable[[Problem, int], nn.Module]
    last: Callable[[Any], list[nn.Module]]
    layer: str
    task: str = "multimnist"
    objectives: tuple[int, ...] = (2, 4, 8)
    batch: int = 64
    steps: int = 200
    every: int = 20
    seeds: int = 3

    def losses(self, problem: Problem, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """One forward pass."""
        if isinstance(model, Digits):
            return model.losses(batch)
        return problem.losses(model, batch)

    def part(self, model: nn.Module) -> list[nn.Parameter]:
        """The parameters that decide."""
        return [p for layer in self.last(model) for p in layer.parameters()]


def _resnet(_: Problem, n: int) -> nn.Module:
    trunk = resnet18()
    assert isinstance(trunk, nn.Sequential)
    trunk[0] = nn.Conv2d(1, 64, 3, 1, 1, bias=False)
    return Digits(trunk, 512, n)


CASES = {
    "resnet-18": Case(
        _resnet,
        lambda m: [m.trunk[-3].second],
        "the last convolution with its norm",
        batch=16,
        steps=60,
        every=6,
        seeds=2,
    ),
    "transformer": Case(
        lambda _, n: Digits(Rows(), 128, n),
        lambda m: [m.trunk.encoder.body.layers[-1]],
        "the last of two encoder layers",
    ),
    "transformer-linear": Case(
        lambda _, n: Digits(Rows(), 128, n),
        lambda m: [m.trunk.encoder.body.layers[-1].linear2],
        "the last linear layer of the last encoder layer",
    ),
    "mlp": Case(
        lambda _, n: Digits(nn.Sequential(nn.Flatten(), mlp()), 1024, n),
        lambda m: [m.trunk[-1][-2]],
        "the last of four layers",
    ),
    "multimnist": Case(
        lambda problem, _: problem.model(),
        lambda m: [m.trunk[-2]],
        "the linear layer of LeNet",
        objectives=(2,),
    ),
    "cg-mnist": Case(
        lambda problem, _: problem.model(),
        lambda m: [m.gray[-1], m.colour[-1]],
        "the linear layer of each encoder",
        task="cg-mnist",
        objectives=(3,),
    ),
}


def cost(case: Case, problem: Problem, n: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of the steps, taken in turns, and of the forward pass, on one core."""
    torch.manual_seed(0)
    model = case.make(problem, n)
    batch = next(batches(problem.train, case.batch, 0))
    compared = {"sum": steps.plain}
    for name in STRATEGIES:
        compared[f"{name}, full"] = steps.surgery(name)
        compared[f"{name}, part"] = steps.surgery(name, decide_on=case.part(model))
    forward: list[float] = []

    def run() -> list[Tensor]:
        begin = time.process_time()
        losses = list(case.losses(problem, model, batch).values())
        forward.append(time.process_time() - begin)
        return losses

    found = medians(model, run, compared, rounds, seconds, clock=time.process_time)
    count, own = (sum(p.numel() for p in ps) for ps in (model.parameters(), case.part(model)))
    return {
        "milliseconds": {name: round(ms, 3) for name, ms in found.items()},
        "forward": round(1e3 * statistics.median(forward), 3),
        "parameters": count,
        "deciding": own,
    }


def compared(gram: Array, part: Array, strategy: str) -> dict[str, float]:
    """What directions have in common, from the Gram matrices of the group and of its part."""
    solver = gs.get_strategy(strategy)
    given = {"full": gram, "part": part}
    weights = {"sum": np.ones(len(gram)), **{k: solver.weights(g) for k, g in given.items()}}
    inner = {(a, b): u @ gram @ v for a, u in weights.items() for b, v in weights.items()}

    def cosine(a: str, b: str) -> float:
        size = (inner[a, a] * inner[b, b]) ** 0.5
        return float(inner[a, b] / size) if size > 0 else 0.0

    def least(a: str) -> float:
        sizes = (np.diag(gram) * inner[a, a]) ** 0.5
        return float((gram @ weights[a] / np.where(sizes > 0, sizes, 1)).min())

    share = {k: w / w.sum() for k, w in weights.items()}
    return {
        "full, part": cosine("full", "part"),
        "full, sum": cosine("full", "sum"),
        "part, sum": cosine("part", "sum"),
        "weights, part": float(abs(share["full"] - share["part"]).sum() / 2),
        "weights, sum": float(abs(share["full"] - share["sum"]).sum() / 2),
        **{f"least, {name}": least(name) for name in weights},
    }


def near(case: Case, problem: Problem, n: int, seed: int, count: int) -> list[dict[str, Any]]:
    """The directions compared, along a training of so many steps."""
    torch.manual_seed(seed)
    model = case.make(problem, n)
    part = case.part(model)
    surgery = gs.Surgery("upgrad", model, seed=seed, decide_on=part)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    found = []
    order = batches(problem.train, case.batch, seed)
    for step, batch in zip(range(count + 1), order, strict=False):
        losses = case.losses(problem, model, batch)
        if step % case.every == 0:
            whole = gs.inspect(losses, model)
            own = gs.inspect(losses, part)
            for name, group in whole.items():
                if len(group.objectives) < 2:
                    continue
                assert own[name].objectives == group.objectives
                for strategy in STRATEGIES:
                    figures = compared(group.gram, own[name].gram, strategy)
                    short = {key: round(x, 5) for key, x in figures.items()}
                    row = {"step": step, "group": name, "strategy": strategy, **short}
                    found.append(row)
        optimizer.zero_grad()
        surgery.backward(losses)
        optimizer.step()
    return found


def cells(names: list[str]) -> Iterator[dict[str, Any]]:
    """All runs, the costs first."""
    for name in names:
        for n in CASES[name].objectives:
            yield {"kind": "cost", "model": name, "n": n}
    for seed in range(max(case.seeds for case in CASES.values())):
        for name in names:
            for n in CASES[name].objectives:
                if seed < CASES[name].seeds and (name, n) != ("resnet-18", 8):  # half an hour
                    yield {"kind": "near", "model": name, "n": n, "seed": seed}


def main(
    out: Annotated[Path, typer.Option(help="file of the figures")],
    models: Annotated[str, typer.Option(help="only these, by commas")] = ",".join(CASES),
    rounds: Annotated[int, typer.Option(help="turns of the steps that are timed")] = 15,
    seconds: Annotated[float, typer.Option(help="after which three turns are enough")] = 60.0,
) -> None:
    """Make the runs that are not there yet."""
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    there = [row["cell"] for row in rows]
    problems: dict[str, Problem] = {}
    for cell in cells(models.split(",")):
        if cell in there:
            continue
        case, n = CASES[cell["model"]], cell["n"]
        if case.task not in problems:
            problems[case.task] = get_task(case.task).load(None)
        problem, begin = problems[case.task], time.perf_counter()
        if cell["kind"] == "cost":
            figures: Any = cost(case, problem, n, rounds, seconds)
        else:
            figures = near(case, problem, n, cell["seed"], case.steps)
        spent = round(time.perf_counter() - begin, 1)
        row = {"cell": cell, "figures": figures, "seconds": spent, **about()}
        with out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    typer.run(main)
