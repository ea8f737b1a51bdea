"""What a comparison says where it cannot go on: what was given, what is kept, what to do."""

import errno
import os
import signal

import pytest

import gradsurgery as gs
from gradsurgery.compare import Plan, Results, compare, read_results, summarise
from gradsurgery.compare import journal as files
from gradsurgery.compare.checking import check_in_terminal
from gradsurgery.compare.progress import Bars
from gradsurgery.compare.report import remarks
from gradsurgery.compare.terminal import compare_in_terminal
from gradsurgery.compare.where import place_of
from gradsurgery.report import write_report
from gradsurgery.tasks import Task
from tests.support.protocol import losses, two_modalities
from tests.support.rows import failed, known, row, setup, write

pytestmark = pytest.mark.quick


def plan_of(seeds=(0, 1), strategies=("sum",), **settings):
    def two(data_root, seed):
        return two_modalities(data_root, seed, **settings)

    plan = Plan.of(["multimnist"], strategies, seeds)
    return Plan(**{**vars(plan), "tasks": (Task("two", two, None, None, 0.1, "", 30),)})


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Ended by SIGTERM.")],
)
def test_a_signal_keeps_what_is_finished_and_says_how_to_go_on(number, code, word, tmp_path, capfd):
    seen = [0]

    def ending(model, batch):
        seen[0] += 1
        if seen[0] == 150:  # after some of the runs
            os.kill(os.getpid(), number)
        return losses(model, batch)

    before = signal.getsignal(number)
    plan = plan_of(seeds=range(8), losses=ending)
    assert compare_in_terminal(plan, tmp_path / "out") == code
    assert signal.getsignal(number) is before
    said, err = capfd.readouterr()
    kept = len(read_results(tmp_path / "out")) - 2
    assert 0 < kept < 8
    assert f"{word} The run at work (two, sum, seed {kept}, step " in err
    assert f"Kept: {kept} of 8 runs in {tmp_path / 'out'}. The same command" in err
    assert "two: test figures" in said
    assert f"gradsurgery report {tmp_path / 'out'}" in said


def test_a_signal_before_the_first_step_of_a_process_is_heeded():
    with Bars(Plan.of(["multimnist"])) as bars:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            bars.waiting()
    assert bars.stopped_by == signal.SIGTERM


def test_another_plan_is_refused_with_what_differs_and_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["gradsurgery", "compare", "--seeds", "2"])
    with Results(tmp_path, plan_of()) as results:
        results.add({"kind": "setup", **_setup(plan_of())})
    with pytest.raises(gs.InputError, match=r"seeds: \[0, 1\] there, \[0, 1, 2\] now") as caught:
        Results(tmp_path, plan_of(seeds=(0, 1, 2)))
    assert "its command: gradsurgery compare --seeds 2" in str(caught.value)
    assert "give another --out" in str(caught.value)
    with pytest.raises(gs.InputError, match="strategies: mgda now, not there"):
        Results(tmp_path, plan_of(strategies=("sum", "mgda")))


def _setup(plan):
    from gradsurgery.compare.results import setup_line

    return setup_line(plan)


@pytest.mark.parametrize(("lines", "kept"), [(1, "the 1 line before it is"), (3, "the 3 lines")])
def test_a_full_disk_says_what_is_kept_and_that_it_goes_on(lines, kept, tmp_path, monkeypatch):
    def full(file, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Results(tmp_path) as results:
        for seed in range(lines):
            results.add(row("two", "sum", seed, {"fused": 1.0}))
        monkeypatch.setattr("gradsurgery.compare.results.write_line", full)
        with pytest.raises(gs.InputError, match=kept) as caught:
            results.add(row("two", "sum", 9, {"fused": 1.0}))
    assert "No space left" in str(caught.value)
    assert str(caught.value).endswith("Once there is room the same command goes on.")
    assert files.unwritten("rows.jsonl", OSError("full")).count("those before it are kept") == 1


def test_failures_say_the_step_once_per_cause_and_that_they_stay(capsys):
    lines = [*known(strategies=("sum",)), *(failed("digits", "mgda", s) for s in range(8))]
    late = failed("digits", "pcgrad", 0) | {"error": "NonFiniteError: the figure is nan."}
    late["failed_at"] = {"step": 101, "last_loss": 1.0}
    notes = remarks(summarise([*lines, late], "sum"), Plan.of(["multimnist"]))
    (first, last) = (note for note in notes if note.startswith("failed: "))
    assert first == (
        "failed: digits, mgda, seed 0, lr 0.1, at step 5: NonFiniteError: the loss 'left' is NaN "
        "(7 more like it)"
    )
    assert ", after the last step: NonFiniteError: the figure is nan." in last
    assert notes[-1].startswith("Failed runs are kept as they are, and not trained again")


def test_a_folder_of_the_search_alone_says_so(tmp_path):
    tune = row("digits", "sum", 1000, {"left": 1.0}, kind="tune", test=None)
    folder = write(tmp_path / "tuning", [setup(digits={}), tune, tune | {"seed": 1001}])
    with pytest.raises(gs.InputError, match="only 2 of the search of learning rates"):
        write_report(folder)


def test_the_report_says_where_a_run_failed(tmp_path):
    late = failed("digits", "mgda", 0) | {"failed_at": {"step": 101, "last_loss": 1.0}}
    _, markdown = write_report(write(tmp_path, [*known(strategies=("sum",)), late]))
    assert "| evaluation | 1 |" in markdown.read_text()


def _raising(model, batch):
    raise ValueError("row 17 has no label")


def test_an_error_of_the_task_is_told_with_its_place_in_the_users_file(tmp_path, capfd):
    plan = plan_of(losses=_raising)
    place = f"(test_messages.py, line {_raising.__code__.co_firstlineno + 1}, in _raising)"
    assert compare_in_terminal(plan, tmp_path) == 1
    (run, _) = read_results(tmp_path)[2:]
    assert run["failed_at"]["where"] in place
    said = " ".join(capfd.readouterr().out.split())
    assert f"ValueError: row 17 has no label {place} (1 more like it)" in said
    assert "two: no run gave a figure" in said
    assert "conflict rate:" not in said
    assert check_in_terminal(plan) == 1
    assert f"wrong: ValueError: row 17 has no label {place}" in capfd.readouterr().out
    assert place_of(gs.InputError("given by us")) is None


def test_a_report_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    folder = write(tmp_path / "done", known(strategies=("sum", "near")))
    html, _ = write_report(folder)
    before = html.read_text()

    def full(path, text, encoding):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(
        gs.InputError, match=r"report.html: the report cannot be written .*No space"
    ):
        write_report(folder)
    assert html.read_text() == before
    names = {path.name for path in folder.iterdir()}
    assert names == {"results.jsonl", "report.html", "report.md"}


def test_a_primary_figure_that_is_not_there_is_said_before_any_training(tmp_path):
    plan = plan_of()
    (task,) = plan.tasks
    plan = Plan(**{**vars(plan), "tasks": (Task(**{**vars(task), "primary": "fsued"}),)})
    with pytest.raises(gs.InputError, match="two: primary='fsued' is no figure .*'fused'"):
        compare(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()
