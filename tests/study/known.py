"""Rows of a study with known differences, without any training."""

import json

import numpy as np

from gradsurgery.study import Evidence
from gradsurgery.study.whole import declared_labels

METRIC = {"name": "accuracy", "unit": "%", "higher": True, "chance": 10.0}
STARTED = "2026-05-01T10:00:00+0000"


def rows(part, shifts, *, sd=0.2, objectives=None, seeds=None):
    """Rows of a part in which strategies differ from sum by `shifts` in the primary figure.

    Args:
        part: of the declaration.
        shifts: strategy -> mean difference, or objective -> mean difference.
        sd: of the differences.
        objectives: names of the figures; the primary one and the modalities by default.
        seeds: how many; all by default.
    """
    generator = np.random.default_rng(3)
    names = objectives or (part.primary, *part.modalities)
    count = part.seeds if seeds is None else seeds
    base = 80 + generator.normal(size=(count, len(names)))
    lines = []
    for label, shift in {"sum": 0.0, **shifts}.items():
        noise = generator.normal(size=(count, len(names)))
        noise = (noise - noise.mean(0)) / noise.std(0, ddof=1) * sd
        for i, seed in enumerate(part.reported[:count]):
            figures = {}
            for j, name in enumerate(names):
                own = shift.get(name, 0.0) if isinstance(shift, dict) else shift
                figures[name] = base[i, j] + (own + noise[i, j] if label != "sum" else 0.0)
            if label.startswith("alone: ") and label != part.joint:
                only = label.removeprefix("alone: ")
                figures = {name: x if name == only else None for name, x in figures.items()}
            lines.append(
                {
                    "kind": "alone" if label.startswith("alone") else "run",
                    "key": f"{part.name} {label} {seed}",
                    "task": part.task,
                    "strategy": label,
                    "seed": seed,
                    "lr": 0.1,
                    "started": STARTED,
                    "validation": figures,
                    "test": figures,
                    "metrics": dict.fromkeys(names, METRIC),
                    "better": dict.fromkeys(names, "higher"),
                    "seconds": 10.0,
                    "cpu_seconds": 9.0,
                }
            )
    return lines


def choice(part, strategy, lr, figures, edge=None):
    """The line about a learning rate."""
    return {
        "kind": "choice",
        "task": part.task,
        "strategy": strategy,
        "optimizer": part.optimizer,
        "lr": lr,
        "rates": sorted(figures),
        "figures": {str(rate): x for rate, x in figures.items()},
        "edge": edge,
        "rule": "the best",
        "seeds": [1000, 1001, 1002],
        "frequency": {str(rate): float(rate == lr) for rate in figures},
    }


def flat(part, strategy, values):
    """Lines of flatness, one per seed."""
    return [
        {
            "kind": "flatness",
            "key": f"{strategy} {seed}",
            "part": part.name,
            "strategy": strategy,
            "seed": seed,
            "eigenvalue": value,
            "converged": True,
            "loss": 1.0,
            "started": STARTED,
            "seconds": 5.0,
            "cpu_seconds": 4.0,
        }
        for seed, value in zip(part.reported, values, strict=False)
    ]


def diagnosis(part, steps):
    """A line of diagnoses: step -> (share of the loss, conflict, control, verdict, holds)."""

    def pair(conflict, control, verdict, holds):
        return {
            "group": "audio+fused",
            "first": "audio",
            "second": "fused",
            "verdict": verdict,
            "conflict": conflict,
            "control": [control, control],
            "cosine": 0.1,
            "length_ratio": 1.4,
            "covariance_ratio": 2.0,
            "noise_ratio": 0.8,
            "root": 2**0.5,
            "assumption": {"magnitude": holds, "covariance": "holds", "noise": "fails"},
        }

    return {
        "kind": "diagnosis",
        "key": f"{part.name} diagnosis",
        "part": part.name,
        "strategy": "sum",
        "seed": 100,
        "started": STARTED,
        "seconds": 5.0,
        "cpu_seconds": 4.0,
        "steps": [
            {"step": step, "share": share, "losses": {}, "pairs": [pair(*rest)]}
            for step, (share, *rest) in steps.items()
        ],
    }


def stamp(declaration, **more):
    """The stamp of a start after the declaration was committed."""
    return {
        "kind": "declared",
        "digest": declaration.digest,
        "commit": "0123456789abcdef",
        "committed": "2026-04-30T10:00:00+00:00",
        "changed": False,
        "started": STARTED,
        "tiers": ["fast"],
        **more,
    }


def evidence(declaration, lines, measured=(), stamps=None, whole=True):
    """As it would be read.

    Args:
        declaration: what was declared.
        lines: part -> its rows.
        measured: lines of other measurements.
        stamps: of the starts; one by default.
        whole: whether what is declared and not there is filled up with rows that failed.
    """
    given = [stamp(declaration)] if stamps is None else stamps
    found = json.loads(json.dumps([lines, list(measured)]))
    made = Evidence(declaration, found[0], found[1], given)
    if whole:
        for part in declaration.parts:
            _fill(made, part)
    return made


def _fill(made, part):
    """Rows with an error for what a part lacks, where it has any."""
    wrong = {"error": "NonFiniteError: no", "started": STARTED, "part": part.name, "lr": 0.1}
    lines, how = made.lines.get(part.name, []), made.declaration.measured
    if any("test" in line for line in lines):
        there = {(line["strategy"], line.get("seed")) for line in lines}
        for label in declared_labels(part, lines):
            lines += [
                {**wrong, "kind": "run", "strategy": label, "seed": seed}
                for seed in part.reported
                if (label, seed) not in there
            ]
    for kind in {line["kind"] for line in made.measured if line["part"] == part.name}:
        labels = how.flat if kind == "flatness" else ["sum"]
        there = {(line["kind"], line["strategy"], line["seed"]) for line in made.measured}
        more = [
            {**wrong, "kind": kind, "strategy": label, "seed": seed}
            for label in labels
            for seed in part.reported[: how.seeds]
            if (kind, label, seed) not in there
        ]
        made.measured.extend(more)
