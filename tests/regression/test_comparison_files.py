"""Comparisons: folders, disks, pictures and consoles."""

import io
import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery import cli
from gradsurgery.compare import (
    BASELINE,
    compare,
    read_results,
    summarise,
)
from gradsurgery.compare.results import Results
from tests.support.toy import line_losses


def test_two_comparisons_do_not_take_one_folder(tmp_path, monkeypatch):
    """The second looked before the first one had made its file."""
    with Results(tmp_path) as results:
        results.add({"kind": "setup"})
        monkeypatch.setattr("pathlib.Path.exists", lambda path: False)
        with pytest.raises(
            gs.InputError,
            match=r"already holds results, or another comparison"
            r".*give another --out, or move them away",
        ):
            Results(tmp_path)
    assert read_results(tmp_path) == [{"kind": "setup"}]


def test_training_takes_one_thread_and_gives_the_others_back(toy, tmp_path):
    seen = set()

    def losses(model, batch):
        seen.add(torch.get_num_threads())
        return line_losses(model, batch)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        results = compare(toy(losses=losses)(), tmp_path / "one")
        assert (seen, torch.get_num_threads()) == ({1}, 3)
        assert results.lines[0]["machine"]["threads"] == 1
        seen.clear()
        compare(toy(losses=losses)(threads=2), tmp_path / "two")
        assert (seen, torch.get_num_threads()) == ({2}, 3)
    finally:
        torch.set_num_threads(before)
    with pytest.raises(gs.InputError, match="threads: expected 1 or more"):
        toy()(threads=0)


def test_results_are_read_from_a_folder_and_errors_say_what_is_wrong(toy, tmp_path):
    results = compare(toy()(), tmp_path / "out")
    assert read_results(tmp_path / "out") == read_results(str(results.path)) == results.lines
    for given, message in (
        (tmp_path, "results.jsonl is not there: give the folder of a comparison"),
        (tmp_path / "none", "is not there"),
        (sys.executable, "cannot be read as results"),
        (__file__, "line 1: not a line of results"),
    ):
        with pytest.raises(gs.InputError, match=message):
            read_results(given)
    with pytest.raises(gs.InputError, match="summarise: expected the lines; got a path"):
        summarise(str(tmp_path), BASELINE)
    with pytest.raises(gs.InputError, match="compare: expected a Plan, then the folder; got str"):
        compare(str(tmp_path), toy()())


class FullDisk:
    """Within it no file may grow beyond a size: the system's own error, in the middle of a line."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_a_full_disk_keeps_whole_lines_and_says_so(toy, tmp_path):
    plan = toy()()
    whole = compare(plan, tmp_path / "whole")
    size = whole.path.stat().st_size
    kept = []
    with (
        FullDisk(size - 20),
        pytest.raises(
            gs.InputError,
            match=r"results.jsonl: a line could not be written .* the 2 lines before it are kept",
        ),
    ):
        compare(plan, tmp_path / "full", on_open=kept.append)
    assert [line["kind"] for line in read_results(tmp_path / "full")] == ["setup", "timing"]
    assert (tmp_path / "full" / "results.jsonl").read_bytes().endswith(b"}\n")  # no torn line
    assert [line["kind"] for line in kept[0].lines] == [
        "setup",
        "timing",
        "run",
    ]  # for whoever wants to print it


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gradsurgery", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


LINES = ("compare", "--tasks", "lines", "--strategies", "sum", "--seeds", "2", "--out")


def test_a_full_disk_ends_the_command_with_a_sentence_and_the_table(
    toy, tmp_path, monkeypatch, capsys
):
    toy(better="lower", figure="RMSE")
    assert command(monkeypatch, *LINES, str(tmp_path / "whole")) == 0
    capsys.readouterr()
    with FullDisk((tmp_path / "whole" / "results.jsonl").stat().st_size - 20):
        assert command(monkeypatch, *LINES, str(tmp_path / "full")) == 2
    out, err = capsys.readouterr()
    assert (
        "lines: test RMSE, mean ± std over 2 seeds" in out
    )  # the run that was not written is in it
    assert "Error: " in err
    assert "a line could not be written" in err
    assert [line["kind"] for line in read_results(tmp_path / "full")] == ["setup", "timing", "run"]


def test_a_picture_of_the_users_is_not_overwritten(toy, tmp_path, monkeypatch, capsys):
    toy()
    (tmp_path / "comparison.png").write_text("mine")
    assert command(monkeypatch, *LINES, str(tmp_path)) == 0
    assert (tmp_path / "comparison.png").read_text() == "mine"
    assert (tmp_path / "comparison-2.png").stat().st_size > 5000
    assert "comparison-2.png" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_tables_are_printed_whatever_the_console_can_show(toy, tmp_path, monkeypatch, encoding):
    toy()
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert command(monkeypatch, *LINES, str(tmp_path / "out")) == 0
    assert command(monkeypatch, "describe", "mgda") == 0
    text = out.buffer.getvalue().decode(encoding)
    assert {"ascii": "mean +- std", "latin-1": "mean ± std", "utf-8": "mean ± std"}[
        encoding
    ] in text
    assert "comparison.png" in text


def test_output_that_cannot_be_written_is_an_error_without_a_traceback(monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command(monkeypatch, "list") == 2
    assert capsys.readouterr().err.startswith("Error: ")


def test_paths_that_no_file_can_have_are_said(toy, tmp_path):
    for given in (None, 3, "a\0b", Path("a\0b")):
        with pytest.raises(gs.InputError, match="read_results: expected the path of a folder; got"):
            read_results(given)
        with pytest.raises(gs.InputError, match="compare: expected the path of a folder; got"):
            compare(toy()(), given)


@pytest.mark.parametrize(
    "text",
    [
        "cagrad(c=1.0)(c=2.0)",
        "cagrad(c=0.1)()",
        "cagrad(c=1).x(c=2)",
        "cagrad(c=1, c=2)",
        "cagrad(c={[]: 1})",
    ],
)
def test_options_that_are_written_twice_or_behind_the_brackets_are_errors(text):
    with pytest.raises(gs.StrategyError, match=r"^strategy 'cagrad\("):
        gs.get_strategy(text)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("mgda", gs.get_strategy("mgda")),
        ("cagrad(c=1.0)", gs.get_strategy("cagrad", c=1)),
        ("mgda(normalize='l2')", gs.get_strategy("mgda", normalize="l2")),
        ("cagrad(c=0.3)", "cagrad( c = 3e-1 )"),
    ],
)
def test_a_state_of_a_wrapped_strategy_is_loaded_however_that_is_written(before, now):
    model = nn.Linear(2, 2)

    def stepped(base):
        surgery = gs.Surgery("cr-mogm", model, base=base)
        surgery.backward(list(model(torch.ones(2))))
        return surgery

    for one, other in ((before, now), (now, before)):
        stepped(other).load_state_dict(stepped(one).state_dict())
    with pytest.raises(gs.InputError, match="Give the same options"):
        stepped("cagrad(c=0.7)").load_state_dict(stepped(now).state_dict())
    saved = stepped(now).state_dict()  # as earlier versions wrote it
    saved["options"] = {**dict(saved["options"]), "base": repr(gs.get_strategy(now))}
    stepped(now).load_state_dict(saved)
