"""BibTeX for a bibliography: of this library, and of the papers of strategies."""

import re
import unicodedata
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, metadata

import gradsurgery
from gradsurgery.contract import Citation
from gradsurgery.contract.registry import registered

OURS = Citation(
    title="gradsurgery: several losses, one step",
    authors=("{The gradsurgery developers}",),
    year=2026,
    source="CITATION.cff of the repository",
)


def cited(names: Iterable[str]) -> str:
    """The entries of the strategies of these names, each paper once, with where it was read.

    A strategy without a publication has a comment in place of an entry.

    Raises:
        UnknownNameError: for an unknown name, with the nearest match and the list.

    Example:
        >>> from gradsurgery.citing import cited
        >>> print(cited(["mmpareto"]).partition("author")[0])
        % mmpareto; as in README of github.com/GeWu-Lab/MMPareto_ICML2024
        @inproceedings{wei2024mmpareto,
          title = {{MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance}},
        <BLANKLINE>
    """
    by_paper: dict[Citation, list[str]] = {}
    pieces: list[str] = []
    chosen = [registered(name.partition("(")[0].strip()) for name in names]
    for strategy in dict.fromkeys(one.name for one in chosen):
        papers = registered(strategy).about.papers
        if papers:
            by_paper.setdefault(papers[0], []).append(strategy)
        else:
            source = registered(strategy).source
            pieces.append(f"% {strategy}: {source}; there is no paper to cite")
    keys: set[str] = set()
    for paper, strategies in by_paper.items():
        where = f"; as in {paper.source}" if paper.source else ""
        lines = [f"% {', '.join(strategies)}{where}"]
        others = [other for one in strategies for other in registered(one).about.papers[1:]]
        lines += [f"% see also: {said(other)}" for other in dict.fromkeys(others)]
        key = key_of(paper, strategies[0])
        while key in keys:  # two papers of one author and year
            key += "b"
        keys.add(key)
        pieces.append("\n".join([*lines, paper.bibtex(key)]))
    return "\n\n".join(pieces)


def ours() -> str:
    """The entry of this library, with its version and, once there is one, its address."""
    entry = OURS.bibtex("gradsurgery").removesuffix("}")
    fields = {"note": f"Version {gradsurgery.__version__}", "url": _address()}
    lines = [f"  {name} = {{{text}}},\n" for name, text in fields.items() if text]
    return "".join([entry, *lines, "}"])


def said(paper: Citation) -> str:
    """A paper in one line: who, when, what, where."""
    who = paper.authors[0] if paper.authors else ""
    who += " et al." if len(paper.authors) > 1 else ""
    where = f"arXiv:{paper.arxiv}" if paper.arxiv else paper.venue
    return ", ".join(filter(None, [who, str(paper.year or ""), paper.title, where]))


def key_of(paper: Citation, strategy: str) -> str:
    """The key of an entry: surname, year and the title's first word, or the strategy's name."""
    if not paper.authors:
        return strategy
    first = re.sub(r"^((a|an|the|on)\s+)+", "", paper.title, flags=re.I)
    pieces = (paper.authors[0].split()[-1], str(paper.year or ""), re.split(r"[\s:]", first)[0])
    letters = unicodedata.normalize("NFKD", "".join(pieces)).casefold()
    return re.sub(r"[^a-z0-9]", "", letters)


def _address() -> str:
    try:
        urls = metadata("gradsurgery").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    found = [url.partition(", ")[2] for url in urls if url.startswith("Repository, ")]
    return next((url for url in found if "/OWNER/" not in url), "")
