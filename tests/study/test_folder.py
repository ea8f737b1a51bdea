"""A comparison's folder is diagnosed: `sum` is trained again, and what is there is not."""

import pytest

import gradsurgery as gs
from gradsurgery.compare import Plan, compare
from gradsurgery.report import write_report
from gradsurgery.report.write import diagnoses
from gradsurgery.study.measured.folder import diagnose_folder
from tests.study import tiny


@pytest.mark.exhaustive
def test_a_folder_is_diagnosed_with_its_rates_and_steps(tmp_path):
    plan = Plan.of(
        ["tiny"], ["sum", "mgda"], [0, 1], steps=4, lrs=[0.05], optimizer=["sgd", "adam"]
    )
    folder = tmp_path / "mine"
    compare(plan, folder)
    said = []
    assert diagnose_folder(folder, seeds=1, say=said.append) == 2
    assert said == ["diagnosing tiny, seed 0"] * 2
    lines = diagnoses(folder)
    assert {line["optimizer"] for line in lines} == {"sgd", "adam"}
    assert all("error" not in line for line in lines)
    assert {(line["lr"], line["joint"], line["modalities"]) for line in lines} == {
        (0.05, "fused", 2)
    }
    assert [at["step"] for at in lines[0]["steps"]] == [0, 1, 2, 4]
    assert diagnose_folder(folder, seeds=1, say=said.append) == 0
    text = write_report(folder)[1].read_text()
    assert text.count("### Gradients along runs of sum") == 2
    assert [line for line in text.splitlines() if line.startswith("## tiny")] == [
        "## tiny, sgd",
        "## tiny, adam",
    ]


def test_a_folder_without_sum_cannot_be_diagnosed(tmp_path):
    compare(Plan.of(["tiny"], ["mgda"], [0], steps=2), tmp_path)
    with pytest.raises(gs.InputError, match="there is no run of sum"):
        diagnose_folder(tmp_path)
    assert tiny.PART.task == "tiny"
