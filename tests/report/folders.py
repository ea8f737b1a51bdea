"""Folders of comparisons: with everything that a report can show, and with little."""

from tests.support.rows import failed, known, row, setup, write

RATES = (0.05, 0.1, 0.2)
ALONE = {"alone: left": ["left"], "alone: right": ["right"]}
FIXED = ("constant(preference={'left': 1.0, 'right': 0.5})", "constant(preference={'right': 4.0})")


def whole(folder):
    """Tuned, with baselines, controls, failures, step times and rows of two machines."""
    lines = known()
    lines[0] |= {"seeds": list(range(8)), "tune": {"seeds": [1000]}, "baselines": "auto"}
    lines[0]["strategies"] = {name: {"name": name} for name in ("gains", "loses", "near")}
    for line in lines:
        if line.get("strategy") in ("sum", "scaled-sum"):
            line["kind"] = "control"
    for seed in range(8):
        for k, label in enumerate(FIXED):
            figures = {"left": 89.0 - k + seed, "right": 49.0 + k}
            lines.append(row("digits", label, seed, figures, kind="control", load=3.0 + seed))
        for label, only in ALONE.items():
            figures = {"left": None, "right": None} | {only[0]: 40.0 + seed}
            lines.append(row("digits", label, seed, figures, kind="alone", only=only))
    lines.append(failed("digits", "gains", 9))
    labels = list(dict.fromkeys(line["strategy"] for line in lines[1:]))
    for k, label in enumerate(labels):
        figures = {str(lr): 90.0 - k - j for j, lr in enumerate(RATES)}
        for lr in RATES:
            given = {"left": figures[str(lr)], "right": 1.0}
            lines.append(row("digits", label, 1000, given, kind="tune", lr=lr, test=None))
        lines.append(
            {"kind": "choice", "task": "digits", "strategy": label, "optimizer": None, "lr": 0.1,
             "rates": list(RATES), "figures": figures, "seeds": [1000], "rule": "the best & only",
             "edge": "high" if label == "near" else None, "frequency": {"0.1": 0.75}}
        )  # fmt: skip
    times = {label: {"median": 0.02, "low": 0.01, "high": 0.03} for label in labels}
    lines.append({"kind": "timing", "task": "digits", "baseline": "sum", "times": times})
    write(folder, lines[:20])
    return write(folder, lines[20:], "rows-there.jsonl")


def little(folder):
    """Folders by name: untuned, partial, of one seed, with every run failed, with hostile names."""
    partial = known()[:-3]
    partial[0] |= {"seeds": list(range(8)), "strategies": {"unclear": {}, "mgda": {}}}
    lost = [setup(digits={}), *(failed("digits", name, 0) for name in ("sum", "mgda"))]
    odd = "<script>alert('x')</script>|"
    hostile = [row("digits", name, s, {odd: s + 0.5}) for s in (0, 1) for name in ("sum", odd)]
    made = {
        "untuned": known(strategies=("sum", "gains")),
        "partial": partial,
        "one seed": known(seeds=1),
        "all failed": lost,
        "hostile": hostile,
        "no setup": known()[1:],
        "lower": known(sign=-1, delta=None, unit="", ratio=0.25),
    }
    return {name: write(folder / name, lines) for name, lines in made.items()}
