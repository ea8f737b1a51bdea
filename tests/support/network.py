"""A network of a test's own, where the bytes on the loopback are those of its ranks alone."""

import ctypes
import os
import pickle
import subprocess
import traceback
from pathlib import Path

import pytest

NEW_NETWORK = 0x40000000  # CLONE_NEWNET of linux/sched.h


def in_own_network(work, *given):
    """What `work(*given)` returns in a forked process; skipped where a network cannot be made.

    Raises:
        AssertionError: with the traceback of what it raised.
    """
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        try:  # the child, which never returns
            os.close(reads)
            with os.fdopen(writes, "wb") as pipe:
                pickle.dump(_inside(work, given), pipe)
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        received = pipe.read()
    os.waitpid(pid, 0)
    how, found = pickle.loads(received)
    if how == "skip":
        pytest.skip(found)
    assert how == "value", found
    return found


def _inside(work, given):
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(NEW_NETWORK):
            return "skip", f"no network of its own: {os.strerror(ctypes.get_errno())}"
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    except (OSError, AttributeError, subprocess.CalledProcessError) as error:
        return "skip", f"no network of its own: {error}"
    try:
        return "value", work(*given)
    except BaseException:
        return "error", traceback.format_exc()


def received():
    """The bytes that the loopback has carried so far."""
    for line in Path("/proc/thread-self/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    raise AssertionError("no loopback")
