"""The command line as a person uses it, at 80 columns."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import gradsurgery as gs
from tests.support.paths import ROOT

CONSOLE = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1"}
ENVIRONMENT = {**os.environ, **CONSOLE}
WRONG = [
    (["describe", "mgad"], "Did you mean 'mgda'?"),
    (["compare", "--tasks", "multimnst"], "Did you mean 'multimnist'?"),
    (["compare", "--strategies", "sum,cagrd"], "Did you mean 'cagrad'?"),
    (["compare", "--strategies", "cagrad(d=1)"], "unknown option 'd'"),
    (["compare", "--seeds", "few"], "give how many"),
    (["compare", "--epochs", "0"], "expected 1 or more; got 0"),
    (["compare", "--data-root", "nowhere"], "no train-images"),
    (["comprae"], "Did you mean 'compare'?"),
    (["compare", "--sedes", "2"], "--seeds"),
    (["compare", "--lr", "fast"], "give learning rates as in"),
    (["compare", "--lr", "0.1,0"], "learning rates are positive"),
    (["compare", "nowhere:mine"], "no module 'nowhere'"),
    (["compare", "--steps", "0"], "steps: expected 1 or more; got 0"),
    (["compare", "--strategies", "cagrad(c=-1)"], "c is a number at least 0; got -1"),
]
HELP = (["--help"], ["list", "-h"], ["describe", "-h"], ["check", "-h"], ["compare", "--help"])


def run(*arguments, cwd=None):
    """One command in a process of its own: its exit status, output and errors."""
    done = subprocess.run(
        [sys.executable, "-m", "gradsurgery", *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def answers(tmp_path_factory, fresh):
    """What a quick command answers: its exit status, output, errors, and the folder it ran in.

    Each is run once, when it is first asked for.
    """

    @functools.cache
    def answered(*arguments):
        folder = tmp_path_factory.mktemp("cwd")
        answer = fresh.program("gradsurgery", *arguments, cwd=folder, **CONSOLE)
        assert "Traceback" not in answer.stderr
        return (*answer, folder)

    return answered


def fits(text):
    assert max(map(len, text.splitlines())) <= 80, max(text.splitlines(), key=len)
    return text


def test_help(answers):
    for arguments in HELP:
        code, out, err, _ = answers(*arguments)
        assert (code, err) == (0, "")
        assert "Usage: gradsurgery" in fits(out)
    for option in (
        "--strategies",
        "--tasks",
        "--seeds",
        "--epochs",
        "--out",
        "--data-root",
        "--lr",
        "--steps",
        "--check",
    ):
        assert option in out
    assert "Default" in out
    assert answers("--version")[:3] == (0, gs.__version__ + "\n", "")


def test_list_has_every_strategy_with_its_claims(answers):
    code, out, _, _ = answers("list")
    assert code == 0
    fits(out)
    for name in gs.strategy_names():
        chosen = gs.contract.registry.registered(name)
        if chosen.shipped:
            assert f"\n{name}" in out
    for word in (
        "inputs",
        "acts",
        "scale",
        "claims",
        "paper",
        "2405.17730",
        "non-conflicting*",
        "block_grams*",
    ):
        assert word in out


@pytest.mark.quick
@pytest.mark.parametrize("name", gs.strategy_names())
def test_describe(name):
    from gradsurgery.contract.catalogue import describe

    chosen = gs.contract.registry.registered(name)
    text = fits(describe(chosen))
    if chosen.shipped:
        assert chosen.paper.split()[0] in text
        for option, default in chosen.defaults.items():
            assert f"\n  {option} (" in text
            assert default is gs.contract.registry.inspect.Parameter.empty or repr(default) in text
        for claim in chosen.claims:
            assert str(claim) in " ".join(text.split())
        assert ">>>" in text


def test_describe_prints_that(answers):
    code, out, _, _ = answers("describe", "cagrad")
    assert code == 0
    assert out.startswith("cagrad\n======\n")
    assert "default 0.5" in out
    assert answers("describe", "cagrad(c=1.0)")[1] == out


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_words(arguments, message, answers):
    code, _, err, folder = answers(*arguments)
    assert code == 2
    assert message in err
    assert list(folder.iterdir()) == []  # nothing is left behind by a mistake


@pytest.mark.parametrize(
    "arguments",
    [WRONG[0][0], pytest.param(["compare", "--help"], marks=pytest.mark.exhaustive)],
    ids=" ".join,
)
def test_a_process_of_its_own_answers_as_a_forked_one_does(arguments, answers, tmp_path):
    code, out, err, _ = answers(*arguments)
    assert run(*arguments, cwd=tmp_path) == (code, out, err)


@pytest.mark.slow
def test_compare(tmp_path, fresh):
    def run(*arguments):
        return fresh.program("gradsurgery", *arguments, **CONSOLE)

    code, out, err = run(
        "compare",
        "--tasks",
        "multimnist",
        "--strategies",
        "sum,mgda",
        "--seeds",
        "1",
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "a"),
    )
    assert code == 0, err
    assert "multimnist: test accuracy in %, one seed" in fits(out.split("results:")[0])
    assert out.startswith("multimnist: ")
    assert "No verdict against sum: an interval needs at least 2 seeds" in " ".join(out.split())
    for word in ("left", "right", "conflict rate", "step time", "1.00 x"):
        assert word in out
    assert "multimnist, mgda, seed 0: left" in err
    assert "at chance" not in out
    lines = [
        json.loads(line) for line in (tmp_path / "a" / "results.jsonl").read_text().splitlines()
    ]
    assert [line["kind"] for line in lines] == ["setup", "timing", "run", "run"]
    assert all(min(line["test"].values()) > 40 for line in lines if line["kind"] == "run")
    assert (tmp_path / "a" / "comparison.png").stat().st_size > 10_000
    code, _, err = run("compare", "--tasks", "multimnist", "--out", str(tmp_path / "a"))
    assert code == 2
    assert "already holds results" in err


OWN = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})  # some packages bring a module "tests" of their own
from gradsurgery.tasks import task
from tests.support.protocol import two_modalities

@task("mine", steps=6, lr=(0.01, 0.09), primary="fused")
def mine(data_root, seed):
    return two_modalities(data_root, seed)
"""


