"""Tables fit the terminal: what has no room beside goes below, and no cell is cut."""

import io

import pytest
from rich.console import Console

from gradsurgery.compare import conclude, summarise
from gradsurgery.compare.columns import Column, form_of, tables, written
from gradsurgery.compare.report import figure_tables
from gradsurgery.compare.verdict_table import verdict_tables
from tests.support.rows import row, setup

pytestmark = pytest.mark.quick

OBJECTIVES = ("fused", "audio", "visual")
FIXED = "constant(preference={'fused': 1.0, 'audio': 4.0, 'visual': 4.0})"
LABELS = ("sum", "scaled-sum", "mmpareto", "cagrad(c=1.0), length=sum", FIXED)


def printed(made, width):
    console = Console(file=io.StringIO(), width=width)
    for one in made:
        console.print(one)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


@pytest.fixture
def lines():
    """Tuned rows of three figures in three units, with runs on one loss alone."""
    units = {"fused": "%", "audio": "kW", "visual": ""}
    kinds = {n: {"name": "error", "unit": u, "higher": u == "%", "chance": None}
             for n, u in units.items()}  # fmt: skip
    better = {n: "higher" if n == "fused" else "lower" for n in OBJECTIVES}
    found = [setup(three={"primary": "fused", "delta": 1.0})]
    for k, label in enumerate(LABELS):
        found.append({"kind": "choice", "task": "three", "strategy": label, "lr": 0.0123,
                      "rule": "the best", "edge": None})  # fmt: skip
        for seed in range(8):
            figures = {"fused": 90 + (3 * seed + k) % 7, "audio": 0.001 * seed + 0.1, "visual": 1e4}
            found.append(row("three", label, seed, figures, metrics=kinds, better=better,
                             figure="figure", lr=0.0123))  # fmt: skip
    for seed in range(8):
        figures = {"fused": 80.0, "audio": None, "visual": None}
        found.append(row("three", "alone: fused", seed, figures, kind="alone", only=["fused"],
                         metrics=kinds, better=better))  # fmt: skip
    times = {label: {"median": 0.1} for label in LABELS}
    return [*found, {"kind": "timing", "task": "three", "times": times}]


@pytest.mark.parametrize("width", [80, 120])
def test_three_figures_have_every_column_whole(lines, width):
    rows = summarise(lines, "sum")["three"]
    text = printed(figure_tables("three", rows, True, width), width)
    for cell in ("25.0 %", "+0.10", "1.00 x", "0.0123", " ± 0.002", "10000.0 ± 0.0"):
        assert text.count(cell) >= len(LABELS), cell
    assert "three, continued" in text or width > 80
    assert "weights 1 : 4 : 4" in text
    assert "preference" not in text


@pytest.mark.parametrize("width", [80, 120])
def test_verdicts_have_gain_and_rate_beside_or_below(lines, width):
    (conclusion,) = conclude(lines).values()
    text = printed(verdict_tables(conclusion, width), width)
    assert "Δm" in text
    assert text.count("0.0123") == len(LABELS)
    assert ("three, continued" in text) == (width == 80)


def test_many_columns_go_on_in_as_many_tables_as_it_takes():
    columns = [Column(f"figure {k}", ["12.3 ± 4.5"]) for k in range(14)]
    made = tables("t: all", Column("strategy", ["a" * 30]), [columns], 80)
    assert len(made) == 4
    text = printed(made, 80)
    assert text.count("12.3 ± 4.5") == 14
    assert len(tables("t: all", Column("strategy", ["a" * 30]), [columns])) == 1


def test_figures_of_a_column_have_the_same_decimals():
    assert form_of([90.0, 9.9, 88.0]) == ".1f"
    assert form_of([0.0, float("nan")]) == ".2f"
    assert written(-3e7, form_of([0.5, 0.4, -3e7])) == "-3e+07"
    assert written(2e-9, form_of([2e-9])) == "2.00e-09"
