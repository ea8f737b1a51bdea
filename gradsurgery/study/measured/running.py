"""Measurements in several processes; each line is on the disk before the next cell is given."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gradsurgery.compare.journal import journal_of_worker, write_line
from gradsurgery.study.measured.cells import Cell, described, measure

WORKER = "gradsurgery.study.measured.worker"
Told = Callable[[Cell, dict[str, Any]], None]


def measure_all(
    cells: Sequence[Cell],
    folder: Path,
    *,
    jobs: int,
    deadline: float,
    told: Told,
    data_root: Path | None = None,
) -> int:
    """Measure cells and write their lines to a file of this process in a folder.

    Args:
        cells: what is not there yet.
        folder: made where it is not there.
        jobs: processes, of one thread each; with one it is this process.
        deadline: of `time.monotonic`; what is not begun by then is left.
        told: given every line once it is written.
        data_root: of the tasks.

    Returns:
        How many are left.
    """
    if not cells or time.monotonic() >= deadline:
        return len(cells)
    folder.mkdir(parents=True, exist_ok=True)
    if jobs == 1:
        return _here(cells, folder, deadline, told, data_root)
    todo: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in cells:
        todo.put(cell)
    answers: queue.SimpleQueue[tuple[Cell, dict[str, Any]] | None] = queue.SimpleQueue()
    count = min(jobs, len(cells))
    workers = [_started(data_root) for _ in range(count)]
    for worker in workers:
        arguments = (worker, todo, answers, deadline)
        threading.Thread(target=_serve, args=arguments, daemon=True).start()
    done, serving = 0, count
    try:
        with journal_of_worker(folder).open("xb", buffering=0) as file:
            while serving:
                answer = answers.get()
                if answer is None:
                    serving -= 1
                    continue
                cell, line = answer
                write_line(file, json.dumps(line))
                done += 1
                told(cell, line)
    finally:
        for worker in workers:
            _end(worker)
    return len(cells) - done


def _here(
    cells: Sequence[Cell], folder: Path, deadline: float, told: Told, data_root: Path | None
) -> int:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    done = 0
    try:
        with journal_of_worker(folder).open("xb", buffering=0) as file:
            for cell in cells:
                if time.monotonic() >= deadline:
                    break
                line = measure(cell, data_root)
                write_line(file, json.dumps(line))
                done += 1
                told(cell, line)
    finally:
        torch.set_num_threads(before)
    return len(cells) - done


def _started(data_root: Path | None) -> "subprocess.Popen[bytes]":
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    worker = subprocess.Popen(
        [sys.executable, "-m", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **threads, "PYTHONPATH": path},
    )
    root = None if data_root is None else str(data_root)
    _send(worker, {"path": sys.path, "data_root": root})
    return worker


def _end(worker: "subprocess.Popen[bytes]") -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):
            pipe.close()


def _send(worker: "subprocess.Popen[bytes]", what: dict[str, Any]) -> None:
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(what).encode() + b"\n")
    worker.stdin.flush()


def _serve(
    worker: "subprocess.Popen[bytes]",
    todo: "queue.SimpleQueue[Cell]",
    answers: "queue.SimpleQueue[tuple[Cell, dict[str, Any]] | None]",
    deadline: float,
) -> None:
    """Give one process cells until there are none, the time is over, or it has ended."""
    assert worker.stdout is not None
    while time.monotonic() < deadline:
        try:
            cell = todo.get_nowait()
        except queue.Empty:
            break
        try:
            _send(worker, described(cell))
            text = worker.stdout.readline()
        except (OSError, ValueError):  # it was ended
            break
        if not text.endswith(b"\n"):
            break  # its cell has no line, and is measured by the next start
        answers.put((cell, json.loads(text)))
    answers.put(None)
