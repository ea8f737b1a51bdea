"""Examples for frameworks, run as a user runs them."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from tests.support.paths import EXAMPLES, ROOT


def needs(*packages):
    """Skip where a framework is missing; it is not imported here, where its own deprecation
    warnings would be errors.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(
        bool(missing),
        reason=f"without {', '.join(missing)}; `nox -s frameworks` installs and runs it",
    )


def python(folder, *arguments):
    environment = {
        **os.environ,
        "COLUMNS": "160",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{EXAMPLES}{os.pathsep}{ROOT}",
    }
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(folder, script, *arguments):
    return python(folder, EXAMPLES / script, *arguments)


def same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
