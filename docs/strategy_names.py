"""Tables of the page on names: from the registry, and for each peer from the names it has."""

from pathlib import Path

from prose import paragraph
from results_tables import listed
from strategy_pages import cells, shipped

import gradsurgery as gs
from gradsurgery.contract.near import meant

# What these had when they were read: LibMTL of 14 May 2025, TorchJD of 1 August 2026, the METHODS
# of nash-mtl, FAMO, FairGrad and NTKMTL, conflictfree of 1 June 2026, DomainBed of December 2024.
PEERS = {
    "LibMTL, `weighting`": (
        "EW", "UW", "DWA", "GLS", "RLW", "MGDA", "GradNorm", "GradDrop", "PCGrad", "GradVac",
        "IMTL", "CAGrad", "Nash_MTL", "Aligned_MTL", "MoCo", "MoDo", "SDMGrad", "DB_MTL", "STCH",
        "ExcessMTL", "FairGrad", "FAMO", "UPGrad",
    ),
    "TorchJD, `aggregation` and `scalarization`": (
        "UPGrad", "AlignedMTL", "CAGrad", "ConFIG", "Constant", "CRMOGMWeighting", "DualProj",
        "ExcessMTL", "FairGrad", "GradDrop", "GradVac", "IMTLG", "Krum", "Mean", "MGDA",
        "MoDoWeighting", "NashMTL", "PCGrad", "Random", "SDMGradWeighting", "Sum", "TrimmedMean",
        "COSMOS", "DWA", "FAMO", "GeometricMean", "IMTLL", "PBI", "STCH", "UW",
    ),
    "`METHODS` of nash-mtl, FAMO, FairGrad and NTKMTL": (
        "stl", "ls", "uw", "scaleinvls", "rlw", "dwa", "pcgrad", "mgda", "graddrop", "log_mgda",
        "cagrad", "log_cagrad", "imtl", "log_imtl", "nashmtl", "famo", "fairgrad", "pivrg",
        "consmtl", "go4align",
    ),
    "ConFIG, `conflictfree`": ("ConFIGOperator", "PCGradOperator", "IMTLGOperator"),
    "DomainBed": ("GroupDRO", "ANDMask", "SANDMask"),
}  # fmt: skip


def ours(name: str) -> str | None:
    """The strategy that a name leads to; None where none is it or near it."""
    strategies = {s.name: s for s in shipped()}
    also = {n: (*s.also, *s.about.related) for n, s in strategies.items()}
    return name if name in strategies else meant(name, list(strategies), also)


def page_of(name: str) -> str:
    """A link to a strategy's page."""
    return f":doc:`{name} <strategies/{name}>`"


def peers() -> list[str]:
    """What each library calls what is here."""
    lines = []
    for peer, names in PEERS.items():
        rows = []
        for name in names:
            here = ours(name)
            rows.append([f"``{name}``", page_of(here) if here else "–", _difference(name)])
        title = peer.replace("`", "``")
        lines += [f"**{title}**", "", *listed("", [["there", "here", "beside it"], *rows]), ""]
    return lines


def others() -> list[str]:
    """Other names of the same methods."""
    rows = [[page_of(s.name), ", ".join(s.also)] for s in shipped() if s.also]
    return listed("", [["strategy", "also called"], *rows])


def near() -> list[str]:
    """Methods that are near one of ours, with what differs or what to give."""
    found = [(other, s.name, text) for s in shipped() for other, text in s.about.related.items()]
    rows = [[other, page_of(name), cells(text)] for other, name, text in sorted(found)]
    return listed("", [["method", "near", "how"], *rows])


def differs() -> list[str]:
    """Where official code, a library or this one departs from the paper."""
    lines = []
    for strategy in shipped():
        if strategy.about.differs:
            lines += [page_of(strategy.name)]
            for text in strategy.about.differs:
                lines += paragraph(cells(text), first="   * ")
            lines += [""]
    return lines


def write_names(docs: Path) -> None:
    """Write peers.inc, others.inc, near.inc and differs.inc below names."""
    folder = docs / "names"
    folder.mkdir(exist_ok=True)
    for make in (peers, others, near, differs):
        path, text = folder / f"{make.__name__}.inc", "\n".join(make()) + "\n"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _difference(name: str) -> str:
    try:
        gs.get_strategy(name)
    except gs.UnknownNameError as error:
        _, _, ends = str(error).partition(f"Known: {', '.join(gs.strategy_names())}.")
        return cells(ends.strip().partition(": ")[2]) or "–"
    return "–"
