"""Cells in several processes, each started afresh: one thread of torch, a time limit, restarts."""

import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradsurgery import InputError
from gradsurgery.compare.agenda import Agenda
from gradsurgery.compare.cell import begun
from gradsurgery.compare.listener import Listener, planned, waiting
from gradsurgery.compare.plan import Plan, Run
from gradsurgery.compare.results import Results
from gradsurgery.compare.worker import described

TRIES = 3  # a cell whose process ended so often has failed; once may be chance, or someone's kill
WAIT = 0.1  # seconds between two words to the listener, so that Ctrl-C is heeded


class _Worker:
    """One process, and what it answers."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(plan.threads))
        path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
        self._ending = threading.Lock()  # both the thread that serves it and the first one may
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gradsurgery.compare.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **threads, "PYTHONPATH": path},
        )
        self.answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.send({"plan": described(plan), "folder": str(folder)})

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as answers:
            for text in answers:
                with contextlib.suppress(ValueError):  # a line that its end tore
                    self.answers.put(json.loads(text))
        self.answers.put(None)

    def send(self, what: dict[str, Any]) -> None:
        """Ask for something; a process that has ended is noticed by its answers."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()

    def end(self) -> str:
        """End it; what it wrote to its standard error last."""
        with self._ending:
            self.process.kill()
            self.process.wait()
            if self._said.closed:
                return ""
            with contextlib.suppress(OSError):
                assert self.process.stdin is not None
                self.process.stdin.close()
            with self._said as file:
                file.seek(0)
                lines = file.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@dataclass
class _Shared:
    """What the threads that serve the processes share with the one that started them."""

    plan: Plan
    folder: Path
    timeout: float | None
    agenda: Agenda
    changed: threading.Condition = field(default_factory=threading.Condition)  # holds the agenda
    events: "queue.SimpleQueue[tuple[Any, ...]]" = field(default_factory=queue.SimpleQueue)
    workers: list[_Worker] = field(default_factory=list)
    stopping: bool = False


def in_processes(
    plan: Plan,
    agenda: Agenda,
    results: Results,
    listener: Listener,
    *,
    jobs: int,
    timeout: float | None,
) -> None:
    """Train in processes of their own; each writes its rows to a file of its own in the folder.

    A process that ends in the middle of a cell is replaced and the cell begun again.

    Raises:
        InputError: where the processes cannot find a task, or cannot write.
    """
    shared = _Shared(plan, results.path.parent, timeout, agenda)
    for _ in range(jobs):  # each starts its process with its first cell
        threading.Thread(target=_serve, args=(shared,), daemon=True).start()
    shown = None
    try:
        while not agenda.done:
            try:
                what, *rest = shared.events.get(timeout=WAIT)
            except queue.Empty:
                if shown is not None:
                    listener.stepped(*shown[1])
                else:
                    waiting(listener)
                continue
            if what == "fatal":
                raise InputError(rest[0])
            run = rest[0]
            if what == "started":
                listener.started(run)
            elif what == "stepped":
                shown = (run, rest[1])
                listener.stepped(*rest[1])
            else:
                results.take(rest[1]) if what == "finished" else results.add(rest[1])
                with shared.changed:
                    finish(agenda, run, results, listener)
                    shared.changed.notify_all()
    finally:
        with shared.changed:
            shared.stopping = True
            shared.changed.notify_all()
        for worker in shared.workers:
            worker.end()


def finish(agenda: Agenda, run: Run, results: Results, listener: Listener) -> None:
    """Let follow what follows from the last line of the results: rates chosen, and more cells."""
    line = results.lines[-1]
    agenda.took(run, line)
    for choice in agenda.choices():
        results.add(choice)
    planned(listener, agenda.total)
    listener.finished(run, line)


def _next(shared: _Shared) -> Run | None:
    """The next cell; waits where the others have to end before one is known."""
    with shared.changed:
        while not shared.stopping and not shared.agenda.done:
            if (run := shared.agenda.next()) is not None:
                return run
            shared.changed.wait()
    return None


def _serve(shared: _Shared) -> None:
    """Give one process after the other cells, until there are none."""
    worker: _Worker | None = None
    while (run := _next(shared)) is not None:
        said, code = "", None
        last: tuple[int, float | None] = (0, None)
        for _ in range(TRIES):
            if worker is None:
                worker = _started(shared)
            if worker is None:
                return
            shared.events.put(("started", run))
            begin = time.monotonic()
            worker.send(vars(run))
            line, late, last = _awaited(shared, worker, run)
            if line is not None:
                shared.events.put(("finished", run, line))
                break
            said = worker.end()
            code = worker.process.returncode
            worker = None
            if shared.stopping:
                return
            if late:
                error = f"TimeoutError: it took longer than {shared.timeout:g} seconds."
                _fail(shared, run, error, begin, last)
                break
        else:
            error = f"ChildProcessError: its process ended {TRIES} times (exit status {code})"
            _fail(shared, run, f"{error}: {said}" if said else f"{error}.", begin, last)
    if worker is not None:
        worker.end()


def _started(shared: _Shared) -> _Worker | None:
    """A process that is ready; None where none can be had, which is said."""
    worker = _Worker(shared.plan, shared.folder)
    shared.workers.append(worker)
    if shared.stopping:
        worker.end()
        return None
    answer = worker.answers.get()
    if answer is not None and "ready" in answer:
        return worker
    said = worker.end()
    if not shared.stopping:
        why = (answer or {}).get("fatal") or said or "it ended before it was ready."
        shared.events.put(("fatal", f"a process that trains could not be started: {why}"))
    return None


def _awaited(
    shared: _Shared, worker: _Worker, run: Run
) -> tuple[dict[str, Any] | None, bool, tuple[int, float | None]]:
    """The row, whether the time was over without one, and the last step with its loss."""
    limit = None if shared.timeout is None else time.monotonic() + shared.timeout
    last: tuple[int, float | None] = (0, None)
    while True:
        try:
            rest = None if limit is None else max(0.0, limit - time.monotonic())
            answer = worker.answers.get(timeout=rest)
        except queue.Empty:
            return None, True, last
        if answer is None:
            return None, False, last
        if "fatal" in answer:
            shared.events.put(("fatal", answer["fatal"]))
            return None, False, last
        if "done" in answer:
            return answer["done"], False, last
        step, _, loss = answer["stepped"]
        last = (step, loss if math.isfinite(loss) else last[1])
        shared.events.put(("stepped", run, answer["stepped"]))


def _fail(
    shared: _Shared, run: Run, error: str, begin: float, last: tuple[int, float | None]
) -> None:
    line = {**begun(shared.plan, run), "error": error}
    line["failed_at"] = {"step": last[0] + 1, "last_loss": last[1]}
    line |= {"seconds": time.monotonic() - begin, "cpu_seconds": None}
    shared.events.put(("failed", run, line))
