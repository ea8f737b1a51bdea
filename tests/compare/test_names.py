"""Fixed weights have short names in tables and sentences, with a legend."""

import pytest

from gradsurgery.compare import conclude, summarise, verdict_sentences
from gradsurgery.compare.names import short_names
from gradsurgery.compare.plot import _panels
from gradsurgery.compare.sentences import GIVEN, rate_sentences
from gradsurgery.compare.verdict_table import difference, usual
from tests.support.rows import known, row

pytestmark = pytest.mark.quick


def fixed(**weights):
    return f"constant(preference={weights!r})"


def test_weights_are_listed_in_one_order_with_a_legend():
    first, second = fixed(a=0.7, b=0.3), fixed(b=4.0, a=1.0)
    names = short_names(["sum", first, second, f"{first}, length=sum"])
    assert names.of("sum") == "sum"
    assert names.of(first) == "weights 0.7 : 0.3"
    assert names.of(second) == "weights 1 : 4"
    assert names.of(f"{first}, length=sum") == "weights 0.7 : 0.3, length=sum"
    assert names.legend == (
        f'Fixed weights are listed in the order a, b: "weights 0.7 : 0.3" is {first}.'
    )


@pytest.mark.parametrize(
    "labels",
    [
        ["sum", "mgda"],
        [fixed(a=1.0)],
        [f"alone: {fixed(a=1.0, b=2.0)}"],
        ["constant(preference={'a': 'x', 'b': 1})", "constant(preference={1: 1, 2: 1})"],
        [fixed(a=1.0, b=0.3333333), fixed(a=1.0, b=0.33333331)],
    ],
)
def test_what_is_short_already_or_would_be_mistaken_keeps_its_label(labels):
    names = short_names(labels)
    assert [names.of(label) for label in labels] == labels
    assert names.legend is None


def test_other_objectives_keep_the_label():
    names = short_names([fixed(a=1.0, b=2.0), fixed(c=1.0, b=2.0)])
    assert names.of(fixed(c=1.0, b=2.0)) == fixed(c=1.0, b=2.0)


def weighted(count=12):
    """Rows with so many fixed weights that gain, and two whose intervals do not pass Holm."""
    lines = known(strategies=("sum", "gains"))
    for k in range(count):
        label = fixed(left=1.0, right=float(k))
        for seed in range(8):
            left = lines[1 + seed]["test"]["left"] + 3 + 0.1 * (seed % 3)
            lines.append(row("digits", label, seed, {"left": left, "right": 1.0}, kind="control"))
    return lines


def test_a_sentence_of_many_strategies_leaves_their_intervals_to_the_table():
    _, against, *rest = verdict_sentences(conclude(weighted())["digits"])
    assert "weights 1 : 11 (+3.09 points) are better" in against
    assert "interval" not in against
    assert "constant" not in against
    assert sum("Fixed weights are listed" in one for one in rest) == 1
    assert len(against) < 600


def test_an_interval_without_0_that_does_not_pass_holm_is_explained():
    lines = known(strategies=("sum", "loses", "near"), delta=None)
    near = [line for line in lines if line.get("strategy") == "near"]
    base = {line["seed"]: line["test"]["left"] for line in lines if line.get("strategy") == "sum"}
    for line, noise in zip(near, (0.2, -0.1, 0.3, 0.0, 0.1, 0.25, -0.05, 0.1), strict=True):
        line["test"]["left"] = base[line["seed"]] + noise + 0.03
    for k in range(4):
        lines += [{**line, "strategy": f"near {k}"} for line in near]
    said = verdict_sentences(conclude(lines)["digits"])[1]
    assert "The intervals of near, near 0, near 1, near 2 and near 3 exclude 0" in said
    assert "but not after Holm over 6." in said


def test_a_comma_of_a_label_is_told_from_one_of_the_list():
    lines = known(strategies=("sum", "near"))
    for line in lines[1:]:
        line["strategy"] = line["strategy"].replace("near", "cagrad(c=1, x=2), length=sum")
    said = verdict_sentences(conclude(lines)["digits"])[1]
    assert '"cagrad(c=1, x=2), length=sum" is equivalent' in said


def test_where_rates_were_chosen_the_intervals_say_what_they_leave_out():
    lines = known(strategies=("sum", "gains"))
    assert GIVEN not in verdict_sentences(conclude(lines)["digits"])
    choices = [
        {"kind": "choice", "task": "digits", "strategy": name, "lr": 0.1, "rule": "best",
         "edge": "low"}
        for name in ("sum", "gains", fixed(left=1.0, right=2.0))
    ]  # fmt: skip
    lines += [row("digits", choices[2]["strategy"], s, {"left": 1.0, "right": 1.0}, kind="control")
              for s in range(8)]  # fmt: skip
    (conclusion,) = conclude(lines + choices).values()
    assert GIVEN in verdict_sentences(conclusion)
    assert "sum, gains and weights 1 : 2 is the lowest" in rate_sentences(conclusion)[1]


def test_a_figure_without_a_unit_is_named_where_it_is_small():
    said = verdict_sentences(conclude(known(unit=""))["digits"])[1]
    assert "equivalent (a difference below 1 in accuracy)" in said


def test_a_picture_has_one_axis_per_kind_of_figure():
    rows = summarise(known(), "sum")["digits"]
    assert _panels(rows) == [("accuracy in %", ["left", "right"])]
    lines = known()
    for line in lines[1:]:
        line["metrics"] = {**line["metrics"], "right": {"name": "RMSE", "unit": "kW",
                           "higher": False, "chance": None}}  # fmt: skip
        line["better"] = {"left": "higher", "right": "lower"}
    rows = summarise(lines, "sum")["digits"]
    assert _panels(rows) == [
        ("accuracy in %", ["left"]), ("RMSE in kW (lower is better)", ["right"])
    ]  # fmt: skip


def test_rows_of_several_processes_come_in_the_order_that_was_asked_for():
    lines = known(strategies=("near", "gains", "loses"))
    lines[0]["strategies"] = {"gains": {}, "loses": {}, "near": {}}
    more = [("alone: left", "alone"), ("n x mgda", "control"), ("scaled-sum", "control"),
            ("sum", "control"), ("mgda, length=sum", "control")]  # fmt: skip
    for label, kind in more:
        only = {"only": ["left"]} if kind == "alone" else {}
        lines += [row("digits", label, s, {"left": 1.0, "right": 2.0}, kind=kind, **only)
                  for s in range(8)]  # fmt: skip
    labels = [one.strategy for one in conclude(lines)["digits"].trained]
    assert labels == ["gains", "loses", "near", "sum", "scaled-sum", "mgda, length=sum",
                      "n x mgda", "alone: left"]  # fmt: skip
    assert [one.strategy for one in summarise(lines, "sum")["digits"]] == labels[:3]


def test_differences_of_one_column_have_the_same_decimals():
    lines = known(strategies=("sum", "scaled-sum", "gains", "near"), unit="kW")
    (conclusion,) = conclude(lines).values()
    found = [conclusion.against("sum", name) for name in ("gains", "near")]
    assert [difference(x, "kW", usual(found)) for x in found] == [
        "+3.00 [+2.58, +3.42]", "+0.10 [-0.07, +0.27]"
    ]  # fmt: skip
    assert difference(found[1], "kW", 1e-4).startswith("+0.100 [")
    assert usual([None]) is None
