"""A study from nothing to its answers: resumed, stopped by the time, and what cannot run."""

from dataclasses import replace

import pytest

import gradsurgery as gs
from gradsurgery.study.claims import NOT_RUN, answered
from gradsurgery.study.estimate import estimated, total
from gradsurgery.study.plans import plan_of, trial_of
from gradsurgery.study.running import run_study
from gradsurgery.study.said import lines_of
from tests.study.tiny import PART, TINY

ONCE = replace(TINY, parts=(TINY.parts[1],))
PLAIN = replace(ONCE, parts=(replace(TINY.parts[1], measured=()),))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One study that was run whole, and the folder of its rows."""
    folder = tmp_path_factory.mktemp("study")
    said = []
    return run_study(ONCE, folder, say=said.append), folder, said


def test_a_study_runs_its_parts_and_measures_besides(done):
    outcome, folder, said = done
    (part,) = ONCE.parts
    assert set(outcome.evidence.figures(part)) == {"sum", "scaled-sum", "mmpareto"}
    assert outcome.evidence.missing() == []
    assert len(outcome.evidence.other("flatness")) == 2
    assert len(outcome.evidence.other("diagnosis")) == 1
    assert not outcome.stopped
    assert "tiny-once: tiny, 2 seeds" in said
    assert (folder / "tiny-once" / "results.jsonl").is_file()
    assert answered(outcome.evidence)[0].answer != NOT_RUN
    printed = "\n".join(lines_of(outcome))
    assert f"Declaration {ONCE.digest}" in printed
    assert "Missing" not in printed


def test_what_is_done_is_not_done_again(done, tmp_path):
    _, folder, _ = done
    before = {path: path.read_bytes() for path in folder.glob("*/*.jsonl")}
    again = run_study(ONCE, folder, say=lambda line: None)
    assert {path: path.read_bytes() for path in folder.glob("*/*.jsonl")} == before
    assert len(again.evidence.stamps) == 2
    with pytest.raises(gs.InputError, match="rows of another declaration"):
        run_study(TINY, folder, say=lambda line: None)


@pytest.mark.exhaustive
def test_the_time_counts_earlier_starts_and_what_is_left_is_listed(done, tmp_path):
    outcome, folder, _ = done
    used = outcome.evidence.seconds / 3600
    late = run_study(ONCE, folder, hours=used / 2, say=lambda line: None)
    assert late.stopped
    ticks = iter(range(0, 10_000_000, 1000))
    ended = run_study(
        PLAIN, tmp_path, hours=1.0, say=lambda line: None, clock=lambda: float(next(ticks))
    )
    assert ended.stopped
    (part,) = ONCE.parts
    rows = ended.evidence.reported(part)
    assert 0 < len(rows) < 6
    assert ended.evidence.missing()[0].startswith("tiny-once is not complete: ")
    assert ended.evidence.parts == []
    assert any("the same command goes on" in line for line in lines_of(ended))
    whole = run_study(PLAIN, tmp_path, say=lambda line: None)
    assert whole.evidence.missing() == []
    assert [row["test"] for row in whole.evidence.reported(part)] == [
        row["test"] for row in outcome.evidence.reported(part)
    ]


@pytest.mark.exhaustive
def test_a_task_that_is_not_there_is_said_and_the_others_run(tmp_path):
    broken = replace(ONCE, parts=(replace(PART, name="gone", task="tyni"), *PLAIN.parts))
    outcome = run_study(broken, tmp_path, say=lambda line: None)
    assert "unknown task 'tyni'" in outcome.impossible["gone"]
    assert outcome.evidence.missing() == ["gone: not run."]
    wrong = estimated(broken.parts[0], broken.measured)
    assert "gone: cannot run: UnknownNameError: unknown task 'tyni'" in wrong.said(1)


@pytest.mark.exhaustive
def test_a_plan_says_how_many_cells_there_are_and_how_long_they_take():
    found = estimated(ONCE.parts[0], ONCE.measured)
    assert found.cells == (6, 6)
    assert found.other == 3
    assert found.seconds[0] > 0
    assert "tiny-once (once): 6 cells, 3 other measurements, 0.00 h" in found.said(2)
    tuned = estimated(PART, TINY.measured)
    assert tuned.cells[0] < tuned.cells[1]
    assert " to " in tuned.said(1)
    assert next(iter(total([found, tuned], 2))).startswith(f"in all: {6 + tuned.cells[0]} cells")


def test_a_trial_has_other_seeds_and_a_few_steps():
    trial = trial_of(TINY)
    assert [part.reported for part in trial.parts] == [(0, 1)] * 2
    assert {part.steps for part in trial.parts} == {3}
    assert trial.digest != TINY.digest
    plan = plan_of(trial.parts[0])
    assert not plan.tune
    assert plan.steps == 3
    assert plan_of(PART).tune


@pytest.mark.exhaustive
def test_a_part_that_is_tuned_has_controls_and_rates_within_the_grid(tmp_path):
    part = replace(PART, strategies=("sum",))
    outcome = run_study(replace(TINY, parts=(part,)), tmp_path, say=lambda line: None)
    labels = set(outcome.evidence.figures(part))
    assert labels >= {"sum", "scaled-sum", "n x mgda", "alone: joint"}
    assert outcome.evidence.missing() == []
    assert set(outcome.evidence.choices(part)) >= labels
    assert {line["strategy"] for line in outcome.evidence.other("flatness")} == {"sum"}
    claims = {claim.question[:20]: claim.answer for claim in answered(outcome.evidence)}
    assert claims["Multimodal accuracy:"].startswith("Against sum, joint-only is")
