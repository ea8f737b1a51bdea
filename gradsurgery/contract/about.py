"""What a strategy's file says beside its contract: family, when to use it, papers, other names."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

# In the order of the documentation: a title, and what its strategies have in common. A family that
# is not here is a third party's own.
FAMILIES = {
    "baselines": ("Baselines", "Weights that do not depend on the gradients or the losses."),
    "projections": ("Projections", "What conflicts is projected away."),
    "min-norm": ("Min-norm and Pareto", "The shortest convex combination, or one near to it."),
    "equal improvement": (
        "Equal improvement",
        "All objectives improve alike, by one measure or another, or the worst one most.",
    ),
    "lengths": ("Balancing lengths", "Gradients are brought to comparable lengths."),
    "losses": ("Loss weighting", "Weights from the losses and how they fall."),
    "scalarisations": ("Scalarisations", "The gradient of one function of the losses."),
    "auxiliary": ("Main and auxiliary", "One objective has a part of its own."),
    "modalities": ("Modalities", "Encoders of a multimodal model, dominant ones among them."),
    "coordinates": ("Signs and outliers", "Entries or whole gradients are left out."),
    "wrappers": ("Wrappers", "Another strategy's weights, changed."),
}
ACCENTS = {
    "\u0301": "'",
    "\u0300": "`",
    "\u0308": '"',
    "\u0302": "^",
    "\u0327": "c ",
    "\u030c": "v ",
    "\u030a": "r ",
    "\u0303": "~",
}
# Signs that LaTeX reads otherwise, and letters that are no letter with an accent.
SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    **{"ø": r"{\o}", "Ø": r"{\O}", "ł": r"{\l}", "Ł": r"{\L}", "ß": r"{\ss}", "æ": r"{\ae}"},
    **{"–": "--", "—": "---", "’": "'", "α": r"$\alpha$", "~": r"{\textasciitilde}"},
}


@dataclass(frozen=True)
class Citation:
    """A publication.

    Attributes:
        title: its title.
        authors: "Given Family", in order; empty where no source was read that has them.
        year: of its publication; None where no source was read that has it.
        venue: the conference or the journal; empty for what is on arXiv alone.
        arxiv: its number there.
        source: where title, authors and year were read.
        journal: whether the venue is a journal.

    Example:
        >>> from gradsurgery.contract import citation
        >>> citation("pcgrad").title
        'Gradient Surgery for Multi-Task Learning'
    """

    title: str
    authors: tuple[str, ...] = ()
    year: int | None = None
    venue: str = ""
    arxiv: str = ""
    source: str = ""
    journal: bool = False

    def bibtex(self, key: str) -> str:
        """Its BibTeX entry under this key, in ASCII."""
        kind = ("article" if self.journal else "inproceedings") if self.venue else "misc"
        fields = {
            "title": "{" + self.title + "}",
            "author": " and ".join(self.authors),
            "journal" if self.journal else "booktitle": self.venue,
            "year": "" if self.year is None else str(self.year),
            "eprint": self.arxiv,
            "archivePrefix": "arXiv" if self.arxiv else "",
        }
        lines = [f"  {name} = {{{_ascii(text)}}}," for name, text in fields.items() if text]
        return "\n".join([f"@{kind}{{{key},", *lines, "}"])


@dataclass(frozen=True)
class About:
    """What a strategy's page says, and no claim or contract depends on.

    Attributes:
        family: a key of `FAMILIES`, or a name of your own.
        use: when to use it, in a sentence or two.
        avoid: when not to.
        maths: its formula in LaTeX.
        papers: its publications, the one to cite first.
        related: names of methods that are near but not the same -> what differs, or what to give.
            An unknown name of these is answered with it.
        differs: where official code, a library or this one departs from the paper.
    """

    family: str = "others"
    use: str = ""
    avoid: str = ""
    maths: str = ""
    papers: tuple[Citation, ...] = ()
    related: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ()


def _ascii(text: str) -> str:
    """Accents as BibTeX writes them."""
    made = ""
    for letter in unicodedata.normalize("NFC", text):
        base, *marks = list(unicodedata.normalize("NFD", letter))
        accent = ACCENTS.get(marks[0]) if marks else None
        made += f"{{\\{accent}{base}}}" if accent else SIGNS.get(letter, letter)
    return made
