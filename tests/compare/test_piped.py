"""A process that trains for another one may fork processes of its own."""

import pytest

pytestmark = pytest.mark.quick

# What multiprocessing does first in a process that it has forked is to close sys.stdin.
FORKING = """
import os, signal, sys, time
reading, writing = os.pipe()
os.dup2(reading, 0)
sys.stdin = open(0)
os.write(writing, b'{"plan": 1}\\n')
from gradsurgery.compare.piped import opened
answers, first, asked = opened()
assert first == {"plan": 1}
os.write(writing, b'{"cell": 2}\\n')
assert asked.get(timeout=60) == {"cell": 2}
time.sleep(0.2)  # until its thread waits for the next line
child = os.fork()
if child == 0:
    signal.alarm(30)
    sys.stdin.close()
    os._exit(0)
ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
answers.write(f"forked: {ended}\\n")
os.close(writing)
"""


def test_a_forked_process_does_not_wait_for_the_pipe_of_its_parent(fresh):
    """As the workers of a DataLoader did, for ever."""
    done = fresh(FORKING)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "forked: 0\n"
