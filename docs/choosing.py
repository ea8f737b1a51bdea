"""Tables of the page on choosing a strategy: facts from the registry, evidence from the study.

Each build of the docs writes them below docs/choosing, so that none can be out of date.
`python docs/choosing.py` renews the README's table of symptoms.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prose import paragraph
from results_tables import listed

import gradsurgery as gs
from gradsurgery.contract import Strategy
from gradsurgery.contract.registry import registered
from gradsurgery.study import DECLARATION, Evidence, read_evidence
from gradsurgery.study.claims import answered
from gradsurgery.study.claims.claim import titled

HERE = Path(__file__).parent
# Given by the Surgery, or made from what it has anyway.
FREE = {"gram", "block_grams", "rows", "cross", "splits", "eps", "rng", "generator", "state"} | {
    *("objectives", "group", "losses"),
}
NONE = "–"  # a plain hyphen in a cell begins a list
SEVERAL = {"rows", "block_grams", "cross"}  # no single weight per objective
MARKS = "<!-- symptoms: python docs/choosing.py -->", "<!-- end of symptoms -->"


class Symptom(NamedTuple):
    """A row of the decision table.

    Attributes:
        seen: what the reader sees, with the section of the page that speaks of it.
        first: the strategy to begin with, as it is written.
        how: the setting that goes with it; empty where there is none.
        others: what to try beside it.
        passes: what a step takes with that setting; empty where it is the strategy's own.
    """

    seen: str
    first: str
    how: str = ""
    others: tuple[str, ...] = ()
    passes: str = ""


SYMPTOMS = (
    Symptom("nothing yet: `The default`_", "sum", "", ("scaled-sum", "random")),
    Symptom(
        "`Losses differ by orders of magnitude`_",
        "uw",
        "",
        ("imtl-l", "unit-sum", "nash-mtl", "config", "db-mtl"),
    ),
    Symptom(
        "`One modality dominates`_",
        "mmpareto",
        "a loss per modality beside the joint one",
        ("ogm-ge", "agm", "dgl"),
    ),
    Symptom(
        "`One objective must not get worse`_",
        "sum",
        '``protect="name"``',
        ("a-gem", "pcd", "dualproj"),
        "n",
    ),
    Symptom(
        "`No objective may get worse`_",
        "upgrad",
        '``guard="correct"``',
        ("mgda", "nash-mtl", "dualproj", "mmpareto"),
    ),
    Symptom("`Many objectives`_", "famo", "", ("uw", "group-dro", "upgrad")),
    Symptom(
        "`Little memory`_",
        "upgrad",
        '``memory="low"``',
        ("uw", "famo", "scaled-sum"),
        "n and more",
    ),
    Symptom(
        "`Several processes`_", "mgda", "the model under DDP or FSDP2", ("upgrad", "uw", "mmpareto")
    ),
    Symptom(
        "`A physics-informed network`_",
        "config",
        "one group, ``{'net': net}``",
        ("lr-annealing", "relobralo", "gradnorm"),
    ),
    Symptom("`Rewards`_", "upgrad", "``PerExample(losses, weights)``", ("mgda", "group-dro"), "1"),
    Symptom("`Unlearning`_", "unit-sum", "", ("a-gem", "pcd")),
    Symptom("`Continual learning`_", "a-gem", "", ("dualproj",)),
    Symptom("`Auxiliary losses`_", "aux-cosine", "", ("bloop", "metabalance", "gradvac")),
    Symptom("`A trade-off of your own`_", "constant", "", ("epo", "cosmos", "pbi", "stch")),
    Symptom(
        "`Generators and codecs`_",
        "balancer",
        "``features=``",
        ("adaptive-weight",),
        "n to the features, then 1",
    ),
    Symptom("`Domains and outliers`_", "group-dro", "", ("and-mask", "trimmed-mean", "krum")),
    Symptom("`Noisy gradients`_", "moco", "", ("sdmgrad", "modo", "cr-mogm")),
)


SHIPPED = [name for name in gs.strategy_names() if registered(name).shipped]


def bound(name: str) -> Strategy:
    """The strategy as it is written; required options, which name objectives, are filled in."""
    plain = registered(name.partition("(")[0])
    required = dict.fromkeys(plain.required, "0")
    return gs.get_strategy(name, **required) if required else gs.get_strategy(name)


def passes(strategy: Strategy) -> str:
    """How many backward passes a step takes through what all n losses share."""
    if strategy.acts_on == "losses":
        return "1"
    if "cross" in strategy.inputs:
        return "n per batch"
    return "n" if strategy.needs_gradients else "1 per set of weights"


def memory(strategy: Strategy) -> str:
    """What a step keeps of the gradients of single losses."""
    if strategy.acts_on == "losses" or not strategy.needs_gradients:
        return "as in plain training"
    if "cross" in strategy.inputs:
        return "n gradients per batch"
    few = 'one gradient per loss; with ``memory="low"`` none of large tensors'
    return "one gradient per loss" if SEVERAL & strategy.inputs else few


def remembers(strategy: Strategy) -> bool:
    """Whether it keeps a state from step to step, under some options at least."""
    return "state" in inspect.signature(strategy.function).parameters


def promise(strategy: Strategy) -> str:
    """When its direction conflicts with no gradient, under its options; "–": not claimed."""
    found = [c for c in strategy.claims if c.name == "non-conflicting"]
    if not found:
        return NONE
    cases = [(n, rank) for n in range(2, 9) for rank in range(1, n + 1)]
    kept = [any(c.holds(*case, strategy.options) for c in found) for case in cases]
    said = "; ".join(dict.fromkeys(c.condition for c in found))
    said = "always" if all(kept) else said if any(kept) else f"only with {said}"
    return f"{said} (in the first step)" if remembers(strategy) else said


def needs(strategy: Strategy) -> str:
    """What the loop has to give beside the losses."""
    required = registered(strategy.name).required
    asked = [f"``{name}=``" for name in sorted(strategy.inputs - FREE - {"observed"})]
    asked += [f"``{name}=`` (an option)" for name in required]
    if "observed" in strategy.inputs:
        asked.append("``observe(losses)``")
    if "cross" in strategy.inputs:
        asked.append("three independent batches")
    return ", ".join(asked) or NONE


def page_of(written: str) -> str:
    """A link to a strategy's page."""
    name = written.partition("(")[0]
    return f":doc:`{written} <strategies/{name}>`"


