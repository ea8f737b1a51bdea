"""Answers of the study are written from its rows: right on rows with known differences."""

import dataclasses

import pytest

from gradsurgery.study import DECLARATION, Evidence
from gradsurgery.study.claims import NOT_RUN, answered
from gradsurgery.study.claims.claim import counted, joined
from gradsurgery.study.claims.gradients import assumption, conflict
from gradsurgery.study.claims.minima import flatter, ratio
from gradsurgery.study.claims.strategies import (
    beats,
    crossed,
    difficulty,
    encoders,
    guarded,
    multimodal,
    predicted,
)
from gradsurgery.study.whole import declared_labels
from tests.study.known import choice, diagnosis, evidence, flat, rows

PARTS = {part.name: part for part in DECLARATION.parts}
SGD, ADAM, MFEAT = (PARTS[name] for name in ("av-digits-sgd", "av-digits-adam", "mfeat"))


def test_without_rows_every_question_is_there_and_none_is_answered():
    claims = answered(Evidence(DECLARATION, {}))
    assert len(claims) == 13
    assert {claim.answer for claim in claims} == {NOT_RUN}
    assert all(claim.question.endswith("?") and claim.used for claim in claims)


def test_a_strategy_that_gains_everywhere_and_one_that_gains_somewhere():
    found = evidence(
        DECLARATION,
        {
            SGD.name: rows(SGD, {"mmpareto": 3.0, "scaled-sum": 0.0}),
            MFEAT.name: rows(MFEAT, {"mmpareto": 2.0, "scaled-sum": 2.1}),
        },
    )
    first = beats(found, "mmpareto", "sum")
    assert first.answer == "Yes: mmpareto against sum is better on 2 of 2 parts."
    assert "av-digits-sgd: mmpareto is better than sum: +3.00 points" in first.details[0]
    second = beats(found, "mmpareto", "scaled-sum")
    assert second.answer == (
        "On some parts: mmpareto against scaled-sum is better on 1 of 2 parts, equivalent on 1."
    )
    none = beats(found, "scaled-sum", "mmpareto")
    assert none.answer.startswith("No: scaled-sum against mmpareto is worse on 1")


def test_a_difference_that_has_the_other_sign_on_validation_data_says_so():
    lines = rows(SGD, {"mmpareto": 3.0, "scaled-sum": 3.0})
    for line in lines:
        if line["strategy"] == "mmpareto":
            less = {name: value - 5.0 for name, value in line["validation"].items()}
            line["validation"] = less
    found = evidence(DECLARATION, {SGD.name: lines})
    said = "the difference has the other sign: -2.00 points, 95 % interval"
    assert said in beats(found, "mmpareto", "sum").details[0]
    assert "sign" not in beats(found, "scaled-sum", "sum").details[0]


def test_multimodal_accuracy_and_encoders():
    shifts = {
        "mmpareto": {"fused": 0.1, "image": 2.0, "audio": -2.0},
        "n x mgda": {"fused": -3.0},
        "alone: joint": {"fused": -2.0},
        "alone: image": {"image": 2.0},
        "alone: audio": {"audio": 0.0},
    }
    found = evidence(DECLARATION, {SGD.name: rows(SGD, shifts)})
    claim = multimodal(found)
    assert claim.answer == (
        "Against sum, joint-only is worse on 1 of 1 part; n x mgda is worse on 1 of 1 part; "
        "mmpareto is equivalent on 1 of 1 part."
    )
    assert "joint-only against sum worse (-2.00 points" in claim.details[0]
    own = encoders(found)
    assert own.answer.startswith(
        "Of the figures of single encoders at tuned rates 1 of 2 are above sum's, 1 below; "
        "0 of 2 are above the same encoder trained alone, 1 below"
    )
    assert "image: mmpareto +2.00 points" in own.details[0]


def test_difficulty_and_transformer():
    hard, cross = PARTS["multimnist-hard"], PARTS["av-transformer"]
    found = evidence(
        DECLARATION,
        {
            hard.name: rows(
                hard, {"mmpareto": {"mean": 0.0, "right": 1.5}}, objectives=("mean", "right")
            ),
            cross.name: rows(cross, {"mmpareto": -4.0}),
        },
    )
    claim = difficulty(found)
    assert claim.answer == "No: mmpareto against sum is equivalent on 1 of 1 part."
    assert "right alone +1.50 points" in claim.details[0]
    assert crossed(found).answer == "No: mmpareto against sum is worse on 1 of 1 part."


