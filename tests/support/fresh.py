"""A new interpreter that knows the library and what its commands import; it forks per script."""

import json
import subprocess
import sys
from typing import NamedTuple

# Whoever imports torch waits for two seconds, and for one for the rest. No gradient is computed
# before the fork: autograd's threads would be missing after it.
SERVER = """
import contextlib, json, os, sys, traceback

import torch, gradsurgery, gradsurgery.compare
import torch._dynamo  # what an optimizer's first step imports
import scipy.optimize  # and what a solver does

with contextlib.suppress(ImportError):
    import rich.console, rich.progress, rich.table, typer

def status_of(script, arguments, folder, out):
    for stream, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(f"{out}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(folder or ".")
    sys.argv = ["-c", *arguments]
    try:
        exec(script, {"__name__": "__main__"})
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        status = status_of(*json.loads(line))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


# A script of ours or a module, as `python SCRIPT` and `python -m MODULE` run it.
PROGRAM = """
import os, runpy, sys
import torch
torch.set_num_threads(1)  # the other cores run other tests
os.environ.update({environment!r})
target, *arguments = sys.argv[1:]
sys.argv = [target, *arguments]
if target.endswith(".py"):
    sys.path.insert(0, os.path.dirname(target))
    runpy.run_path(target, run_name="__main__")
else:
    runpy.run_module(target, run_name="__main__", alter_sys=True)
"""


class Ran(NamedTuple):
    """What a script came to."""

    returncode: int
    stdout: str
    stderr: str


class Fresh:
    """Call it with a script: it runs in a process that has seen nothing of the tests'.

    Args:
        folder: where it keeps what the scripts print.
    """

    def __init__(self, folder):
        self.folder, self.server, self.count = folder, None, 0

    def __call__(self, script, *arguments, cwd=None):
        if self.server is None:
            command = [sys.executable, "-c", SERVER]
            self.server = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        self.count += 1
        out = self.folder / str(self.count)
        asked = [script, list(map(str, arguments)), cwd and str(cwd), str(out)]
        print(json.dumps(asked), file=self.server.stdin, flush=True)
        status = int(self.server.stdout.readline())
        printed = (out.with_suffix(f".{stream}").read_text() for stream in ("stdout", "stderr"))
        return Ran(status, *printed)

    def program(self, target, *arguments, cwd=None, **environment):
        """The same for the path of a script, or the name of a module, with its arguments."""
        code = PROGRAM.format(environment=environment)
        return self(code, target, *arguments, cwd=cwd)

    def close(self):
        """End the interpreter; each test process has one at most."""
        if self.server is not None:
            self.server.kill()  # it keeps nothing; to end by itself takes torch a second
            self.server.communicate()
