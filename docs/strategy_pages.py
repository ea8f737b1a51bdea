"""One page per strategy, their table, the README's, and the table of inputs, from the registry.

`python docs/strategy_pages.py` renews the README.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import gradsurgery as gs
from gradsurgery.contract import Strategy
from gradsurgery.contract.inputs import INPUTS
from gradsurgery.contract.registry import registered

SOURCES = {
    "gradients": "the gradients",
    "losses": "the losses",
    "call": "what the user's call gives",
    "surgery": "the Surgery",
}


def link(paper: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", paper)


def shipped() -> list[Strategy]:
    """The strategies that come with the library."""
    return [s for s in map(registered, gs.strategy_names()) if s.shipped]


def remembers(strategy: Strategy) -> bool:
    """Whether it keeps a state, so that its claims speak of a first step."""
    named = (
        inspect.signature(strategy.function).parameters if strategy.required else strategy.inputs
    )
    return "state" in named


DEGENERATE = {
    "all gradients zero": [[0.0, 0.0]] * 4,
    "one objective, (1, 2)": [[1.0, 2.0]],
    "four equal ones, (1, 2)": [[1.0, 2.0]] * 4,
    "two pairs of opposite ones, ±(1, 2)": [[1.0, 2.0], [-1.0, -2.0]] * 2,
    "(1, 0), (0, 1), (1, 1) and zero": [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]],
    "those times 1e-20": [[1e-20, 0.0], [0.0, 1e-20], [1e-20, 1e-20], [0.0, 0.0]],
}


def degenerate(strategy: Strategy) -> list[tuple[str, str]]:
    """What it makes of degenerate gradients, with losses of 1, in a first step.

    That is the direction, or why there is none.
    """
    bound = strategy.with_options(**dict.fromkeys(strategy.required, "0"))
    found = []
    for case, rows in DEGENERATE.items():
        given = torch.tensor(rows, dtype=torch.float64)
        inputs: dict[str, Any] = {"losses": [1.0] * len(rows), "scores": {"all": 2.0, "other": 1.0}}
        if "state" in bound.inputs:
            inputs["state"] = gs.State()
        try:
            direction = bound(
                given.expand(3, *given.shape) if "cross" in bound.inputs else given, **inputs
            ).tolist()
            found.append((case, "(" + ", ".join(f"{x + 0.0:.4g}" for x in direction) + ")"))
        except gs.InputError as error:
            found.append((case, f"an error: {error}"))
    return found


def readme_table() -> str:
    """The README's table: name, what it does, when it is non-conflicting, source."""
    lines = ["| name | what it does | non-conflicting | source |", "|---|---|---|---|"]
    for strategy in shipped():
        safe = [
            claim.condition or "yes" for claim in strategy.claims if claim.name == "non-conflicting"
        ]
        if safe and remembers(strategy):
            safe[-1] += ", from a fresh state"
        paper = re.sub(r"arXiv:(\d{4}\.\d{5})", r"[\1](https://arxiv.org/abs/\1)", strategy.source)
        when = "; ".join(dict.fromkeys(safe))
        lines.append(f"| `{strategy.name}` | {strategy.summary} | {when} | {paper} |")
    return "\n".join(lines)


def renew_readme(text: str) -> str:
    """The README with a new table of strategies."""
    return re.sub(
        r"\| name \| what it does \|.*?(?=\n\n)",
        lambda _: readme_table(),
        text,
        count=1,
        flags=re.S,
    )


def write_pages(docs: Path) -> list[Path]:
    """Write `strategies/index.rst`, `strategies/NAME.rst` and the table `strategies/inputs.inc`.

    Pages of strategies that are gone are removed.
    """
    environment = Environment(
        loader=FileSystemLoader(docs / "_templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = link
    folder = docs / "strategies"
    folder.mkdir(exist_ok=True)
    texts = {"index": environment.get_template("strategies.rst.jinja").render(strategies=shipped())}
    for strategy in shipped():
        names = [
            n
            for n, p in inspect.signature(strategy.function).parameters.items()
            if p.kind is not p.KEYWORD_ONLY
        ]
        inputs = [(name, name in strategy.inputs) for name in names]
        path = f"{strategy.function.__module__}.{strategy.function.__name__}"
        texts[strategy.name] = environment.get_template("strategy.rst.jinja").render(
            strategy=strategy,
            inputs=inputs,
            path=path,
            degenerate=degenerate(strategy),
            remembers=remembers(strategy),
        )
    inputs_table = environment.get_template("inputs.rst.jinja").render(
        inputs=INPUTS.values(), sources=SOURCES
    )
    _write(folder / "inputs.inc", inputs_table)
    for old in folder.glob("*.rst"):
        if old.stem not in texts:
            old.unlink()
    for name, text in texts.items():
        _write(folder / f"{name}.rst", text)
    return sorted(folder.glob("*.rst"))


def _write(path: Path, text: str) -> None:
    """Write what changed: only that is built again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    readme = Path(__file__).parent.parent / "README.md"
    readme.write_text(renew_readme(readme.read_text()))
