"""The summary of results per task: a row per strategy, over the seeds."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gradsurgery.compare.choice import Line, directions, guessed, metric_of
from gradsurgery.compare.grouped import Trained, prepared, trained
from gradsurgery.compare.results import Results
from gradsurgery.tasks import ACCURACY


@dataclass(frozen=True)
class Row:
    """One strategy on one task, over the seeds.

    Attributes:
        strategy: its label.
        lr: the learning rate: where there was a choice, the one with the best validation figures.
        seeds: those that finished.
        accuracies: objective -> test figure per seed, in percent where it is an accuracy.
        conflict_rate: the mean over seeds and groups, in percent; None where no group has two
            objectives.
        step_time: the median step time relative to the baseline's; None where it was not taken.
        at_chance: the objectives in which a run is no better than guessing.
        errors: what went wrong in the runs that failed, at any learning rate.
        better: objective -> "higher" or "lower"; None where the task says nothing.
        figure: what a figure is.
        mean_cosine: between the gradients of two objectives, over pairs, inspected steps, groups
            and seeds; None where no group has two objectives.
        labels: objective -> what its figure is, where that differs between them; None otherwise.
    """

    strategy: str
    lr: float
    seeds: tuple[int, ...]
    accuracies: dict[str, list[float]]
    conflict_rate: float | None
    step_time: float | None
    at_chance: tuple[str, ...]
    errors: tuple[str, ...]
    better: Mapping[str, str] | None = None
    figure: str = ACCURACY
    mean_cosine: float | None = None
    labels: Mapping[str, str] | None = None

    def mean(self, objective: str) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.accuracies[objective])

    def std(self, objective: str) -> float | None:
        """The sample standard deviation over seeds; None with one seed."""
        values = self.accuracies[objective]
        return statistics.stdev(values) if len(values) > 1 else None


def summarise(lines: "Iterable[Line] | Results", baseline: str) -> dict[str, list[Row]]:
    """Per task, a row per strategy, in the order of the results.

    Args:
        lines: of a results file, as `read_results` gives them; or what `compare` returned.
        baseline: the label whose step time is 1.

    Raises:
        InputError: for what are no lines of results.
    """
    lines = prepared(lines)
    times = {line["task"]: line["times"] for line in lines if line["kind"] == "timing"}
    return {
        task: [_row(one, _relative(times.get(task, {}), one.strategy, baseline)) for one in found]
        for task, found in trained(lines, ("run",)).items()
    }


def _row(one: Trained, step_time: float | None) -> Row:
    done = list(one.done)
    objectives = list(done[0]["test"]) if done else []
    conflicts = [rate for line in done for rate in line["conflict_rate"].values()]
    labels = {o: metric_of(done[0], o).label for o in objectives}
    cosines = [cosine for line in done for cosine in line.get("mean_cosine", {}).values()]
    return Row(
        strategy=one.strategy,
        lr=one.lr,
        seeds=tuple(line["seed"] for line in done),
        accuracies={o: [line["test"][o] for line in done] for o in objectives},
        conflict_rate=100 * statistics.fmean(conflicts) if conflicts else None,
        step_time=step_time,
        at_chance=tuple(o for o in objectives if guessed(done, o)),
        errors=tuple(
            f"seed {line['seed']}, lr {line['lr']:.3g}{_place(line)}: {error_of(line)}"
            for line in one.failed
        ),
        better=directions(done[0]) if done else None,
        figure=done[0].get("figure", ACCURACY) if done else ACCURACY,
        mean_cosine=statistics.fmean(cosines) if cosines else None,
        labels=labels if len(set(labels.values())) > 1 else None,
    )


def error_of(line: Line) -> str:
    """The error of a run, and where in the user's code it was raised, as far as that is known."""
    where = (line.get("failed_at") or {}).get("where")
    return f"{line['error']} ({where})" if where else str(line["error"])


def _place(line: Line) -> str:
    """Where it failed, in words; the step after the last one is the evaluation."""
    step = (line.get("failed_at") or {}).get("step")
    if step is None:
        return ""
    steps = line.get("steps")
    return ", after the last step" if steps and step > steps else f", at step {step}"


def _relative(times: Mapping[str, Any], label: str, baseline: str) -> float | None:
    own, base = (times.get(name, {}).get("median") for name in (label, baseline))
    return None if own is None or not base else own / base