def test_the_guard_is_compared_with_the_same_strategy_without_it():
    shifts = {"mgda": -2.0, "mgda, guard=correct": -2.0, "sum, guard=correct": 1.5}
    claim = guarded(evidence(DECLARATION, {SGD.name: rows(SGD, shifts)}))
    assert claim.answer == (
        "On some parts: with the guard a strategy is better in 1 of 2 cases, equivalent in 1, "
        "compared with itself without it."
    )
    assert claim.details[0].startswith("av-digits-sgd: sum with the guard better (+1.50 points")


def test_predictions_are_counted():
    found = evidence(
        DECLARATION,
        {SGD.name: rows(SGD, {"mgda": -3.0, "alone: joint": 0.0, "pcgrad": 0.1, "upgrad": 5.0})},
    )
    equivalent, worse = DECLARATION.predictions
    assert predicted(found, worse).answer == (
        "In 1 of 2 cases. 6 of the 8 that were declared have no verdict."
    )
    assert "joint-only is equivalent" in predicted(found, worse).details[1]
    assert predicted(found, equivalent).answer.startswith("In 1 of 2 cases. 14 of the 16")


def test_flatness_is_compared_by_ratios_at_the_same_seeds():
    values = [10.0 + i for i in range(8)]
    lines = [
        *flat(SGD, "sum", values),
        *flat(SGD, "mmpareto", [x * (0.48 + 0.01 * i) for i, x in enumerate(values)]),
        *flat(SGD, "scaled-sum", [x * (0.4 + 0.05 * i) for i, x in enumerate(values)]),
    ]
    claim = flatter(evidence(DECLARATION, {}, lines))
    assert claim.answer == (
        "mmpareto: flatter than sum on av-digits-sgd; "
        "neither flatter nor sharper than scaled-sum on av-digits-sgd."
    )
    assert "av-digits-sgd: mmpareto has 0.51 times that of sum." not in claim.details
    assert "mmpareto has 0.51 (95 % interval 0.49 to 0.54, 8 seeds) times" in claim.details[0]
    assert ratio({0: 1.0}, {1: 2.0})[1] == "not known to be flatter"
    assert ratio({0: 4.0, 1: 8.8, 2: 6.0}, {0: 1.0, 1: 2.0, 2: 1.4})[1] == "sharper"
    failed = [{**line, "error": "NotReachedError: no"} for line in lines]
    assert flatter(evidence(DECLARATION, {}, failed)).answer == NOT_RUN


def test_conflicts_stand_beside_their_control_and_assumption_1_beside_initialisation():
    steps = {0: (1.0, 0.5, 0.02, "orthogonal", "holds"), 60: (0.4, 0.04, 0.3, "none", "fails")}
    found = evidence(DECLARATION, {}, [diagnosis(SGD, steps)])
    claim = conflict(found)
    assert "At the first step 50% of batches conflict beside 2% for one loss" in claim.answer
    assert "later 4% of batches conflict beside 30%" in claim.answer
    assert "step 60 (loss at 40% of the start): 4% of batches conflict, 30%" in claim.details[1]
    said = assumption(found)
    assert "the larger length holds in 0 and fails in 1 of 1; larger" in said.answer
    assert "the median ratio of lengths is 1.40, and √M is 1.41" in said.answer
    assert "magnitude holds in 1 and fails in 0 of 1" in said.details[0]
    assert "(√M = 1.41)" in said.details[0]


def test_advice_has_the_sizes_of_what_can_be_chosen():
    curve = {0.1: 90.0, 0.0444: 88.0, 0.225: 70.0, 0.15: 89.0}
    found = evidence(
        DECLARATION,
        {
            SGD.name: [
                *rows(SGD, {"mmpareto": 0.1, "mgda": -3.0, "alone: joint": -2.0}),
                choice(SGD, "sum", 0.1, curve),
            ],
            ADAM.name: rows(ADAM, {"mmpareto": 0.0, "alone: joint": -1.5}),
        },
    )
    claim = answered(found)[-1]
    assert "Training without the unimodal losses is worse on 2 of 2 parts." in claim.answer
    assert "differs on validation by -2.00 at 0.0444 and -20.0 at 0.225 points" in claim.answer
    assert "The optimizer: av-digits: sum with adam against sum with sgd" in claim.answer
    assert "Strategies better than tuned sum on some part: none." in claim.answer
    assert "Strategies worse than tuned sum on some part: mgda." in claim.answer


