"""The table of training loops x strategies, from the tests' own list.

`python docs/loops.py` renews loops.rst.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from prose import paragraph  # noqa: E402

MARK = {"yes": "✓", "note": "✓ ¹", "error": "✗"}


def page() -> str:
    """The page: a line per loop, then a cell per loop and strategy."""
    from tests.support.loops import LOOPS
    from tests.support.shipped import SHIPPED

    cells = {key: {name: loop.outcome(name) for name in SHIPPED} for key, loop in LOOPS.items()}
    tests = f"{len(LOOPS) * len(SHIPPED):,}"
    lines = [
        *("Training loops", "==============", ""),
        *paragraph(
            f"{len(LOOPS)} loops as people write them, each with each of the {len(SHIPPED)}",
            f"strategies: {tests} tests (``tests/support/loops.py``). They compare ``.grad``,",
            "or where the parameters went, with gradients known by hand, and every error with",
            "what it should say. Renewed by ``python docs/loops.py``.",
        ),
        *("", ".. list-table::", "   :header-rows: 1", "   :widths: 4 50 46", ""),
        *("   * - no.", "     - loop", "     - outcome"),
    ]
    for number, (key, loop) in enumerate(LOOPS.items(), 1):
        found = cells[key].values()
        texts = {
            kind: sorted({text for outcome, text in found if outcome == kind})
            for kind in ("note", "error")
        }
        count = {kind: sum(outcome == kind for outcome, _ in found) for kind in MARK}
        told = []
        if count["yes"]:
            told.append("works" if count["yes"] == len(SHIPPED) else f"works with {count['yes']}")
        if count["note"]:
            told.append(f"works, with a note: {'; '.join(texts['note'])}")
        if count["error"]:
            who = "" if count["error"] == len(SHIPPED) else f" for {count['error']}"
            told.append(f"a clear error{who}: \u201c… {'; '.join(texts['error'])} …\u201d")
        lines += [f"   * - {number}", *paragraph(loop.title, first="     - ")]
        lines += paragraph("; ".join(told), first="     - ")
    lines += ["", "And every cell: ✓ works, ✓ ¹ works with the note above, ✗ a clear error.", ""]
    lines += [".. list-table::", "   :header-rows: 1", "", "   * - strategy"]
    lines += [f"     - {number}" for number in range(1, len(LOOPS) + 1)]
    for name in SHIPPED:
        lines += [f"   * - ``{name}``", *(f"     - {MARK[cells[key][name][0]]}" for key in LOOPS)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    (HERE / "loops.rst").write_text(page())
