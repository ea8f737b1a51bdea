"""A picture per strategy: its direction for two gradients, over the angle between them.

The build draws those whose directions have changed since they were drawn.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch

import gradsurgery as gs
from gradsurgery.contract import Strategy

LENGTHS = 1.0, 2.0
ANGLES = tuple(range(0, 181, 6))
SHOWN = 132  # degrees between the gradients of the panel with arrows
DRAWING = 4  # to be raised when the pictures are drawn in another way
FIRST, SECOND, OURS, PLAIN = "#1f77b4", "#d95f02", "black", "#999999"


def pair(angle: float) -> torch.Tensor:
    """Two gradients with this angle between them, in degrees: rows, alike on both sides of x."""
    half = math.radians(angle) / 2
    rows = [
        [n * math.cos(half), n * sign * math.sin(half)]
        for n, sign in zip(LENGTHS, (1, -1), strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def direction(strategy: Strategy, gradients: torch.Tensor) -> torch.Tensor:
    """What it makes of them in a first step with losses of 1, and the same from every batch.

    Raises:
        InputError: where it cannot do anything with two gradients.
    """
    bound = strategy.with_options(**dict.fromkeys(strategy.required, "0"))
    inputs: dict[str, Any] = {"losses": [1.0, 1.0], "scores": {"all": 2.0, "other": 1.0}}
    if "state" in bound.inputs:
        inputs["state"] = gs.State()
    batches = gradients.expand(3, *gradients.shape) if "cross" in bound.inputs else gradients
    return bound(batches, **inputs)


def cannot(strategy: Strategy) -> str:
    """Why there is no picture; empty where there is one."""
    try:
        direction(strategy, pair(90.0))
    except gs.InputError as error:
        return str(error)
    return ""


def directions(strategy: Strategy) -> list[list[float]]:
    """Its direction at each of the angles."""
    return [[x + 0.0 for x in direction(strategy, pair(a)).tolist()] for a in ANGLES]


def draw_pictures(folder: Path, strategies: list[Strategy]) -> list[str]:
    """Draw what has changed into the folder, and say what that was."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "drawn.json"
    before = json.loads(kept.read_text()) if kept.is_file() else {}
    after, drawn = {}, []
    for strategy in strategies:
        if cannot(strategy):
            continue
        found = directions(strategy)
        said = json.dumps([DRAWING, [[round(x, 6) for x in d] for d in found]])
        after[strategy.name] = hashlib.sha256(said.encode()).hexdigest()
        path = folder / f"{strategy.name}.svg"
        if before.get(strategy.name) != after[strategy.name] or not path.is_file():
            _draw(found, path)
            drawn.append(strategy.name)
    kept.write_text(json.dumps(after, indent=0))
    return drawn


def _draw(found: list[list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    settings = {"svg.fonttype": "none", "svg.hashsalt": "gradsurgery", "font.size": 9}
    with matplotlib.rc_context(settings):
        figure = Figure((5.6, 2.5), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
        _arrows(left, found[ANGLES.index(SHOWN)])
        _progress(right, found)
        figure.savefig(path, metadata={"Date": None})


def _arrows(axes: Any, ours: list[float]) -> None:
    first, second = pair(SHOWN).tolist()
    total = [a + b for a, b in zip(first, second, strict=True)]
    length = math.hypot(*ours)
    longest = max(LENGTHS)
    scale = 1.0 if 0.25 <= length <= longest or length == 0 else longest / length
    shown = [scale * x for x in ours]
    for (x, y), colour, name in (
        (total, PLAIN, "sum"), (first, FIRST, "g\u2081"), (second, SECOND, "g\u2082"),
        (shown, OURS, "d" if scale == 1.0 else "d, rescaled"),
    ):  # fmt: skip
        if math.hypot(x, y) > 1e-9:
            style = {"arrowstyle": "-|>", "color": colour, "lw": 1.6, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (x, y), (0, 0), arrowprops=style)
        side = "left" if x > abs(y) else "center"
        axes.text(1.06 * x, 1.1 * y, name, color=colour, ha=side, va="center")
    points = [first, second, total, shown, [0.0, 0.0]]
    for set_limits, values in ((axes.set_xlim, [p[0] for p in points]),
                               (axes.set_ylim, [p[1] for p in points])):  # fmt: skip
        set_limits(min(values) - 0.35, max(values) + 0.45)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(f"at {SHOWN}°", fontsize=9)


def _progress(axes: Any, found: list[list[float]]) -> None:
    gradients = [pair(angle).tolist() for angle in ANGLES]
    for i, colour in enumerate((FIRST, SECOND)):
        unit = [[x / LENGTHS[i] for x in rows[i]] for rows in gradients]
        sums = [[a + b for a, b in zip(*rows, strict=True)] for rows in gradients]
        for values, style in ((sums, {"color": colour, "lw": 0.9, "ls": ":"}),
                              (found, {"color": colour, "lw": 1.8})):  # fmt: skip
            along = [u[0] * d[0] + u[1] * d[1] for u, d in zip(unit, values, strict=True)]
            axes.plot(ANGLES, along, **style)
        axes.plot([], [], color=colour, label=f"along g{chr(0x2081 + i)}")
    low, high = axes.get_ylim()
    axes.axhspan(min(low, -0.05 * (high - low)), 0, color="#f3d9d9", zorder=0, lw=0)
    axes.set_ylim(min(low, -0.05 * (high - low)), high)
    axes.set_xlim(0, 180)
    axes.set_xticks([0, 45, 90, 135, 180])
    axes.set_xlabel("angle between the gradients, in degrees")
    axes.legend(frameon=False, fontsize=8, handlelength=1.2, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)
