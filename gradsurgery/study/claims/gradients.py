"""The claims about gradients: early conflict, and Assumption 1, on trajectories of `sum`."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gradsurgery.study.claims.claim import Claim, made
from gradsurgery.study.evidence import Evidence

USED = "gradsurgery.diagnose at steps of trajectories of sum, pairs of a joint and another loss"
EVERY = "gradsurgery.diagnose at steps of trajectories of sum, all pairs"
BEYOND = "conflict beyond noise"
Pairs = list[dict[str, Any]]
Rates = tuple[int, int, float, float]  # pairs beyond noise, pairs, conflict rate, its control


def conflict(evidence: Evidence) -> Claim:
    """Whether objectives conflict early in training, beside the control of one loss."""
    details: list[str] = []
    early: list[Rates] = []
    late: list[Rates] = []
    first: list[float] = []
    for part, steps in _steps(evidence):
        for number, (step, loss, pairs) in enumerate(steps):
            beyond = sum(pair["verdict"] == BEYOND for pair in pairs)
            rate, control = _mean(pairs, "conflict"), _mean(pairs, _control)
            details.append(
                f"{part}, step {step} (loss at {loss:.0%} of the start): {rate:.0%} of batches "
                f"conflict, {control:.0%} of two batches of one loss; cosine of the mean "
                f"gradients {_mean(pairs, 'cosine'):+.2f}; beyond noise in {beyond} of "
                f"{len(pairs)} pairs."
            )
            (early if number == 0 else late).append((beyond, len(pairs), rate, control))
            first += _values(pairs, "cosine") if number == 0 else []
    mean = f"{statistics.fmean(first):+.2f}" if first else "unknown"
    return made(
        "Do objectives conflict early in training, more than two batches of one loss do?",
        f"At the first step {_share(early)}; later {_share(late)}. The cosine of the mean "
        f"gradients at the first step is {mean}; where it is 0, noise alone makes half the "
        "batches conflict.",
        details,
        EVERY,
        evidence.measuring("diagnosis"),
    )


def assumption(evidence: Evidence) -> Claim:
    """Assumption 1: unimodal gradients are longer, and noisier, than the joint one."""
    details = []
    counts = {"magnitude": [0, 0, 0], "noise": [0, 0, 0]}  # holds, fails, of
    start: Pairs = []
    for part, steps in _steps(evidence):
        for step, loss, pairs in steps:
            held = [pair for pair in pairs if pair.get("assumption")]
            if not held:
                continue
            said = []
            for name in counts:
                holds = sum(pair["assumption"][name] == "holds" for pair in held)
                fails = sum(pair["assumption"][name] == "fails" for pair in held)
                said.append(f"{name} holds in {holds} and fails in {fails} of {len(held)}")
                if step > 0:
                    counts[name][0] += holds
                    counts[name][1] += fails
                    counts[name][2] += len(held)
            start += held if step == 0 else []
            root = statistics.fmean(pair["root"] for pair in held)
            details.append(
                f"{part}, step {step} (loss at {loss:.0%} of the start): {'; '.join(said)}. Median "
                f"ratio unimodal over joint: length {_median(held, 'length_ratio'):.2f} "
                f"(√M = {root:.2f}), tr Cov {_median(held, 'covariance_ratio'):.2f}, relative "
                f"noise {_median(held, 'noise_ratio'):.2f}."
            )
    answer = "; ".join(
        f"{what} holds in {counts[name][0]} and fails in {counts[name][1]} of {counts[name][2]}"
        for name, what in (("magnitude", "the larger length"), ("noise", "larger relative noise"))
    )
    before = ""
    if start:
        root = statistics.fmean(pair["root"] for pair in start)
        before = (
            f" At step 0, with initial weights, the median ratio of lengths is "
            f"{_median(start, 'length_ratio'):.2f}, and √M is {root:.2f}."
        )
    return made(
        "Assumption 1: are unimodal gradients longer than the joint one, and noisier?",
        f"After the first step, over parts, steps, seeds and encoders: {answer} cases.{before}",
        details,
        USED,
        evidence.measuring("diagnosis"),
    )


def _steps(evidence: Evidence) -> Iterator[tuple[str, list[tuple[int, float, Pairs]]]]:
    """Per part: step, mean share of the loss at the start, and the pairs of all seeds."""
    for part in evidence.declaration.parts:
        found: dict[int, list[dict[str, Any]]] = {}
        for line in evidence.other("diagnosis"):
            if line["part"] == part.name:
                for at in line["steps"]:
                    found.setdefault(at["step"], []).append(at)
        if found:
            yield (
                part.name,
                [
                    (
                        step,
                        statistics.fmean(at["share"] for at in seen),
                        [pair for at in seen for pair in at["pairs"]],
                    )
                    for step, seen in sorted(found.items())
                ],
            )


def _control(pair: dict[str, Any]) -> float:
    return statistics.fmean(pair["control"])


def _values(pairs: Pairs, what: str | Callable[[dict[str, Any]], float]) -> list[float]:
    values = [what(pair) if callable(what) else pair[what] for pair in pairs]
    return [value for value in values if value is not None]


def _mean(pairs: Pairs, what: str | Callable[[dict[str, Any]], float]) -> float:
    values = _values(pairs, what)
    return statistics.fmean(values) if values else float("nan")


def _median(pairs: Pairs, what: str) -> float:
    values = _values(pairs, what)
    return statistics.median(values) if values else float("nan")


def _share(found: Sequence[Rates]) -> str:
    pairs = sum(n for _, n, _, _ in found)
    if not pairs:
        return "nothing was measured"
    rate = sum(n * r for _, n, r, _ in found) / pairs
    control = sum(n * c for _, n, _, c in found) / pairs
    return (
        f"{rate:.0%} of batches conflict beside {control:.0%} for one loss, and "
        f"{sum(b for b, *_ in found)} of {pairs} pairs conflict beyond noise"
    )
