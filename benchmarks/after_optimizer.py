"""What optimizers do to the promise of a direction, and whether keeping it shows beyond the batch.

`python -m benchmarks.after_optimizer --out FOLDER` trains models on the tasks that ship, under
`Surgery.step`, one line of JSON per run. The same command on the same folder goes on where it was
ended. Kinds of runs:

* guard: a strategy under an optimizer, with guard="report" and guard="correct". How often some
  objective of a shared group rises to first order on its own batch; what corrections cost.
* alone: the control, one loss trained alone: how often it raises itself.
* beyond: in corrected steps both steps, and a control, on an independent batch (`beyond.py`).
* metric: with metric="euclidean" and metric="optimizer", under Adam with and without momentum, how
  often some objective rises with guard="report".
* tune, train: pairs of trainings at the learning rate that a sweep chose, and their test figures.
* same: "correct" at the rate chosen for "report", where its own is another one.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import nn

import gradsurgery as gs
from benchmarks.beyond import beyond
from benchmarks.measure import about
from benchmarks.optimizers import DIVISION, OPTIMIZERS, Parameters, problems
from gradsurgery.errors import extra
from gradsurgery.tasks import Batch, Problem
from gradsurgery.tasks.tensors import batches, figures

with extra("bench", "the benchmark"):
    import typer

STEPS, BATCH, SEEDS, PAIRS = 300, 32, 3, 10
Guard = Literal["report", "correct", "off"]
Metric = Literal["euclidean", "optimizer"]
STRATEGIES = ("upgrad", "mgda", "mmpareto", "pcgrad", "sum")
RATES = (3e-4, 1e-3, 3e-3, 1e-2)  # that a sweep tries, on seeds of its own


class Run:
    """One training under `Surgery.step`."""

    def __init__(
        self,
        problem: Problem,
        model: Callable[[], nn.Module],
        strategy: str,
        optimizer: Callable[[Parameters], torch.optim.Optimizer],
        guard: Guard,
        seed: int,
        only: str | None = None,
        metric: Metric = "euclidean",
    ) -> None:
        torch.manual_seed(seed)
        self.problem, self.guard, self.only, self.seed = problem, guard, only, seed
        self.metric: Metric = metric
        self.model = model()
        self.optimizer = optimizer(self.model.parameters())
        self.surgery = gs.Surgery(strategy, self.model, seed=seed, measure=1)

    def steps(self, count: int) -> Iterator[tuple[gs.Record, Batch]]:
        """The steps, each with its record and its batch."""
        order = batches(self.problem.train, BATCH, self.seed)
        for _, batch in zip(range(count), order, strict=False):
            losses = self.problem.losses(self.model, batch)
            if self.only is not None:
                losses = {self.only: losses[self.only]}
            self.optimizer.zero_grad()
            record = self.surgery.step(losses, self.optimizer, guard=self.guard, metric=self.metric)
            yield record, batch


def shared(record: gs.Record, alone: bool) -> list[gs.GroupRecord]:
    """The groups whose promise is asked about."""
    return [group for group in record.values() if alone or len(group.objectives) > 1]


def guarded(run: Run, steps: int) -> dict[str, Any]:
    """How often an objective rises, and what is corrected."""
    risen, corrected, groups = [], [], dict[str, list[bool]]()
    for record, _ in run.steps(steps):
        own = shared(record, run.only is not None)
        risen.append(any(group.risen for group in own))
        for group in own:
            groups.setdefault(group.name, []).append(bool(group.risen))
            if group.corrected is not None:
                corrected.append(group.corrected)
    return {
        "risen": statistics.fmean(risen),
        "groups": {name: statistics.fmean(found) for name, found in groups.items()},
        "corrected": len(corrected),
        "of": steps * len(groups),
        "part": statistics.median(corrected) if corrected else None,
        "held": sum(part == 0 for part in corrected),
        "short": sum(part < 0.01 for part in corrected),
    }


def trained(run: Run, steps: int, examples: str) -> dict[str, Any]:
    """The figures after training."""
    for _ in run.steps(steps):
        pass
    run.model.eval()
    with torch.no_grad():
        found = figures(run.problem, run.model, getattr(run.problem, examples), examples)
    run.model.train()
    return {"figures": found}


Cell = dict[str, Any]


def cells(steps: int) -> Iterator[Cell]:
    """All runs, by seed, so that what is there is balanced wherever the command ends."""
    names = {"multimnist": ("left", "right"), "transformer": ("left", "right")}
    names["cg-mnist"] = ("fused", "gray", "colour")
    for seed in range(SEEDS):
        for task, objectives in names.items():
            for optimizer in OPTIMIZERS:
                common = {"task": task, "optimizer": optimizer, "seed": seed, "steps": steps}
                for strategy in STRATEGIES:
                    for guard in ("report", "correct"):
                        yield {"kind": "guard", "strategy": strategy, "guard": guard, **common}
                for only in objectives:
                    yield {"kind": "alone", "only": only, **common}
        for task in names:
            for strategy in ("upgrad", "mgda"):
                for optimizer in ("momentum", "Adam"):
                    own = {"strategy": strategy, "optimizer": optimizer}
                    yield {"kind": "beyond", "task": task, **own, "seed": seed, "steps": steps}
    for task in ("multimnist", "cg-mnist"):
        for strategy in ("mgda", "upgrad"):
            own = {"task": task, "strategy": strategy, "steps": steps}
            for guard in ("report", "correct"):
                for rate in RATES:
                    for seed in (100, 101):
                        yield {"kind": "tune", **own, "guard": guard, "lr": rate, "seed": seed}
    for seed in range(PAIRS):
        for task in ("multimnist", "cg-mnist"):
            for strategy in ("mgda", "upgrad"):
                for guard in ("report", "correct"):
                    own = {"task": task, "strategy": strategy, "guard": guard, "steps": steps}
                    yield {"kind": "train", **own, "seed": seed}
                    if guard == "correct":
                        yield {"kind": "same", **own, "seed": seed}
    for task in ("multimnist", "cg-mnist"):
        for strategy in ("mgda", "upgrad"):
            for optimizer in ("Adam", *DIVISION):
                own = {"task": task, "strategy": strategy, "optimizer": optimizer, "steps": steps}
                for metric in ("euclidean", "optimizer"):
                    yield {"kind": "metric", **own, "metric": metric, "guard": "report", "seed": 0}


def key_of(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)


def best_rate(rows: list[dict[str, Any]], cell: Cell) -> float:
    """The rate whose validation figures are highest in sum, for both guards its own."""
    found: dict[float, list[float]] = {}
    same = ("task", "strategy", "guard", "steps")
    for row in rows:
        if row["cell"]["kind"] == "tune" and all(row["cell"][k] == cell[k] for k in same):
            found.setdefault(row["cell"]["lr"], []).append(sum(row["figures"].values()))
    return max(found, key=lambda rate: statistics.fmean(found[rate]))


def run(cell: Cell, known: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The figures of one cell; None where another one has them."""
    problem, model = known[cell["task"]]
    rate = cell.get("lr")
    if cell["kind"] in ("train", "same"):
        wanted = {**cell, "guard": "report"} if cell["kind"] == "same" else cell
        rate = best_rate(rows, wanted)
        if cell["kind"] == "same" and rate == best_rate(rows, cell):
            return None
    if rate is None:
        optimizer = {**OPTIMIZERS, **DIVISION}[cell["optimizer"]]
    else:
        optimizer = lambda p: torch.optim.Adam(p, lr=rate)  # noqa: E731
    strategy, guard = cell.get("strategy", "sum"), cell.get("guard", "correct")
    if cell["kind"] == "alone":
        guard = "report"
    more = cell.get("only"), cell.get("metric", "euclidean")
    own = Run(problem, model, strategy, optimizer, guard, cell["seed"], *more)
    if cell["kind"] in ("guard", "alone", "metric"):
        return guarded(own, cell["steps"])
    if cell["kind"] == "beyond":
        other = batches(problem.train, BATCH, cell["seed"] + 1000)
        return beyond(own, cell["steps"], other)
    examples = "validation" if cell["kind"] == "tune" else "test"
    return {**trained(own, cell["steps"], examples), "lr": rate}


def main(
    out: Annotated[Path, typer.Option(help="folder of the figures")],
    steps: Annotated[int, typer.Option(help="per run")] = STEPS,
    kind: Annotated[str, typer.Option(help="only runs of these kinds, by commas")] = "",
    task: Annotated[str, typer.Option(help="only these tasks, by commas")] = "",
) -> None:
    """Make the runs that are not there yet."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{(kind or 'all').replace(',', '-')}{task and '-' + task.replace(',', '-')}.jsonl"
    rows = [json.loads(line) for path in out.glob("*.jsonl") for line in path.open()]
    there, known = {key_of(row["cell"]) for row in rows}, problems()
    for cell in cells(steps):
        wanted = (not kind or cell["kind"] in kind.split(",")) and (
            not task or cell["task"] in task.split(",")
        )
        if not wanted or key_of(cell) in there:
            continue
        begin = time.perf_counter()
        figures = run(cell, known, rows)
        if figures is None:
            continue
        row = {"cell": cell, **figures, "seconds": time.perf_counter() - begin, **about()}
        rows.append(row)
        with file.open("a") as stream:
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    typer.run(main)