def test_what_is_missing_is_listed():
    shifts = dict.fromkeys(label for label in declared_labels(SGD, []) if label != "sum")
    lines = rows(SGD, dict.fromkeys(shifts, 0.0), seeds=19)
    lines += rows(SGD, dict.fromkeys(shifts, 0.0))[-80:]
    found = evidence(
        DECLARATION,
        {SGD.name: lines, MFEAT.name: [choice(MFEAT, "sum", 0.1, {})]},
        whole=False,
    )
    missing = found.missing()
    count = len(shifts) + 1
    assert missing[0] == (f"av-digits-sgd is not complete: {20 * count - 20} of {20 * count} runs.")
    assert missing[1] == "The flatness of av-digits-sgd is not complete: 0 of 50 measurements."
    assert "mfeat is not complete: 0 of " in missing[4]
    assert missing[4].endswith(" runs. Its learning rates were begun.")
    assert "yeast: not run." in missing


def test_a_part_that_is_half_done_has_no_verdict_until_its_last_row():
    lines = rows(MFEAT, {"mmpareto": 5.0, "scaled-sum": 0.0})
    half = evidence(DECLARATION, {MFEAT.name: lines}, whole=False)
    assert half.parts == []
    said = half.begun()
    assert said == [half.progress(MFEAT).said]
    assert said[0].startswith("mfeat is not complete: 60 of ")
    assert all(claim.answer in (NOT_RUN, *said) for claim in answered(half))
    assert beats(half, "mmpareto", "sum").answer == said[0]
    assert difficulty(half).answer == NOT_RUN  # another part's question
    whole = evidence(DECLARATION, {MFEAT.name: lines})
    assert whole.parts == [MFEAT]
    assert beats(whole, "mmpareto", "sum").answer.startswith("Yes: ")
    last = dataclasses.replace(whole, lines={MFEAT.name: whole.lines[MFEAT.name][:-1]})
    assert not last.progress(MFEAT).whole
    assert beats(last, "mmpareto", "sum").answer == last.begun()[0]
    (lacking,) = last.progress(MFEAT).lacking
    assert last.missing()[-1] == "cg-mnist: not run."
    assert f"Missing: {lacking} (1)." in last.missing()[2]


def test_measurements_that_are_half_done_answer_nothing():
    lines = flat(SGD, "mmpareto", [1.0] * 10) + flat(SGD, "sum", [2.0] * 10)
    half = evidence(DECLARATION, {}, lines, whole=False)
    assert flatter(half).answer == (
        "The flatness of av-digits-sgd is not complete: 20 of 50 measurements."
    )
    one = [diagnosis(SGD, {0: (1.0, 0.5, 0.02, "orthogonal", "holds")})]
    assert conflict(evidence(DECLARATION, {}, one, whole=False)).answer == (
        "The diagnosis of av-digits-sgd is not complete: 1 of 10 measurements."
    )


def test_a_small_difference_that_is_surely_one_is_said():
    found = evidence(DECLARATION, {SGD.name: rows(SGD, {"mmpareto": 0.5})})
    assert beats(found, "mmpareto", "sum").answer == (
        "No: mmpareto against sum is equivalent on 1 of 1 part. Of those that count as "
        "equivalent, the 95 % interval is above 0 on av-digits-sgd."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"digest": "another"}, ["has changed since rows"]),
        ({"changed": True}, ["not committed"]),
        ({"commit": None, "committed": None}, ["not known"]),
        ({"committed": "2026-05-02T10:00:00Z"}, ["60 rows are older"]),
    ],
)
def test_rows_that_were_not_declared_beforehand_are_flagged(change, said):
    found = evidence(DECLARATION, {SGD.name: rows(SGD, {"mgda": 0.0, "mmpareto": 0.0})})
    stamps = [{**found.stamps[0], **change}]
    flags = dataclasses.replace(found, stamps=stamps).flags
    assert len(flags) == len(said)
    assert all(piece in flag for piece, flag in zip(said, flags, strict=True))
    assert "No declaration" in dataclasses.replace(found, stamps=[]).flags[0]


def test_words():
    assert counted(["better", "undecided", "better"], "tasks") == (
        "better on 2 of 3 tasks, undecided on 1"
    )
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert joined([]) == ""
