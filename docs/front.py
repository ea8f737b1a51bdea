"""The picture of the README and the start page, and what the README's first step prints.

`python docs/front.py` renews front.png and the README.
"""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import torch

import gradsurgery as gs

HERE = Path(__file__).parent
STRATEGIES = ("sum", "pcgrad", "upgrad", "mgda", "nash-mtl", "mmpareto(gamma=1.0)")
AT = {"calm": (1.0, 18.0), "loud": (2.2, 150.0)}  # length, angle in degrees
COLOURS = {
    "calm": "#1f77b4",
    "loud": "#d95f02",
    "safe": "#bfe3c6",
    "d": "#111111",
    "bad": "#c1121f",
}


def gradients() -> dict[str, list[float]]:
    """The two gradients, by name: a short one and a long one that conflict."""
    found = {}
    for name, (length, angle) in AT.items():
        turn = np.deg2rad(angle)
        found[name] = [length * float(np.cos(turn)), length * float(np.sin(turn))]
    return found


def directions() -> dict[str, list[float]]:
    """What each strategy makes of them."""
    rows = torch.tensor(list(gradients().values()), dtype=torch.float64)
    return {name: gs.get_strategy(name)(rows).tolist() for name in STRATEGIES}


def conflicts(direction: list[float]) -> list[str]:
    """The names of the gradients that a direction conflicts with."""
    given = gradients().items()
    return [name for name, g in given if np.dot(g, direction) < -1e-9 * np.linalg.norm(g)]


def draw(path: Path) -> None:
    """A panel per strategy, on a light card, so that it reads on light and dark pages."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Wedge

    figure = Figure(figsize=(10.5, 6.4), dpi=110, facecolor="#fbfaf7", layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    low, high = AT["loud"][1] - 90, AT["calm"][1] + 90  # no product with either is negative there
    for axes, (name, d) in zip(figure.subplots(2, 3).flat, directions().items(), strict=True):
        axes.set_facecolor("#fbfaf7")
        axes.add_patch(Wedge((0, 0), 2.5, low, high, color=COLOURS["safe"], lw=0))
        bad = conflicts(d)
        arrows = [(*pair, COLOURS[pair[0]], 2.5) for pair in gradients().items()]
        arrows.append(("d", d, COLOURS["bad" if bad else "d"], 4.0))
        for label, (x, y), colour, width in arrows:
            style = {"arrowstyle": "-|>", "color": colour, "lw": width, "mutation_scale": 20}
            axes.annotate("", (x, y), (0, 0), arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
            place = np.array([x, y]) * (1 + 0.22 / np.hypot(x, y))
            axes.text(*place, label, color=colour, ha="center", va="center", fontsize=12)
        said = f"conflicts with {' and '.join(bad)}" if bad else "conflicts with none"
        axes.set_title(name, fontsize=14, fontweight="bold", color="#111111")
        axes.text(0.5, -0.02, said, transform=axes.transAxes, ha="center", va="top", fontsize=12,
                  color=COLOURS["bad"] if bad else "#1b6b36")  # fmt: skip
        axes.set(xlim=(-2.5, 1.8), ylim=(-0.35, 2.6), aspect="equal")
        axes.axis("off")
    figure.savefig(path, facecolor=figure.get_facecolor())


STEP = re.compile(r"(## A first step\n.*?```python\n)(.*?)(```.*?```text\n)(.*?)(```)", re.S)


def printed(readme: str) -> str:
    """What the README's first program prints."""
    found = STEP.search(readme)
    assert found is not None, "the README has no first step"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(found[2], "README.md", "exec"), {"__name__": "readme"})
    return out.getvalue()


def renewed(readme: str) -> str:
    """The README with what its first program prints now."""
    now = printed(readme)
    return STEP.sub(lambda found: found[1] + found[2] + found[3] + now + found[5], readme)


if __name__ == "__main__":
    draw(HERE / "front.png")
    front = HERE.parent / "README.md"
    front.write_text(renewed(front.read_text()))
