"""Claims about test figures: one strategy against another, part by part."""

from collections.abc import Iterable, Sequence

from gradsurgery.compare.methods import GUARD
from gradsurgery.compare.statistics import Comparison
from gradsurgery.study.claims.claim import (
    PARETO,
    Claim,
    counted,
    joined,
    made,
    measured,
    small,
    titled,
)
from gradsurgery.study.declaration import Part, Prediction
from gradsurgery.study.evidence import SCALED, SUM, Evidence

CONVENTIONAL = "n x mgda"
FAMILY = "verdicts of the primary figure, after Holm"
UNTUNED = "At one rate that was not tuned"
DESCRIBED = "paired intervals, not corrected for their number"
JOINT_ONLY = "joint-only"


def beats(evidence: Evidence, strategy: str, baseline: str) -> Claim:
    """Whether one strategy is better than another on the primary figures."""
    tuned = [part for part in evidence.parts if part.tune]
    others = [part for part in evidence.parts if not part.tune]
    verdicts, details = _compared(evidence, tuned, strategy, baseline)
    untuned, more = _compared(evidence, others, strategy, baseline)
    ones = small((part.name, evidence.against(part, strategy, baseline)) for part in tuned)
    lead = f"{_lead(verdicts)}{strategy} against {baseline} is {counted(verdicts, 'parts')}."
    return made(
        f"Is {strategy} better than {baseline}, at tuned learning rates?",
        f"{lead if verdicts else 'No tuned part is complete.'}{ones}"
        + (f" {UNTUNED} it is {counted(untuned, 'parts')}." if untuned else ""),
        [*details, *more],
        FAMILY,
        evidence.begun(lambda part: {strategy, baseline} <= {*part.strategies}),
    )


def multimodal(evidence: Evidence) -> Claim:
    """The paper's ranking of multimodal accuracy: joint-only and n x mgda, sum, mmpareto."""
    parts = [part for part in evidence.parts if part.joint is not None]
    details, said = [], []
    for part in parts:
        for name in (part.joint or "", CONVENTIONAL, PARETO):
            x = evidence.against(part, name)
            if x is not None:
                shown = JOINT_ONLY if name == part.joint else name
                numbers = measured(x, evidence.unit(part))
                details.append(f"{titled(part)}: {shown} against sum {x.verdict} ({numbers}).")
    for tune, where in ((True, "Against sum"), (False, UNTUNED)):
        counts = []
        for name in (JOINT_ONLY, CONVENTIONAL, PARETO):
            verdicts = [
                x.verdict
                for part in parts
                if part.tune == tune
                and (x := evidence.against(part, part.joint or "" if name == JOINT_ONLY else name))
            ]
            if verdicts:
                counts.append(f"{name} is {counted(verdicts, 'parts')}")
        if counts:
            said.append(f"{where}{',' if tune else ''} {'; '.join(counts)}.")
    return made(
        "Multimodal accuracy: do unimodal losses raise it, does conventional Pareto lower it, and "
        "does MMPareto raise it further?",
        " ".join(said),
        details,
        FAMILY,
        evidence.begun(lambda part: part.joint is not None),
    )


def encoders(evidence: Evidence) -> Claim:
    """Each encoder's own accuracy under mmpareto: above sum's, and above the encoder alone."""
    details: list[str] = []
    above_sum: list[str] = []
    above_alone: list[str] = []
    for part in evidence.parts:
        for name in part.modalities:
            found = [
                (evidence.against(part, PARETO, other, name), other)
                for other in (SUM, f"alone: {name}")
            ]
            pieces = [f"{measured(x, evidence.unit(part, name))} to {o}" for x, o in found if x]
            if pieces:
                details.append(f"{titled(part)}, {name}: mmpareto {'; '.join(pieces)}.")
            for (x, _), kept in zip(found, (above_sum, above_alone), strict=True):
                if x is not None and part.tune:
                    kept.append(_sign(x.interval, evidence.better(part, name)))
    counts = [
        f"{kept.count('above')} of {len(kept)} are above {what}, {kept.count('below')} below"
        for kept, what in ((above_sum, "sum's"), (above_alone, "the same encoder trained alone"))
        if kept
    ]
    return made(
        "Each encoder's accuracy: does MMPareto raise it above sum's, and above an encoder that "
        "is trained alone?",
        f"Of the figures of single encoders at tuned rates {'; '.join(counts)}; for the others "
        "the interval includes 0.",
        details,
        DESCRIBED,
        evidence.begun(lambda part: bool(part.modalities)),
    )