def test_a_task_of_a_module_in_this_folder_is_checked_and_compared(tmp_path, fresh):
    (tmp_path / "my_module.py").write_text(OWN)

    def run(*arguments):
        return fresh.program("gradsurgery", "compare", *arguments, cwd=tmp_path, **CONSOLE)

    code, out, err = run("my_module:mine", "--check", "--strategies", "sum,modo")
    assert code == 0, err
    assert "mine: nothing is wrong" in fits(out)
    assert "the plan: 16 runs, about" in out
    assert not (tmp_path / "out").exists()
    code, out, err = run("my_module.py:mine", "--strategies", "sum", "--seeds", "1", "--out", "out")
    assert code == 0, err
    assert "untuned" in fits(out.split("results:")[0])
    assert (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_interrupting_keeps_what_is_finished(jobs, tmp_path):
    out = tmp_path / "out"
    options = ["--tasks=digit-halves", "--strategies=sum", "--seeds=60", "--steps=150"]
    options += [f"--jobs={jobs}", f"--out={out}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gradsurgery", "compare", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )

    def rows():
        texts = (path.read_text() for path in out.glob("*.jsonl"))
        return sum('"kind": "run"' in line for text in texts for line in text.splitlines())

    try:
        deadline = time.monotonic() + 300
        while not rows():
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    kept = int(re.search(r"Kept: (\d+) of 60 runs", err)[1])
    # a process of its own may write a row that its parent is not told of any more
    assert kept <= rows() <= kept + (jobs if jobs > 1 else 0)
    assert ("digit-halves: test accuracy" in said) == (kept > 0)
    assert (out / "comparison.png").exists() == (kept > 0)


@pytest.mark.slow
def test_interrupting_before_the_first_run_leaves_nothing_behind(tmp_path):
    command = [
        sys.executable,
        "-m",
        "gradsurgery",
        "compare",
        "--tasks",
        "multimnist",
        "--strategies",
        "mgda",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        deadline = time.monotonic() + 300
        while not (tmp_path / "out").exists():  # the step times are taken now
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Kept: 0 of 8 runs." in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
