"""One page per strategy and their table, from the registry alone."""

import inspect
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import gradsurgery as gs
from gradsurgery.registry import registered


def link(paper: str) -> str:
    """arXiv numbers as links."""
    return re.sub(r"arXiv:(\d{4}\.\d{5})", r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", paper)


def write_pages(docs: Path) -> list[Path]:
    """Write `strategies/index.rst` and `strategies/NAME.rst`; pages of strategies that are gone are removed."""
    environment = Environment(loader=FileSystemLoader(docs / "_templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["link"] = link
    folder = docs / "strategies"
    folder.mkdir(exist_ok=True)
    shipped = [s for s in map(registered, gs.strategy_names()) if s.shipped]
    texts = {"index": environment.get_template("strategies.rst.jinja").render(strategies=shipped)}
    for strategy in shipped:
        names = [n for n, p in inspect.signature(strategy.function).parameters.items() if p.kind is not p.KEYWORD_ONLY]
        inputs = [(name, name in strategy.inputs) for name in names]
        path = f"{strategy.function.__module__}.{strategy.function.__name__}"
        texts[strategy.name] = environment.get_template("strategy.rst.jinja").render(strategy=strategy, inputs=inputs, path=path)
    for old in folder.glob("*.rst"):
        if old.stem not in texts:
            old.unlink()
    for name, text in texts.items():
        page = folder / f"{name}.rst"
        if not page.exists() or page.read_text() != text:  # so that only what changed is built again
            page.write_text(text)
    return sorted(folder.glob("*.rst"))
