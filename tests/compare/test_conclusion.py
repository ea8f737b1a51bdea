"""Verdicts from rows: they agree with differences that are known, and say why there is none."""

import io

import pytest
from rich.console import Console

import gradsurgery as gs
from gradsurgery.compare import conclude, verdict_sentences, verdict_table
from gradsurgery.compare.sentences import rank_sentence, rate_sentences
from gradsurgery.tasks import task
from tests.support.rows import failed, known, row, setup

pytestmark = pytest.mark.quick

EXPECTED = {
    "scaled-sum": "identical",
    "gains": "better",
    "loses": "worse",
    "near": "equivalent",
    "unclear": "undecided",
}


def verdicts(conclusion, baseline="sum"):
    return {x.strategy: x.verdict for x in conclusion.families[baseline].comparisons}


def said(lines):
    (conclusion,) = conclude(lines).values()
    return conclusion, verdict_sentences(conclusion)


def shown(conclusion, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(verdict_table(conclusion, width))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    return text


@pytest.mark.parametrize("sign", [1, -1])
def test_verdicts_agree_with_known_differences(sign):
    """Where lower is better, a negative difference is a gain."""
    conclusion, _ = said(known(sign=sign))
    assert verdicts(conclusion) == EXPECTED
    others = {name: word for name, word in EXPECTED.items() if name != "scaled-sum"}
    assert verdicts(conclusion, "scaled-sum") == {"sum": "identical", **others}
    mean = conclusion.against("sum", "gains").mean
    assert mean == pytest.approx(3 * sign)
    assert conclusion.against("sum", "sum") is None


def test_sentences_say_the_verdicts_and_that_nothing_was_tuned():
    _, (heading, to_sum, to_scaled, footer) = said(known())
    assert heading == (
        "digits: accuracy in % of left, the declared primary figure; 8 seeds; "
        "untuned, every strategy at learning rate 0.1."
    )
    assert to_sum.startswith("Untuned, against sum: gains (+3.00 points, 95 % interval +2.58 to ")
    assert ") is better; loses (-3.00 points" in to_sum
    assert "near is equivalent (a difference below 1 point)" in to_sum
    assert "scaled-sum is identical" in to_sum
    assert "unclear is undecided (" in to_sum
    assert "seeds would see 1 point)" in to_sum
    assert to_scaled.startswith("Untuned, against scaled-sum: ")
    assert footer.startswith("With 8 seeds and differences of standard deviation")


def test_without_delta_nothing_is_equivalent():
    conclusion, sentences = said(known(delta=None))
    assert verdicts(conclusion)["near"] == "undecided"
    assert "equivalent" not in " ".join(sentences)
    assert "seeds would see so large a difference)" in sentences[1]


def test_one_seed_has_no_verdict_and_the_reason_is_given():
    conclusion, sentences = said(known(seeds=1))
    assert sentences[1:] == [
        "No verdict against sum and scaled-sum: an interval needs at least 2 seeds that both have "
        "finished."
    ]
    text = shown(conclusion, 100)
    assert not any(word in text for word in ("better", "worse", "undecided", "identical"))


def test_a_baseline_that_was_not_run_or_failed_is_named():
    _, sentences = said(known(strategies=("sum", "gains")))
    assert "No verdict against scaled-sum: scaled-sum was not run; add it to the strategies." in (
        sentences
    )
    lines = known(strategies=("sum", "gains"))
    lines += [failed("digits", "scaled-sum", seed) for seed in range(8)]
    assert "No verdict against scaled-sum: every run of scaled-sum failed." in said(lines)[1]
    every = [setup(digits={}), *(failed("digits", name, 0) for name in ("sum", "mgda"))]
    conclusion, sentences = said(every)
    assert sentences[0] == "digits: every run failed."
    assert verdict_table(conclusion) is None


def test_a_figure_that_is_no_number_is_a_failed_run():
    lines = known(strategies=("sum", "gains"))
    lines[-1]["test"]["left"] = float("nan")
    conclusion, _ = said(lines)
    assert conclusion.against("sum", "gains").pairs.dropped == (7,)
    assert "NonFiniteError" in conclusion.trained[1].failed[0]["error"]


def test_without_a_primary_figure_it_is_the_mean_or_else_the_first():
    conclusion, sentences = said(known(primary=None))
    assert conclusion.primary.objectives == ("left", "right")
    assert "the mean of 2 objectives as no primary figure is declared" in sentences[0]
    assert conclusion.against("sum", "gains").mean == pytest.approx(1.5)
    lines = known(primary=None)
    for line in lines[1:]:
        other = {"name": "error", "unit": "", "higher": False, "chance": None}
        line["metrics"] = {**line["metrics"], "right": other}
        line["better"] = {"left": "higher", "right": "lower"}
    conclusion, sentences = said(lines)
    assert conclusion.primary.objectives == ("left",)
    assert "of left, as no primary figure is declared" in sentences[0]
    assert "Only left is judged; right is not (declare @task(primary=...))." in sentences


def two_kinds(size, primary=None):
    """A percentage and an error of which `gains` has so much more, over seeds that vary it."""
    lines = known(primary=primary, strategies=("sum", "gains", "near"))
    for line in lines[1:]:
        error = {"name": "RMSE", "unit": "kW", "higher": False, "chance": None}
        line["metrics"] = {**line["metrics"], "right": error}
        line["better"] = {"left": "higher", "right": "lower"}
        more = size * (1 + 0.1 * (line["seed"] % 2)) if line["strategy"] == "gains" else 0.0
        line["test"]["right"] = 1.0 + 0.1 * line["seed"] + more
    return lines


def test_a_figure_that_is_not_judged_and_differs_is_named_with_its_interval():
    (named,) = [one for one in said(two_kinds(3.0))[1] if "not (declare" in one]
    assert named.startswith("Only left is judged; right is not (declare @task(primary=...)). ")
    assert "against sum exclude 0, without a verdict: gains +3.15 kW [+3.02 to +3.28]" in named
    assert named.endswith(" (right, lower is better).")
    assert "near" not in named  # the same in every seed
    (lower,) = [one for one in said(two_kinds(-0.5))[1] if "not (declare" in one]
    assert "gains -0.525 kW" in lower
    (silent,) = [one for one in said(two_kinds(0.0))[1] if "not (declare" in one]
    assert "exclude" not in silent


def test_a_declared_primary_figure_leaves_the_others_to_the_table():
    sentences = said(two_kinds(3.0, primary="left"))[1]
    assert not any("judged" in one for one in sentences)


def test_a_direction_that_no_one_gave_has_no_verdict():
    lines = known()
    for line in lines[1:]:
        line["better"] = None
        line["metrics"] = {k: {**v, "higher": None} for k, v in line["metrics"].items()}
    assert "does not say whether its figures are better higher or lower" in said(lines)[1][-1]


def test_rates_chosen_or_tuned_are_said():
    lines = known(strategies=("sum", "gains"))
    other = [{**line, "lr": 0.2, "validation": {"left": 1.0, "right": 1.0}} for line in lines[1:]]
    conclusion, sentences = said(lines + other)
    assert conclusion.tuning == "chosen"
    assert "best of the given learning rates on validation data" in sentences[0]
    assert sentences[1].startswith("Against sum: ")
    choices = [
        {"kind": "choice", "task": "digits", "strategy": name, "lr": 0.1}
        for name in ("sum", "gains")
    ]
    conclusion, sentences = said(lines + choices)
    assert conclusion.tuning == "tuned"
    assert "every strategy at its tuned learning rate" in sentences[0]
    tune = [{**line, "kind": "tune", "test": None, "seed": 1000} for line in lines[1:]]
    assert conclude(lines + choices + tune)["digits"].families == conclusion.families
    assert said(lines + choices[:1])[0].tuning == "untuned"


def test_the_rule_and_the_edges_of_the_search_of_rates_are_said():
    choices = [
        {"kind": "choice", "task": "digits", "strategy": name, "lr": 0.1, "rule": "the best",
         "edge": edge}
        for name, edge in (("sum", None), ("gains", "high"), ("loses", "high"))
    ]  # fmt: skip
    lines = known(strategies=("sum", "gains", "loses"))
    assert rate_sentences(conclude([*lines, *choices])["digits"]) == [
        "Learning rates: the best.",
        "Edge: the best rate of gains and loses is the highest that was tried; a better one may "
        "lie beyond.",
    ]
    assert rate_sentences(conclude(lines)["digits"]) == []


def test_runs_on_one_loss_give_the_gain_and_are_judged_where_they_can_be():
    lines = known(strategies=("sum", "gains"))
    for seed in range(8):
        alone = {"left": 80.0, "right": 10.0}
        other = {"left": 10.0, "right": 50.0 + seed}
        lines.append(row("digits", "alone: left", seed, alone, kind="alone", only=["left"]))
        lines.append(row("digits", "alone: right", seed, other, kind="alone", only=["right"]))
    conclusion, _ = said(lines)
    assert set(verdicts(conclusion)) == {"gains", "alone: left"}
    gains = conclusion.gains["gains"]
    left = conclusion.trained[1].figures("left")
    assert gains.by_seed[3] == pytest.approx(100 * (left[3] - 80) / 80 / 2)
    assert set(conclusion.gains) == {"sum", "gains"}
    assert f"{gains.mean:+.1f}" in shown(conclusion, 100)


def test_the_table_fits_in_80_and_in_100_columns():
    conclusion, _ = said(known())
    assert "verdict to" in shown(conclusion, 100)
    assert "verdict to" not in shown(conclusion, 80)
    lines = shown(conclusion, 80).splitlines()
    (gains,) = (line.split() for line in lines if line.split()[:1] == ["gains"])
    assert gains[-1] == "better"
    assert "+3.00 [+2.58, +3.42]" in " ".join(gains)


def test_resplits_of_one_pool_have_the_corrected_interval_beside():
    conclusion, _ = said(known(ratio=0.25))
    found = conclusion.against("sum", "gains")
    low, high = found.interval
    wide = found.corrected[1] - found.corrected[0]
    assert wide / (high - low) == pytest.approx(3**0.5)  # 1/8 + 1/4 over 1/8
    assert conclude(known())["digits"].against("sum", "gains").corrected is None

    @task("re-split", lr=0.1, steps=1, ratio=0.25)
    def resplit(data_root, seed): ...

    assert gs.tasks.get_task("re-split").ratio == 0.25
    with pytest.raises(gs.InputError, match="ratio is positive"):
        task("re-split", lr=0.1, ratio=-1.0)


def test_mean_ranks_are_a_description_of_two_tasks_or_more():
    assert rank_sentence(conclude(known())) is None
    both = conclude(known() + known(task="other"))
    assert rank_sentence(both).startswith(
        "Mean rank over 2 tasks, a description and no test: gains 1.0, "
    )


def test_a_path_is_no_lines():
    with pytest.raises(gs.InputError, match="got a path"):
        conclude("results")