def guarded(evidence: Evidence) -> Claim:
    """Whether correcting the optimizer's steps gains anything, each strategy against itself."""
    details, found = [], []
    for part in evidence.parts:
        for strategy in part.guarded:
            x = evidence.pair(part, strategy + GUARD, strategy)
            if x is not None:
                found.append((f"{part.name} ({strategy})", x))
                numbers = measured(x, evidence.unit(part))
                details.append(f"{part.name}: {strategy} with the guard {x.verdict} ({numbers}).")
    verdicts = [x.verdict for _, x in found]
    return made(
        "Does correcting the steps after the optimizer (the guard) gain anything?",
        f"{_lead(verdicts)}with the guard a strategy is {counted(verdicts, 'cases', 'in')}, "
        f"compared with itself without it.{small(found)}",
        details,
        DESCRIBED,
        evidence.begun(lambda part: bool(part.guarded)),
    )


def difficulty(evidence: Evidence) -> Claim:
    """Two tasks of unlike difficulty on one trunk."""
    details, verdicts = [], []
    for part in evidence.parts:
        if part.hard is None:
            continue
        for strategy in (PARETO, CONVENTIONAL, "mgda"):
            x = evidence.against(part, strategy)
            if x is None:
                continue
            if strategy == PARETO:
                verdicts.append(x.verdict)
            hard = evidence.against(part, strategy, objective=part.hard)
            more = f"; {part.hard} alone {measured(hard, 'points')}" if hard else ""
            details.append(
                f"{part.name}: {strategy} against sum {x.verdict} "
                f"({measured(x, evidence.unit(part))}{more})."
            )
    return made(
        "Difficulty difference: does MMPareto gain where one of two tasks is made harder?",
        f"{_lead(verdicts)}mmpareto against sum is {counted(verdicts, 'parts')}.",
        details,
        FAMILY,
        evidence.begun(lambda part: part.hard is not None),
    )


def crossed(evidence: Evidence) -> Claim:
    """A shared transformer, where more than two objectives reach one group."""
    parts = [part for part in evidence.parts if part.tier == "cross"]
    verdicts, details = [], []
    for baseline in (SUM, SCALED):
        found, said = _compared(evidence, parts, PARETO, baseline)
        verdicts += found if baseline == SUM else []
        details += said
    return made(
        "In a cross-modal transformer, where three objectives reach one group, does MMPareto gain?",
        f"{_lead(verdicts)}mmpareto against sum is {counted(verdicts, 'parts')}.",
        details,
        FAMILY,
        evidence.begun(lambda part: part.tier == "cross"),
    )


def predicted(evidence: Evidence, prediction: Prediction) -> Claim:
    """Whether a verdict came out as declared."""
    details, right = [], 0
    for part in evidence.parts:
        if part.name not in prediction.parts:
            continue
        for name in prediction.strategies:
            x = evidence.against(part, part.joint or "" if name == JOINT_ONLY else name)
            if x is not None:
                right += x.verdict == prediction.verdict
                numbers = measured(x, evidence.unit(part))
                details.append(f"{part.name}: {name} is {x.verdict} ({numbers}).")
    declared = len(prediction.parts) * len(prediction.strategies)
    others = declared - len(details)
    return made(
        f"Predicted beforehand: {joined(prediction.strategies)} {prediction.verdict} against sum. "
        "Did it come out so?",
        f"In {right} of {len(details)} cases."
        + (f" {others} of the {declared} that were declared have no verdict." if others else ""),
        details,
        FAMILY,
        evidence.begun(lambda part: part.name in prediction.parts),
    )


def _compared(
    evidence: Evidence, parts: Iterable[Part], strategy: str, baseline: str
) -> tuple[list[str], list[str]]:
    """The verdict of each part, and a sentence of each."""
    verdicts, details = [], []
    for part in parts:
        x = evidence.against(part, strategy, baseline)
        if x is not None:
            verdicts.append(x.verdict)
            said = _reversed(evidence, part, x, baseline)
            details.append(f"{titled(part)}: {x.sentence}{said}")
    return verdicts, details


def _reversed(evidence: Evidence, part: Part, x: Comparison, baseline: str) -> str:
    """A sentence where the validation figures of the same runs say the opposite.

    Every seed is judged on one test set, so that a difference may be that set's own.
    """
    other = evidence.pair(part, x.strategy, baseline, "validation")
    if x.mean is None or other is None or other.mean is None or other.interval is None:
        return ""
    low, high = other.interval
    if low <= 0 <= high or x.mean * other.mean >= 0:
        return ""
    return (
        " On the validation data of the same runs the difference has the other sign: "
        f"{measured(other, evidence.unit(part))}."
    )


def _lead(verdicts: Sequence[str]) -> str:
    if not verdicts:
        return ""
    better = verdicts.count("better")
    word = "Yes" if better == len(verdicts) else "On some parts" if better else "No"
    return f"{word}: "


def _sign(interval: tuple[float, float] | None, better: str) -> str:
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "level"
    return "above" if (interval[0] > 0) == (better == "higher") else "below"
