"""A process that trains for another one: lines of JSON on its standard input and output."""

import json
import os
import queue
import signal
import threading
from typing import Any, BinaryIO, TextIO

Asked = queue.SimpleQueue[dict[str, Any]]


def opened() -> tuple[TextIO, dict[str, Any], Asked]:
    """Where answers go, the first line of the parent, and a queue of those that come after it.

    The end of the input is the end of the parent, and ends this process at once, in the middle of a
    step too.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a task prints is no answer
    given = os.fdopen(os.dup(0), "rb")
    # The thread below holds the lock of what it reads. A process that is forked, such as a worker
    # of a DataLoader, closes sys.stdin, and would wait for that lock for ever.
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    first = json.loads(given.readline())
    asked: Asked = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked, given), daemon=True).start()
    return answers, first, asked


def _listen(asked: Asked, given: BinaryIO) -> None:
    for text in given:
        asked.put(json.loads(text))
    os._exit(0)  # the parent has ended
