"""What a practitioner should do, from the sizes of the effects."""

from collections.abc import Iterator, Mapping

from gradsurgery.compare.statistics import Comparison, judge
from gradsurgery.compare.statistics.words import number
from gradsurgery.study.claims.claim import Claim, counted, joined, made, measured, titled
from gradsurgery.study.declaration import Part
from gradsurgery.study.evidence import SUM, Evidence

USED = "the primary figures of tuned runs, and the validation figures of the search of rates"


def advice(evidence: Evidence) -> Claim:
    """The effects beside each other: the losses, the optimizer, the rate, the strategy."""
    details: list[str] = []
    without: dict[bool, list[str]] = {True: [], False: []}  # by whether rates were tuned
    costs: list[str] = []
    for part in evidence.parts:
        details += _strategies(evidence, part)
        x = None if part.joint is None else evidence.against(part, part.joint)
        if x is not None:
            without[part.tune].append(x.verdict)
            numbers = measured(x, evidence.unit(part))
            details.append(f"{titled(part)}: without unimodal losses, {x.verdict} ({numbers}).")
        costs += (rates := list(_rate(evidence, part)))
        details += rates
    optimizers = list(_optimizers(evidence))
    said = []
    for tune, where in ((True, ""), (False, " at one rate that was not tuned")):
        if without[tune]:
            counts = counted(without[tune], "parts")
            said.append(f"Training without the unimodal losses{where} is {counts}.")
    said += [f"The optimizer: {one}" for one in optimizers]
    if costs:
        said.append(f"The learning rate: {costs[0]}")
    for verdict in ("better", "worse"):
        tuned = [part for part in evidence.parts if part.tune]
        names = {x.strategy for part in tuned for x in _asked(evidence, part, verdict)}
        shown = joined(sorted(names)) or "none"
        said.append(f"Strategies {verdict} than tuned sum on some part: {shown}.")
    return made(
        "What should a practitioner do, by the sizes of the effects?",
        " ".join(said),
        [*details, *optimizers],
        USED,
        evidence.begun(),
    )


def _asked(evidence: Evidence, part: Part, verdict: str) -> list[Comparison]:
    family = evidence.family(part)
    found = () if family is None else family.comparisons
    return [x for x in found if x.verdict == verdict and x.strategy in part.strategies]


def _strategies(evidence: Evidence, part: Part) -> Iterator[str]:
    family = evidence.family(part)
    found = () if family is None else family.comparisons
    asked = [x for x in found if x.strategy in part.strategies and x.strategy != part.joint]
    means = {x.strategy: x.mean for x in asked}
    known = {name: mean for name, mean in means.items() if mean is not None}
    if known:
        low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
        unit = evidence.unit(part)
        yield (
            f"{titled(part)}: strategies differ from sum by {number(known[low], sign=True)} "
            f"({low}) to {number(known[high], unit, sign=True)} ({high})."
        )


def _rate(evidence: Evidence, part: Part) -> Iterator[str]:
    """What two steps of the grid from the best rate cost the plain sum."""
    choice = evidence.choices(part).get(SUM)
    if choice is None:
        return
    figures: Mapping[str, float | None] = choice["figures"]
    curve = [(float(rate), x) for rate, x in figures.items() if x is not None]
    best = dict(curve).get(choice["lr"])
    off = [
        (rate, x) for rate, x in curve if 2 < max(rate / choice["lr"], choice["lr"] / rate) < 2.5
    ]
    if best is not None and off:
        said = joined(f"{number(x - best, sign=True)} at {rate:.3g}" for rate, x in off)
        unit = evidence.unit(part)
        yield (
            f"{part.name}: sum at a rate of a factor 2.25 from its best ({choice['lr']:.3g}) "
            f"differs on validation by {said} {unit}."
        )


def _optimizers(evidence: Evidence) -> Iterator[str]:
    """Adam against SGD for the plain sum, where a task was run with both."""
    by_task: dict[str, dict[str, Part]] = {}
    for part in evidence.parts:
        if part.optimizer is not None:
            by_task.setdefault(part.task, {})[part.optimizer] = part
    for task, parts in by_task.items():
        if set(parts) != {"sgd", "adam"}:
            continue
        figures = {name: evidence.figures(part).get(SUM, {}) for name, part in parts.items()}
        part = parts["sgd"]
        unit = evidence.unit(part)
        if all(figures.values()):
            (x,) = judge(
                figures, "sgd", better=evidence.better(part), unit=unit, delta=part.delta
            ).comparisons
            yield f"{task}: sum with adam against sum with sgd {x.verdict} ({measured(x, unit)})."
