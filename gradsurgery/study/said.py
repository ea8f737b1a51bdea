"""What a start of a study came to, in lines for a person."""

from collections.abc import Iterator

from gradsurgery.study.claims import answered
from gradsurgery.study.running import Outcome


def lines_of(outcome: Outcome) -> Iterator[str]:
    """Each question with its answer, what was not run, and what speaks against the rows."""
    evidence = outcome.evidence
    for claim in answered(evidence):
        yield f"\n{claim.question}\n  {claim.answer}"
    yield ""
    if outcome.stopped:
        yield "The time was over before all was done; the same command goes on."
    if outcome.left:
        yield f"{outcome.left} measurements of flatness and gradients are left."
    for name, why in outcome.impossible.items():
        yield f"Could not run: {name}: {why}"
    yield from (f"Missing: {said}" for said in evidence.missing())
    yield from evidence.torn
    yield from (f"Flagged: {said}" for said in evidence.flags)
    rows = sum(map(len, evidence.lines.values())) + len(evidence.measured)
    yield f"{rows} rows, {evidence.seconds / 3600:.2f} hours of training and measuring."
    last = evidence.stamps[-1] if evidence.stamps else {}
    yield f"Declaration {evidence.declaration.digest}, commit {last.get('commit') or 'unknown'}."
