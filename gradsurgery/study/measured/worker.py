"""A process that measures for another one: `python -m gradsurgery.study.measured.worker`.

It is given cells on its standard input, a line of JSON each, and answers with a line each. The end
of its input is the end of its parent: a thread waits for it and ends this process at once.
"""

import json
import sys
from pathlib import Path

import torch

from gradsurgery.compare.piped import opened
from gradsurgery.study.measured.cells import measure, restored


def main() -> None:
    """Measure what the parent asks for until it ends."""
    answers, setup, asked = opened()
    sys.path[:] = setup["path"]
    root = None if setup["data_root"] is None else Path(setup["data_root"])
    torch.set_num_threads(1)
    while True:
        line = measure(restored(asked.get()), root)
        answers.write(json.dumps(line, default=str) + "\n")


if __name__ == "__main__":
    main()
