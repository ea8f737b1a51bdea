"""What the study measures besides: flatness at equal loss, gradients on the way."""

import time
from dataclasses import replace

import pytest
import torch

from gradsurgery.study.evidence import MEASURED, Evidence, read_evidence
from gradsurgery.study.measured import cells_of, measure
from gradsurgery.study.measured.cells import described, restored
from gradsurgery.study.measured.running import measure_all
from gradsurgery.study.measured.training import examples, total
from gradsurgery.tasks import get_task
from tests.study.known import choice
from tests.study.tiny import PART, TINY

LRS = {"sum": 0.2, "mmpareto": 0.1}


@pytest.fixture
def evidence():
    chosen = [choice(PART, name, lr, {lr: 1.0}) for name, lr in LRS.items()]
    return Evidence(TINY, {PART.name: chosen})


def test_cells_are_at_the_rates_that_were_chosen(evidence):
    cells = list(cells_of(evidence, PART))
    assert [(cell.kind, cell.strategy, cell.lr) for cell in cells] == [
        ("flatness", "sum", 0.2),
        ("flatness", "mmpareto", 0.1),
        ("diagnosis", "sum", 0.2),
    ]
    assert {cell.seed for cell in cells} == {100}
    assert len({cell.key for cell in cells}) == 3
    assert list(cells_of(Evidence(TINY, {}), PART)) == []  # no rate is known yet
    untuned = list(cells_of(Evidence(TINY, {}), TINY.parts[1]))
    assert {cell.lr for cell in untuned} == {get_task("tiny").lr}
    assert [restored(described(cell)) for cell in cells] == cells


def test_runs_are_stopped_at_equal_training_loss(evidence):
    cells = [cell for cell in cells_of(evidence, PART) if cell.kind == "flatness"]
    lines = [measure(cell) for cell in cells]
    for line in lines:
        assert line["loss"] <= 0.9 * line["start"]
        assert line["loss"] > 0.7 * line["start"]
        assert line["converged"]
        assert line["eigenvalue"] > 0
        assert line["step"] > 0
    assert lines[0]["start"] == lines[1]["start"]  # the same weights and examples
    assert measure(cells[0])["eigenvalue"] == lines[0]["eigenvalue"]


def test_a_loss_that_is_not_reached_is_an_error_in_the_line(evidence):
    cell = next(cells_of(evidence, PART))
    line = measure(replace(cell, how=replace(cell.how, loss=0.01)))
    assert line["error"].startswith("NotReachedError: the training loss is")
    assert "eigenvalue" not in line


def test_gradients_are_diagnosed_at_shares_of_the_run(evidence):
    (cell,) = (cell for cell in cells_of(evidence, PART) if cell.kind == "diagnosis")
    line = measure(cell)
    assert [at["step"] for at in line["steps"]] == [0, 6]
    assert line["steps"][0]["share"] == 1.0
    assert line["steps"][1]["share"] < 1.0
    pairs = line["steps"][0]["pairs"]
    assert {(pair["first"], pair["second"]) for pair in pairs} == {
        ("audio", "fused"),
        ("face", "fused"),
    }
    assert all(pair["assumption"]["magnitude"] in ("holds", "fails", "undecided") for pair in pairs)


def test_examples_are_one_batch_where_batches_are_tuples():
    problem = get_task("tiny").problem(None, 0)
    assert len(examples(problem, 100)) == 2  # dicts are not joined
    x = torch.arange(40.0)
    plain = replace(problem, batches=lambda: [(x[:16], x[:16]), (x[16:32], x[16:32])])
    ((first, second),) = examples(plain, 30)
    assert torch.equal(first, x[:30])
    assert torch.equal(second, x[:30])
    torch.manual_seed(0)
    model = problem.model()
    model.train()
    assert total(problem, model, examples(problem, 100)) > 0
    assert model.training


@pytest.mark.exhaustive
def test_processes_write_a_line_per_cell_and_stop_in_time(evidence, tmp_path):
    cells = list(cells_of(evidence, PART))
    told = []
    folder = tmp_path / MEASURED
    given = {"jobs": 2, "told": lambda cell, line: told.append(cell.key)}
    assert measure_all(cells, folder, deadline=time.monotonic() - 1, **given) == 3
    assert measure_all(cells, folder, deadline=time.monotonic() + 100, **given) == 0
    assert sorted(told) == sorted(cell.key for cell in cells)
    read = read_evidence(TINY, tmp_path)
    assert {line["key"] for line in read.measured} == set(told)
    assert len(read.other("flatness")) == 2
    (line,) = read.other("diagnosis")
    assert line["steps"] == measure(cells[2])["steps"]  # the same in a process of its own
