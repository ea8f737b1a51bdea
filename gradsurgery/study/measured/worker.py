"""A process that measures for another one: `python -m gradsurgery.study.measured.worker`.

It is given cells on its standard input, a line of JSON each, and answers with a line each. The end
of its input is the end of its parent: a thread waits for it and ends this process at once.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch

from gradsurgery.study.measured.cells import measure, restored


def main() -> None:
    """Measure what the parent asks for until it ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a task prints is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    setup = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = setup["path"]
    root = None if setup["data_root"] is None else Path(setup["data_root"])
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    torch.set_num_threads(1)
    while True:
        line = measure(restored(asked.get()), root)
        answers.write(json.dumps(line, default=str) + "\n")


def _listen(asked: "queue.SimpleQueue[dict[str, Any]]") -> None:
    for text in sys.stdin.buffer:
        asked.put(json.loads(text))
    os._exit(0)  # the parent has ended


if __name__ == "__main__":
    main()
