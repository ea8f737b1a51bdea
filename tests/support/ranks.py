"""Ranks for tests: forked processes, each in one gloo group over the loopback.

torch and the package are imported once, by the parent, so that a launch takes a fraction of a
second. Many cases go into one launch. Global seeds differ between the ranks on purpose.
"""

import faulthandler
import functools
import importlib
import os
import pickle
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import gradsurgery as gs


@dataclass(frozen=True)
class Ended:
    """How a rank ended: with a value, with an exception, or without a word.

    Attributes:
        value: what its work returned.
        error: the name of its exception, or None.
        said: the exception's text; of a lost rank what it was.
        trace: the traceback.
        seconds: how long its work took.
    """

    value: Any = None
    error: str | None = None
    said: str = ""
    trace: str = ""
    seconds: float = 0.0


@dataclass
class _Child:
    pid: int
    pipe: int
    notes: Path
    received: bytes = b""
    ended: Ended | None = None


def launch(
    world: int,
    work: Callable[..., Any],
    *given: Any,
    limit: float = 60.0,
    timeout: float = 20.0,
) -> list[Ended]:
    """Run `work(rank, *given)` on `world` forked ranks, and say how each ended.

    Args:
        world: how many.
        work: what each does, within an initialised group.
        *given: passed on to it.
        limit: seconds after which those that still run are ended, and where they stand is shown.
        timeout: the group's own timeout, in seconds.
    """
    _imports()
    folder = Path(tempfile.mkdtemp(prefix="ranks"))
    children: list[_Child] = []
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        for rank in range(world):
            children.append(_fork(rank, world, folder, work, given, limit, timeout))
        _collect(children, limit)
    finally:
        for child in children:
            if child.ended is None:
                os.kill(child.pid, signal.SIGKILL)
                stands = child.notes.read_text() if child.notes.exists() else ""
                child.ended = Ended(error="Lost", said=f"still ran after {limit} s", trace=stands)
            os.waitpid(child.pid, 0)
            os.close(child.pipe)
        shutil.rmtree(folder, ignore_errors=True)
    return [child.ended for child in children if child.ended is not None]


@functools.cache
def _imports() -> None:
    """What a first step imports, which takes seconds: once, before ranks are forked."""
    weight = torch.nn.Parameter(torch.zeros(1))
    gs.backward([weight.sum(), 2 * weight.sum()], [weight], "mgda", process_group=None)
    torch.optim.Adam([weight]).step()
    importlib.import_module("scipy.optimize")  # what a solver imports for three objectives


def on_ranks(world: int, work: Callable[..., Any], *given: Any, **limits: float) -> list[Any]:
    """What `work(rank, *given)` returns on each rank; the first one's failure is raised.

    Raises:
        AssertionError: with the traceback of each rank that failed.
    """
    found = launch(world, work, *given, **limits)
    if failed := [(rank, end) for rank, end in enumerate(found) if end.error]:
        texts = (f"rank {rank}: {end.error}: {end.said}\n{end.trace}" for rank, end in failed)
        raise AssertionError("\n".join(texts))
    return [end.value for end in found]


def said(call: Callable[[], Any]) -> tuple[str, str]:
    """The name and the text of what a call raises; empty where it raises nothing."""
    try:
        call()
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def _fork(
    rank: int,
    world: int,
    folder: Path,
    work: Callable[..., Any],
    given: tuple[Any, ...],
    limit: float,
    timeout: float,
) -> _Child:
    reads, writes = os.pipe()
    notes = folder / f"rank{rank}"
    pid = os.fork()
    if pid:
        os.close(writes)
        return _Child(pid, reads, notes)
    try:  # the child, which never returns
        os.close(reads)
        with notes.open("w") as stands:
            faulthandler.dump_traceback_later(max(limit - 1, 0.5), file=stands)
            ended = _ended(rank, world, folder / "store", work, given, timeout)
            faulthandler.cancel_dump_traceback_later()
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(pickle.dumps(ended))
    finally:
        os._exit(0)  # no finaliser of the parent's runs here
    raise AssertionError


def _ended(
    rank: int,
    world: int,
    store: Path,
    work: Callable[..., Any],
    given: tuple[Any, ...],
    timeout: float,
) -> Ended:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    began = time.monotonic()
    try:
        dist.init_process_group(
            "gloo",
            store=dist.FileStore(str(store), world),
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=timeout),
        )
        torch.manual_seed(1000 + rank)
        began = time.monotonic()
        value = work(rank, *given)
        pickle.dumps(value)
        return Ended(value, seconds=time.monotonic() - began)
    except BaseException as error:
        name, text = type(error).__name__, str(error)
        return Ended(None, name, text, traceback.format_exc(), time.monotonic() - began)


def _collect(children: list[_Child], limit: float) -> None:
    """Read what the ranks send until all have ended, or the time is over."""
    until = time.monotonic() + limit
    running = {child.pipe: child for child in children}
    while running and (left := until - time.monotonic()) > 0:
        for pipe in select.select(list(running), [], [], left)[0]:
            child = running[pipe]
            part = os.read(pipe, 1 << 20)
            child.received += part
            if not part:  # the end of the pipe: it sent everything, or died
                del running[pipe]
                lost = Ended(error="Lost", said="ended without a word")
                child.ended = pickle.loads(child.received) if child.received else lost
