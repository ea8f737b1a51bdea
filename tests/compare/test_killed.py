"""Comparisons that are killed: nothing but the cells at work is lost, and no process is left."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gradsurgery as gs
from gradsurgery.compare import Plan, compare, read_results
from gradsurgery.compare.agenda import Agenda
from gradsurgery.compare.baselines import methods_of
from gradsurgery.compare.pool import in_processes
from gradsurgery.compare.results import Results
from tests.compare import grid_task
from tests.support.paths import ROOT

SAME = ("kind", "task", "strategy", "seed", "lr", "steps", "optimizer", "test", "validation", "key")


def rows(folder):
    """What does not depend on the time and the machine, in one order."""
    runs = [line for line in read_results(folder) if line["kind"] == "run"]
    return sorted(json.dumps([line[name] for name in SAME]) for line in runs)


def children(process):
    """The processes whose parent this one is."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(processes, seconds=30):
    """Whether all of them end within this time."""
    end = time.monotonic() + seconds
    while any(map(alive, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def grid(seeds, lrs):
    return Plan.of([f"{grid_task.__name__}:grid"], ["sum", "mgda", "pcgrad"], seeds, lrs=lrs)


def command(out, seeds, lrs, jobs):
    numbers = lambda values: ",".join(map(str, values))  # noqa: E731
    target = f"{grid_task.__name__}:grid"
    return [
        sys.executable, "-m", "gradsurgery", "compare", target, "--strategies", "sum,mgda,pcgrad",
        "--seeds", numbers(seeds), "--lr", numbers(lrs), "--out", str(out), "--jobs", str(jobs),
    ]  # fmt: skip


def killed(out, times, rng, jobs=2, seeds=range(5), lrs=(0.01, 0.02, 0.03, 0.05)):
    """Start the command again and again, each time with a SIGKILL, then let it end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    kept = 0
    for turn in range(times + 1):
        process = subprocess.Popen(
            command(out, seeds, lrs, jobs),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if turn == times:
            said = process.communicate(timeout=300)[1]
            assert process.returncode == 0, said
            return
        begin, wait = time.monotonic(), rng.uniform(0.0, 1.5)
        while not children(process.pid) and process.poll() is None:
            time.sleep(0.05)  # a kill while Python starts would say nothing
            assert time.monotonic() < begin + 120
        time.sleep(wait)
        workers = children(process.pid)
        aim = rng.choice(["parent", "worker", "both"])
        for pid in [process.pid] * (aim != "worker") + workers[:1] * (aim != "parent"):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if aim == "worker":  # it is replaced; the parent goes next
            time.sleep(rng.uniform(0.0, 1.0))
            workers += children(process.pid)
            process.kill()
        process.communicate()
        assert gone(workers), "a worker has survived its parent"
        found = len(rows(out)) if (out / "results.jsonl").exists() else 0
        assert found >= kept, "a row was lost"
        kept = found


@pytest.mark.exhaustive
def test_a_grid_that_is_killed_ten_times_has_the_rows_of_one_that_is_not(tmp_path):
    plan = grid(range(5), [0.01, 0.02, 0.03, 0.05])
    compare(plan, tmp_path / "whole")
    killed(tmp_path / "killed", 10, random.Random(0))
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    assert len(rows(tmp_path / "whole")) == 60


def test_a_comparison_whose_file_ends_anywhere_goes_on_to_the_same_rows(tmp_path):
    """What a kill leaves in one process: whole lines, and a piece of the next."""
    plan = Plan.of([f"{grid_task.__name__}:grid"], ["sum"], [0, 1, 2], steps=2)
    whole = compare(plan, tmp_path / "whole").path.read_bytes()
    rng = random.Random(0)
    for cut in (rng.randrange(len(whole)), len(whole) - 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "results.jsonl").write_bytes(whole[:cut])
        compare(plan, folder)
        assert rows(folder) == rows(tmp_path / "whole")
        lines = (folder / "results.jsonl").read_bytes().splitlines()
        assert len([json.loads(line) for line in lines]) == whole.count(b"\n")


class Kills:
    """A listener that ends the first process of a pool after the first row."""

    def __init__(self):
        self.finished_runs, self.workers = [], set()
        self.others = set(children(os.getpid()))  # other tests' processes

    def timing(self, task, rounds): ...
    def timed(self): ...
    def stepped(self, step, steps, loss): ...

    def started(self, run):
        self.workers |= set(children(os.getpid())) - self.others

    def finished(self, run, line):
        self.finished_runs.append(run)
        if len(self.finished_runs) == 1:
            os.kill(min(self.workers), signal.SIGKILL)


@pytest.mark.exhaustive
def test_a_process_that_is_killed_is_replaced_and_every_row_has_what_it_should(tmp_path):
    plan = Plan.of([f"{grid_task.__name__}:slow-grid"], ["sum"], [0, 1], optimizer="adam", steps=9)
    with Results(tmp_path / "pool", plan) as results:
        results.add({"kind": "setup"})
        listener = Kills()
        problem = plan.tasks[0].problem(None, 0)
        agenda = Agenda(plan, {"slow-grid": methods_of(plan, plan.tasks[0], problem)}, [])
        in_processes(plan, agenda, results, listener, jobs=1, timeout=None)
    assert gone(listener.workers)
    assert len(listener.workers) == 2
    found = [line for line in read_results(tmp_path / "pool") if line["kind"] == "run"]
    assert [line["seed"] for line in sorted(found, key=lambda line: line["seed"])] == [0, 1]
    for line in found:
        assert line["versions"]["torch"]
        assert line["machine"]
        assert line["seconds"] > 0
        assert line["cpu_seconds"] > 0
        assert (line["optimizer"], line["options"], line["steps"]) == ("adam", {}, 9)
    apart = compare(plan, tmp_path / "here")
    assert rows(tmp_path / "pool") == rows(apart.path.parent)


@pytest.mark.exhaustive
def test_a_cell_that_takes_too_long_is_a_failed_row(tmp_path):
    plan = Plan.of([f"{grid_task.__name__}:slow-grid"], ["sum"], [0], steps=10_000)
    (slow,) = compare(plan, tmp_path, timeout=8.0).runs
    assert slow["error"] == "TimeoutError: it took longer than 8 seconds."
    assert slow["failed_at"]["step"] > 1
    assert slow["failed_at"]["last_loss"] > 0
    assert [line["kind"] for line in read_results(tmp_path)] == ["setup", "timing", "run"]


@pytest.mark.exhaustive
def test_a_cell_that_ends_its_process_again_and_again_is_a_failed_row(tmp_path):
    plan = Plan.of([f"{grid_task.__name__}:deadly"], ["sum"], [0, 1, 2])
    results = compare(plan, tmp_path, jobs=2)
    found = {line["seed"]: line for line in results.runs}
    assert all("test" in found[seed] for seed in (0, 2))
    assert "its process ended 3 times (exit status -9)" in found[1]["error"]


@pytest.mark.exhaustive
def test_rows_of_other_machines_are_read_once_with_a_result_before_a_failure(tmp_path):
    plan = grid([0], [0.01])
    results = compare(plan, tmp_path / "a")
    other = compare(grid([0], [0.01]), tmp_path / "b")
    first, *rest = other.runs
    moved = tmp_path / "a" / "results-there.jsonl"
    moved.write_text("".join(json.dumps(line) + "\n" for line in rest) + '{"kind": "ru')
    assert read_results(tmp_path / "a") == results.lines
    failed = {k: x for k, x in first.items() if k not in ("test", "validation")} | {"error": "?"}
    lines = [json.loads(text) for text in results.path.read_text().splitlines()]
    lines = [failed if line.get("key") == first["key"] else line for line in lines]
    results.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    moved.write_text(json.dumps(first) + "\n")
    assert not any("error" in line for line in read_results(tmp_path / "a"))


def test_a_task_that_a_process_cannot_find_and_numbers_that_make_no_sense_are_errors(tmp_path):
    plan = grid([0], [0.01])
    for wrong in ({"jobs": 0}, {"jobs": 1.5}, {"timeout": 0}):
        with pytest.raises(gs.InputError, match="jobs and timeout are positive"):
            compare(plan, tmp_path, **wrong)
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'adam'"):
        Plan.of(["multimnist"], ["sum"], [0], optimizer="adma")
