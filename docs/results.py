"""The study's page from its rows: `python docs/results.py` renews results.rst and its plots.

Rows lie in docs/results/rows, as `gradsurgery study --out docs/results/rows` writes them. What
differed from the declaration is in docs/results/deviations.txt, a paragraph per line.
"""

from pathlib import Path

from prose import paragraph
from results_plots import draw
from results_tables import part_table, parts_table

from gradsurgery.study import DECLARATION, Declaration, Evidence, read_evidence
from gradsurgery.study.claims import Claim, answered

HERE = Path(__file__).parent
FOLDER = HERE / "results"
ABOUT = (
    "Does gradient surgery gain anything over a plain sum, once every strategy has a learning rate",
    "of its own? Published comparisons often have one rate, one seed, or a grid of rates that is",
    "coarser than the factor between the lengths of the strategies' steps. The study compares them",
    "on several tasks, with rates tuned on seeds of their own, 6 to 20 others, and verdicts by",
    "paired intervals (:doc:`statistics`). What decides is declared before it runs, in",
    "``gradsurgery/study/declared.py``.",
    "``gradsurgery study --out docs/results/rows --jobs 2`` runs it, and goes on;",
    "``--plan`` says how long that takes, ``--trial`` whether all of it runs.",
)


def page(evidence: Evidence, deviations: list[str], plots: dict[str, str]) -> str:
    """The page.

    Args:
        evidence: the declaration with the rows that there are.
        deviations: from what was declared, a paragraph each.
        plots: name of a file -> what it shows.
    """
    lines = ["The study", "=========", "", *paragraph(*ABOUT), ""]
    if evidence.parts:
        lines += [*_made(evidence), *_answers(answered(evidence)), *_tables(evidence)]
        for name, what in plots.items():
            lines += [f".. image:: results/{name}", *paragraph(what, first="   :alt: "), ""]
            lines += [*paragraph(what), ""]
        lines += _listed("What was not run", evidence.missing() or ["All that was declared ran."])
        lines += _listed("Deviations", deviations or ["None from what was declared."])
    else:
        begun = evidence.begun() or ["It has not been run yet."]
        lines += [*paragraph(*begun, "What it asks:"), ""]
        lines += _bullets(claim.question for claim in answered(evidence))
    return "\n".join([*lines, *_declared(evidence.declaration)])


def _made(evidence: Evidence) -> list[str]:
    """Under which declaration the rows were made, when, and what they took."""
    lines = [line for part in evidence.lines.values() for line in part]
    every = [*lines, *evidence.measured]
    commits = list(dict.fromkeys(str(one["commit"]) for one in evidence.stamps))
    cpu = sum(line.get("cpu_seconds") or 0.0 for line in every) / 3600
    versions = next((line["versions"] for line in every if "versions" in line), {})
    said = [
        f"Declared in commit ``{'``, ``'.join(commits) or 'unknown'}``.",
        f"{len(every)} rows, {evidence.seconds / 3600:.1f} hours of training and measuring in",
        f"processes of one thread ({cpu:.1f} hours of CPU time).",
        *([", ".join(f"{k} {v}" for k, v in versions.items()) + "."] if versions else []),
        "Rows: ``docs/results/rows``; this page: ``python docs/results.py``.",
    ]
    notes = [*evidence.torn, *(f"**Flagged:** {x}" for x in evidence.flags)]
    return [*paragraph(*said), "", *_bullets(notes)]


def _answers(claims: list[Claim]) -> list[str]:
    lines = ["Answers", "-------", ""]
    for claim in claims:
        lines += [*paragraph(f"**{claim.question}**"), "", *paragraph(claim.answer), ""]
        lines += _bullets(claim.details)
        if claim.details:
            lines += [*paragraph(f"From {claim.used}."), ""]
    return lines


def _tables(evidence: Evidence) -> list[str]:
    lines = ["Tables", "------", ""]
    lines += paragraph(
        "Test figures, mean and standard deviation over seeds, each strategy at its tuned learning",
        "rate, but in parts that say otherwise. Differences are to sum, with paired 95 % t",
        "intervals; verdicts are after Holm over the table. Selection rule:",
        evidence.declaration.selection,
    )
    for part in evidence.parts:
        lines += ["", *part_table(evidence, part)]
    if begun := evidence.begun():
        lines += ["", *paragraph(*begun, "What is not complete has no table and no verdict.")]
    return [*lines, ""]


def _declared(declaration: Declaration) -> list[str]:
    how = declaration.measured
    lines = ["What was declared", "-----------------", "", *parts_table(declaration), ""]
    lines += [*paragraph("Selection rule:", declaration.selection), ""]
    lines += _bullets(declaration.rules)
    lines += [*paragraph("Predictions, against sum:"), ""]
    lines += _bullets(
        f"{one.verdict}: {', '.join(f'``{name}``' for name in one.strategies)} on "
        f"{', '.join(one.parts)}."
        for one in declaration.predictions
    )
    shares = ", ".join(f"{share:.0%}" for share in how.steps)
    lines += [*paragraph("Measured besides, where the table says so:"), ""]
    lines += _bullets(
        [
            f"flatness: the largest Hessian eigenvalue of the summed training loss on "
            f"{how.examples} examples, {how.seeds} seeds, of "
            f"{', '.join(f'``{name}``' for name in how.flat)}; every run is stopped where that "
            f"loss has come down to {how.loss:.0%} of an untrained model's.",
            f"diagnosis: conflict beside its control and Assumption 1, ``gradsurgery.diagnose`` on "
            f"{how.batches} batches at {shares} of trajectories of ``sum``, {how.seeds} seeds.",
        ]
    )
    return [*lines, *_listed("Limits", declaration.limits)]


def _listed(title: str, sentences) -> list[str]:
    return [title, "-" * len(title), "", *_bullets(sentences)]


def _bullets(sentences) -> list[str]:
    lines = [line for one in sentences for line in paragraph(one, first="* ")]
    return [*lines, ""] if lines else []


def kept() -> tuple[Evidence, list[str], dict[str, str]]:
    """The rows, the deviations, and the plots that there are."""
    evidence = read_evidence(DECLARATION, FOLDER / "rows")
    file = FOLDER / "deviations.txt"
    deviations = file.read_text().splitlines() if file.is_file() else []
    about = FOLDER / "plots.txt"
    plots = dict(
        line.split(": ", 1) for line in (about.read_text().splitlines() if about.is_file() else [])
    )
    return evidence, [one for one in deviations if one.strip()], plots


def main() -> None:
    """Draw the plots, and write the page."""
    evidence = kept()[0]
    if evidence.parts:
        made = draw(evidence, FOLDER)
        text = "".join(f"{name}: {what}\n" for name, what in made.items())
        (FOLDER / "plots.txt").write_text(text)
    (HERE / "results.rst").write_text(page(*kept()))
    for flag in evidence.flags:
        print(f"Flagged: {flag}")


if __name__ == "__main__":
    main()
