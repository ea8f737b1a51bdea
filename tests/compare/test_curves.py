"""Response curves and pictures: what is drawn, what is marked, and whose pictures are replaced."""

import math

import pytest

from gradsurgery.compare import Plan, compare, curves, plot_curves, plot_into, summarise
from gradsurgery.compare.curve_plot import draw_curves
from tests.compare import tuned_task

pytestmark = pytest.mark.quick
KIND = {"name": "score", "unit": "", "higher": True}


def line(strategy, lr, seed, figure, kind="tune", **more):
    """A row of a search; a figure of None is a run that failed."""
    made = {"kind": kind, "task": "t", "strategy": strategy, "lr": lr, "seed": seed, **more}
    made |= {"optimizer": None, "key": f"{strategy} {lr} {seed} {kind}"}
    if figure is None:
        return {**made, "error": "NonFiniteError: nan."}
    figures = figure if isinstance(figure, dict) else {"a": figure}
    made |= {"validation": figures, "better": dict.fromkeys(figures, "higher"), "primary": "a"}
    made |= {"metrics": dict.fromkeys(figures, KIND), "conflict_rate": {}}
    return {**made, "test": None if kind == "tune" else figures}


def chosen(strategy, lr, edge=None):
    base = {"kind": "choice", "task": "t", "strategy": strategy, "optimizer": None}
    return {**base, "lr": lr, "edge": edge}


def tuned():
    lines = [line("sum", lr, seed, lr + seed) for lr in (0.2, 0.1) for seed in (0, 1)]
    lines += [line("mgda", 0.1, 0, 5.0), line("mgda", 0.1, 1, None)]
    lines += [line("mgda", lr, seed, None) for lr in (0.2,) for seed in (0, 1)]
    lines += [line("alone: b", lr, 0, {"a": None, "b": 7.0}, only=["b"]) for lr in (0.1, 0.2)]
    return [*lines, chosen("sum", 0.2, "high"), line("sum", 0.2, 5, 1.0, kind="run")]


def test_a_curve_has_the_mean_of_each_rate_and_what_was_chosen():
    found = {curve.strategy: curve for curve in curves(tuned())["t"]}
    total = found["sum"]
    assert total.rates == (0.1, 0.2)
    assert total.means == pytest.approx((0.6, 0.7))
    assert total.figures[0] == {0: 0.1, 1: 1.1}
    assert (total.chosen, total.edge, total.kind) == (0.2, "high", "run")
    assert (total.names, total.better) == (("a",), "higher")
    assert "validation figure of 'a'" in total.what
    assert found["mgda"].means == (5.0, None)
    assert found["mgda"].failed == (1, 2)
    assert (found["mgda"].chosen, found["mgda"].kind) == (None, None)  # not yet
    assert found["alone: b"].names == ("b",)


def test_rates_that_were_given_have_curves_too():
    lines = [line("sum", lr, 0, -abs(lr - 0.2), kind="run") for lr in (0.1, 0.2, 0.3)]
    lines += [line("mgda", lr, 0, lr, kind="run") for lr in (0.1, 0.2, 0.3)]
    first, second = curves(lines)["t"]
    assert (first.chosen, first.edge) == (0.2, None)
    assert (second.chosen, second.edge) == (0.3, "high")
    assert curves(lines[:1]) == {}


def test_the_picture_has_a_line_per_strategy_and_marks_the_choice():
    (panel,) = draw_curves(curves(tuned())).axes
    assert panel.get_xscale() == "log"
    labels = panel.get_legend_handles_labels()[1]
    assert labels == ["sum (high edge)", "mgda"]  # the other figure's curve is no part of it
    (mark,) = [x for x in panel.lines if x.get_marker() == "o"]
    assert [*mark.get_xdata(), *mark.get_ydata()] == pytest.approx([0.2, 0.7])
    assert mark.get_markerfacecolor() == "white"  # at an edge


def test_a_diverged_figure_does_not_press_the_others_together():
    lines = [line("sum", lr, 0, -abs(math.log(lr))) for lr in (0.25, 0.5, 1.0, 2.0, 4.0)]
    lines += [line("sum", 8.0, 0, -1e9), chosen("sum", 1.0)]
    (panel,) = draw_curves(curves(lines)).axes
    low, high = panel.get_ylim()
    assert -10 < low < 0 <= high


def test_pictures_are_drawn_anew_over_ours_and_never_over_the_users(tmp_path):
    target = f"{tuned_task.__name__}:way"
    results = compare(Plan.of([target], ["sum"], [0], lrs=[0.1, 0.2]), tmp_path)
    found, summary = curves(results), summarise(results, "sum")
    first = plot_curves(found, tmp_path)
    assert first == tmp_path / "curves.png"
    assert first.stat().st_size > 5000
    assert plot_curves(found, tmp_path) == first
    assert plot_into(summary, tmp_path) == plot_into(summary, tmp_path)
    (tmp_path / "comparison.png").write_text("mine")
    assert plot_into(summary, tmp_path) == tmp_path / "comparison-2.png"
    assert plot_into(summary, tmp_path) == tmp_path / "comparison-2.png"
    assert (tmp_path / "comparison.png").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "comparison-2.png",
        "comparison.png",
        "curves.png",
        "results.jsonl",
    ]
