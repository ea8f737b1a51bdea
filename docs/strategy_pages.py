"""A page per strategy and per family, their table, the README's, and that of inputs.

All from the registry and from what each strategy's file says of it.

`python docs/strategy_pages.py` renews the README.
"""

import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from choosing import bound, memory, passes
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from strategy_pictures import cannot
from strategy_results import results_of

import gradsurgery as gs
from gradsurgery.contract import Strategy
from gradsurgery.contract.about import FAMILIES
from gradsurgery.contract.catalogue import explanations
from gradsurgery.contract.inputs import INPUTS
from gradsurgery.contract.options import describe_annotation
from gradsurgery.contract.registry import registered
from gradsurgery.study import DECLARATION, Evidence, read_evidence

HERE = Path(__file__).parent
SCALES = {
    "sum": "that of the sum of the gradients",
    "mean": "that of their mean",
    "convex": "the weights sum to one",
    "own": "the method's own",
}

SOURCES = {
    "gradients": "the gradients",
    "losses": "the losses",
    "call": "what the user's call gives",
    "surgery": "the Surgery",
}


def link(paper: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", paper)


def cells(text: str) -> str:
    """Code in single backquotes, and bars, as a cell of a table has to have them."""
    return text.replace("`", "``").replace("|", r"\|").replace("*", r"\*")


class Family(NamedTuple):
    """Strategies that have something in common.

    Attributes:
        page: the name of its page.
        title: as the side bar has it.
        sentence: what they have in common.
        strategies: which.
    """

    page: str
    title: str
    sentence: str
    strategies: list[Strategy]


def families() -> list[Family]:
    """The families, each with those of its strategies that ship."""
    made = []
    for name, (title, sentence) in FAMILIES.items():
        found = [s for s in shipped() if s.about.family == name]
        made.append(Family(f"family-{name.replace(' ', '-')}", title, sentence, found))
    return made


def options_of(strategy: Strategy) -> list[tuple[str, str, str, str]]:
    """Name, what it may be, default and meaning of each option: `gradsurgery describe`'s."""
    explained = explanations(strategy.description)
    return [
        (
            name,
            cells(describe_annotation(strategy.annotations.get(name))),
            "required" if default is inspect.Parameter.empty else f"``{default!r}``",
            explained.get(name, ""),
        )
        for name, default in strategy.defaults.items()
    ]


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


def write_pages(docs: Path, evidence: Evidence | None = None) -> list[Path]:
    """Write the pages below `strategies`: index, one per family, one per strategy, `inputs.inc`.

    Pages of strategies and families that are gone are removed.
    """
    if evidence is None:
        evidence = read_evidence(DECLARATION, HERE / "results" / "rows")
    environment = Environment(
        loader=FileSystemLoader(docs / "_templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(link=link, cells=cells)
    folder = docs / "strategies"
    folder.mkdir(exist_ok=True)
    made = families()
    texts = {"index": environment.get_template("strategies.rst.jinja").render(families=made)}
    for family in made:
        texts[family.page] = environment.get_template("family.rst.jinja").render(family._asdict())
        for strategy in family.strategies:
            texts[strategy.name] = environment.get_template("strategy.rst.jinja").render(
                facts_of(strategy, family, evidence)
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


def facts_of(strategy: Strategy, family: Family, evidence: Evidence) -> dict[str, Any]:
    """What the page of a strategy is made from."""
    parameters = inspect.signature(strategy.function).parameters.items()
    names = [n for n, p in parameters if p.kind is not p.KEYWORD_ONLY]
    chosen = bound(strategy.name)
    papers = strategy.about.papers
    return {
        "strategy": strategy,
        "about": strategy.about,
        "family": family.title,
        "family_page": family.page,
        "inputs": [(name, name in strategy.inputs) for name in names],
        "options": options_of(strategy),
        "path": f"{strategy.function.__module__}.{strategy.function.__name__}",
        "degenerate": degenerate(strategy),
        "remembers": remembers(strategy),
        "passes": passes(chosen),
        "memory": memory(chosen),
        "scale": SCALES[strategy.scale],
        "undrawn": cannot(strategy),
        "coordinates": "rows" in chosen.inputs,
        "results": results_of(evidence, strategy.name),
        "keys": [strategy.name + (f"-{i}" if i else "") for i in range(len(papers))],
    }


def _write(path: Path, text: str) -> None:
    """Write what changed: only that is built again."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


if __name__ == "__main__":
    readme = Path(__file__).parent.parent / "README.md"
    readme.write_text(renew_readme(readme.read_text()))
