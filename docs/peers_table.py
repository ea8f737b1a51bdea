"""The table of the README and of the page on peers: what each library does, with its evidence.

`python docs/peers_table.py` runs the libraries that are installed, keeps what came out with
versions and the date in peers/measured.json, and renews the tables; with `page` it only does that.
"""

import importlib.metadata
import json
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peers_probes import measured
from prose import paragraph
from results_tables import listed

import gradsurgery as gs
from gradsurgery.contract.registry import registered

HERE = Path(__file__).parent
KEPT = HERE / "peers" / "measured.json"
MARKS = "<!-- beside: python docs/peers_table.py -->", "<!-- end of beside -->"
NOT = "not tried"
LIBRARIES = {"torchjd": "TorchJD", "LibMTL": "LibMTL", "conflictfree": "ConFIG"}
WRAPPER = "https://github.com/WeiChengTseng/Pytorch-PCGrad"
SHIPPED = [name for name in gs.strategy_names() if registered(name).shipped]


class Row(NamedTuple):
    """A row: a question, our answer and the test that shows it, and what others' probes are called.

    Attributes:
        about: what is compared.
        ours: the cell of this library.
        test: the id of a test that shows it; empty where this library has nothing.
        probe: the name of the probe in `peers_probes`.
        wrapper: the cell of a PCGrad wrapper, read in its README.
    """

    about: str
    ours: str
    test: str
    probe: str = ""
    wrapper: str = NOT


ENGINE, DOCS = "tests/engine", "tests/docs"
ROWS = (
    Row(
        "problems",
        "a group per set of losses that reach it, found by itself",
        f"{DOCS}/test_readme.py::test_the_first_step_prints_what_the_readme_shows",
        "groups",
    ),
    Row(
        "methods",
        f"{len(SHIPPED)} strategies, by name",
        "tests/test_house.py::test_readme_names_every_strategy_and_the_commands_are_single_lines",
        "methods",
        "PCGrad",
    ),
    Row(
        "its claims",
        "declared, and checked on adversarial gradients",
        "tests/testing/test_conformance.py::test_conformance",
    ),
    Row(
        "norm of the min-norm point, n = 30",
        "exact",
        "tests/docs/test_peers_table.py::test_our_own_cells_of_the_probes",
        "exact",
    ),
    Row(
        "a direction that promises no conflict, lengths 1 to 6, n = d = 5",
        "``upgrad``: a conflict in 0 of 60 draws",
        "tests/docs/test_peers_table.py::test_our_own_cells_of_the_probes",
        "conflict",
    ),
    Row(
        "a loss that is NaN",
        "an error that names it; ``.grad``, state and step as before",
        f"{ENGINE}/test_atomic.py::test_an_exception_at_every_line_leaves_all_or_nothing",
        "nan",
    ),
    Row(
        "gradients in bfloat16",
        "every strategy",
        "tests/docs/test_peers_table.py::test_every_strategy_takes_bfloat16",
        "bfloat16",
    ),
    Row(
        "gradients of size 1e-3, in conflict",
        "the direction of those of size 1",
        "tests/docs/test_peers_table.py::test_our_own_cells_of_the_probes",
        "small",
    ),
    Row(
        "``torch.compile``",
        "works, groups as in the plain model",
        f"{ENGINE}/test_compiled.py::test_groups_of_a_compiled_multimodal_model",
        "compile",
    ),
    Row(
        "several processes",
        "the step of one process on the joined batch",
        f"{ENGINE}/test_several_processes.py"
        "::test_several_processes_write_what_one_does_for_the_joined_batch",
    ),
    Row(
        "after Adam's step",
        '``guard="correct"``: no loss rises to first order',
        "tests/docs/test_peers_table.py::test_after_adam_with_the_guard_no_loss_rises",
        "after",
    ),
    Row(
        "less memory",
        '``memory="low"``: no single gradient of large tensors',
        f"{ENGINE}/test_low_memory.py::test_no_more_than_a_portion_is_held",
        "memory",
    ),
    Row("on the package index", "not yet", "", "published", "no, a file to copy"),
    Row("Jacobians of any tensors", "no", "", "jacobians"),
    Row("one loss per step", "no", "", "per step"),
    Row("architectures that ship", "none", "", "models"),
)


def facts() -> dict[str, Any]:
    """What was kept."""
    return dict(json.loads(KEPT.read_text()))


def cells(kept: dict[str, Any]) -> list[list[str]]:
    """The table, its heading first."""
    versions = kept["versions"]
    heads = [f"{title} {versions.get(name, '')}".strip() for name, title in LIBRARIES.items()]
    lines = [["", "gradsurgery", *heads, "a PCGrad wrapper"]]
    for row in ROWS:
        found = [kept["facts"].get(name, {}).get(row.probe, NOT) for name in LIBRARIES]
        lines.append([row.about, row.ours, *found, row.wrapper])
    return lines


def about(kept: dict[str, Any]) -> str:
    """Where the cells come from."""
    return (
        f"Cells of other libraries are what a run of them gave on {kept['date']} (Python "
        f"{kept['python']}, torch {kept['torch']}: ``python docs/peers_table.py``), or what their "
        f"documentation says; {NOT} means no more than that. Each cell of ours is shown by a test."
    )


def page(kept: dict[str, Any]) -> str:
    """The table for the docs, with the tests that show our cells."""
    lines = [*paragraph(about(kept)), "", *listed("", cells(kept)), ""]
    lines += paragraph("Tests that show the second column, from the top:")
    lines += ["", *(f"* {row.about}: ``{row.test}``" for row in ROWS if row.test), ""]
    lines += paragraph(f"The wrapper is that of {WRAPPER}, by its README.")
    return "\n".join(lines) + "\n"


def readme_part(kept: dict[str, Any]) -> str:
    """The table for the README, in Markdown."""
    rows = cells(kept)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    text = "\n".join([*paragraph(about(kept)), "", *lines])
    return f"{MARKS[0]}\n{text.replace('``', '`')}\n{MARKS[1]}"


def renewed(readme: str, kept: dict[str, Any]) -> str:
    """The README with the table of now between its marks."""
    pattern = re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1])
    return re.sub(pattern, lambda _: readme_part(kept), readme, flags=re.S)


def run() -> dict[str, Any]:
    """Run the libraries that are there."""
    found = measured()
    for name, own in found.items():
        distribution = importlib.metadata.distribution(name)
        own["published"] = "yes" if distribution.read_text("direct_url.json") is None else NOT
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "versions": {name: importlib.metadata.version(name) for name in found},
        "facts": found,
    }


if __name__ == "__main__":
    if "page" not in sys.argv:
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(run(), indent=1, ensure_ascii=False) + "\n")
    (KEPT.parent / "beside.txt").write_text(page(facts()))
    front = HERE.parent / "README.md"
    front.write_text(renewed(front.read_text(), facts()))