def symptoms() -> list[str]:
    """The decision table: what is chosen by hand, and facts of the registry about it."""
    head = ["what you see", "begin with", "passes", "non-conflicting", "beside it"]
    rows = []
    for one in SYMPTOMS:
        chosen = bound(one.first)
        begin = page_of(one.first) + (f", {one.how}" if one.how else "")
        others = ", ".join(page_of(name) for name in one.others)
        rows.append([one.seen, begin, one.passes or passes(chosen), promise(chosen), others])
    return listed("By symptom", [head, *rows])


def readme_table() -> str:
    """The decision table for the README, in Markdown and without what to try beside it."""
    head = ["what you see", "begin with", "passes", "non-conflicting"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in SYMPTOMS:
        chosen = bound(one.first)
        begin = f"`{one.first}`" + (f", {one.how.replace('``', '`')}" if one.how else "")
        seen = one.seen.partition(": `")[0].strip("`_")  # a link to a section of the page
        cells = [seen, begin, one.passes or passes(chosen), promise(chosen)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def renewed(readme: str) -> str:
    """The README with the table of symptoms of now between its marks."""
    start, end = MARKS
    between = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.S)
    return between.sub(lambda _: f"{start}\n{readme_table()}\n{end}", readme)


KINDS = {
    "Deciding on the losses": lambda s: s.acts_on == "losses",
    "Deciding without looking at a gradient": lambda s: not s.needs_gradients,
    "Deciding on several batches": lambda s: "cross" in s.inputs,
    "Deciding on the Gram matrix": lambda s: not SEVERAL & s.inputs,
    "Deciding on tensors or coordinates": lambda s: True,
}


def kinds() -> dict[str, list[Strategy]]:
    """What it decides on -> the strategies, each under the first kind that fits its defaults."""
    found: dict[str, list[Strategy]] = {kind: [] for kind in KINDS}
    for chosen in map(bound, SHIPPED):
        found[next(kind for kind, fits in KINDS.items() if fits(chosen))].append(chosen)
    return found


def facts() -> Iterator[str]:
    """A table per kind with every strategy that ships; what holds for all of a kind above it."""
    head = ["strategy", "needs", "remembers", "scale", "non-conflicting"]
    for kind, found in kinds().items():
        rows = [
            [page_of(s.name), needs(s), "yes" if remembers(s) else "no", s.scale, promise(s)]
            for s in found
        ]
        (cost,) = {(passes(s), memory(s)) for s in found}
        yield from paragraph(f"**{kind}.** Passes: {cost[0]}. Memory: {cost[1]}.")
        yield from ["", *listed("", [head, *rows]), ""]


def verdicts(evidence: Evidence) -> Iterator[str]:
    """A strategy's verdict against tuned sum on each part, with the difference of the means."""
    parts = [part for part in evidence.parts if part.tune]
    if not parts:
        yield from paragraph("No rows of the study are there yet.")
        return
    known = [label for part in parts for label in part.strategies if label != "sum"]
    rows = []
    for label in dict.fromkeys(known):
        cells = []
        for part in parts:
            x = evidence.against(part, label)
            there = x is not None and x.mean is not None
            cells.append(f"{x.verdict} ({x.mean:+.2f})" if there else NONE)
        rows.append([f"``{label}``", *cells])
    head = ["strategy", *map(titled, parts)]
    yield from listed("Against the sum, each at a tuned learning rate", [head, *rows])


def answers(evidence: Evidence) -> Iterator[str]:
    """What the study answers to the questions that a choice depends on."""
    wanted = ("better than sum", "the guard", "practitioner")
    for claim in answered(evidence):
        if any(word in claim.question for word in wanted):
            yield from [*paragraph(f"**{claim.question}** {claim.answer}", first="* "), ""]


def write_tables(docs: Path, evidence: Evidence | None = None) -> list[Path]:
    """Write choosing/symptoms.inc, facts.inc, verdicts.inc and answers.inc below the docs."""
    folder = docs / "choosing"
    folder.mkdir(exist_ok=True)
    if evidence is None:
        evidence = read_evidence(DECLARATION, HERE / "results" / "rows")
    made = {
        "symptoms": symptoms(),
        "facts": facts(),
        "verdicts": verdicts(evidence),
        "answers": answers(evidence),
    }
    for name, lines in made.items():
        text = "\n".join(lines) + "\n"
        path = folder / f"{name}.inc"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return sorted(folder.glob("*.inc"))


if __name__ == "__main__":
    front = HERE.parent / "README.md"
    front.write_text(renewed(front.read_text()))
