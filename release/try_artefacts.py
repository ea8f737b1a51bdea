"""Try a wheel and an sdist, each in an environment of its own: `try_artefacts.py DIST [--quick]`.

The wheel is installed without extras: the commands that need none have to work, and a step too. The
sdist is unpacked, and its own quick tests are run in it; `--quick` runs only those of the house.
"""

import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
STEP = """
import torch, gradsurgery as gs
weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
record = gs.Surgery("mmpareto", [weight]).backward({"a": weight.sum(), "b": weight[0] ** 2})
print(record)
"""
HOUSE = ("tests/test_house.py", "tests/test_words.py", "tests/docs", "tests/release")


def run(*words: str | Path, folder: Path, status: int = 0) -> str:
    """Run a command; its output, or an error where the exit status is another one."""
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True)
    print("$", *words[1:] if "-c" not in words else ("python -c ...",), flush=True)
    if done.returncode != status:
        sys.exit(f"exit status {done.returncode}, not {status}:\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr


def environment(folder: Path, *installed: str | Path) -> Path:
    """A new environment with what is named, at the versions of constraints.txt: its python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    constraints = ("-c", ROOT / "constraints.txt")
    run(python, "-m", "pip", "install", "-q", *constraints, *installed, folder=folder)
    return python


def try_wheel(wheel: Path, folder: Path) -> None:
    """A core install has its commands, a step, and a clear error for what needs an extra."""
    python = environment(folder / "core", wheel)
    program = python.parent / "gradsurgery"
    version = wheel.name.split("-")[1]
    assert run(program, "--version", folder=folder).strip() == version
    assert "mmpareto" in run(program, "list", folder=folder)
    assert "Options:" in run(program, "describe", "cagrad", folder=folder)
    said = run(program, "compare", folder=folder, status=2)
    assert "pip install 'gradsurgery[compare]'" in said, said
    print(run(python, "-c", STEP, folder=folder))


def try_sdist(sdist: Path, folder: Path, quick: bool) -> None:
    """What is unpacked passes its own tests, without the repository around it."""
    with tarfile.open(sdist) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = folder.glob("gradsurgery-*")
    python = environment(folder / "whole", f"{unpacked}[test]")
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    what = HOUSE if quick else ("-m", "quick", "-n", "auto")
    print(run(python, *tests, *what, folder=unpacked)[-2000:])


if __name__ == "__main__":
    dist = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as made:
        (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
        try_wheel(wheel, Path(made))
        try_sdist(sdist, Path(made), quick="--quick" in sys.argv)
