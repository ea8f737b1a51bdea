"""Every code block of the README and the docs runs, or is parsed by what it is for."""

import re
import shlex

import pytest

import gradsurgery as gs
from tests.support import blocks as known
from tests.support.paths import ROOT

BLOCKS = known.blocks()
OUTPUT = ("text", "rst")  # what a program prints, or a formula: no code
# Where a block's names come from; `stepped` has those of one that is not here.
NAMES = {
    ("README.md", "gs.backward(losses"): lambda folder: known.shared_trunk(
        ("fused", "audio", "pretraining")
    ),
    ("after_optimizer.rst", "record = surgery.step(losses, optimizer) "): (
        lambda folder: known.two_encoders()
    ),
    ("after_optimizer.rst", "def clip"): lambda folder: known.two_encoders(),
    ("after_optimizer.rst", 'record = surgery.step(losses, optimizer, metric="'): (
        lambda folder: known.two_encoders()
    ),
    ("decide_on.rst", "surgery = "): lambda folder: known.two_tasks(),
    ("diagnosing.rst", "found = "): lambda folder: known.diagnosed(),
    ("diagnosing.rst", "Recorder("): known.recorded,
    ("in_your_loop.rst", "from torch.distributed"): known.checkpointed,
    ("per_example.rst", "losses = "): lambda folder: known.examples_of(),
    ("processes.rst", "import torch.distributed"): known.checkpointed,
}

# Compiled, not run: why, and the test that runs the like.
APART = {
    ("migrating.rst", ""): ("before and after are compared", "tests/docs/test_migrating.py"),
    ("watching.rst", "from gradsurgery.diagnostics import Recorder"): (
        "trackers that are not installed",
        "tests/diagnostics/test_watching.py",
    ),
    ("watching.rst", "class Module(lightning"): (
        "lightning is not installed",
        "tests/examples/test_lightning_callback.py",
    ),
}


def ids(block):
    return f"{block.file}:{block.line}"


def of(*languages):
    return [block for block in BLOCKS if block.language in languages]


def names_for(block, folder):
    found = [make for (file, start), make in NAMES.items() if fits(block, file, start)]
    assert len(found) <= 1, f"{ids(block)}: several fit"
    return found[0](folder) if found else known.stepped()


def fits(block, file, start):
    return block.file == file and block.code.startswith(start)


def test_every_block_is_of_a_kind_that_is_checked():
    checked = {"python", "sh", "toml", "diff", *OUTPUT}
    assert {block.language for block in BLOCKS} <= checked
    assert len(of("python")) >= 12
    assert all((ROOT / test).is_file() for _, test in APART.values())
    for file, start in (*NAMES, *APART):
        assert any(fits(block, file, start) for block in BLOCKS), f"{file}: no block is {start!r}"


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # checkpoints of one process
@pytest.mark.parametrize("block", of("python"), ids=ids)
def test_python_runs_as_it_stands(block, tmp_path, monkeypatch, temporary):
    code = compile(block.code, ids(block), "exec")
    if any(fits(block, *which) for which in APART):
        return
    names = names_for(block, tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    own = {**names, "__name__": "block"}  # what functions of the block see
    exec(code, own, names if names.makers else own)


@pytest.mark.parametrize("block", of("toml"), ids=ids)
def test_toml_can_be_read(block):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    assert tomllib.loads(block.code)


def commands():
    for block in of("sh"):
        for line in block.code.splitlines():
            line = line.partition(" # ")[0].strip()
            if line and not line.startswith("#"):
                yield from ((block, part.strip()) for part in line.split("&&"))


@pytest.mark.parametrize(
    ("block", "command"), list(commands()), ids=lambda x: x if isinstance(x, str) else ids(x)
)
def test_commands_name_what_is_there(block, command, tmp_path, monkeypatch):
    """They are not run: they install, or train for minutes. Their parts are looked up."""
    words = shlex.split(command)
    if "gradsurgery" in words[:1]:
        parsed(words[1:], tmp_path, monkeypatch)
    elif "install" in words:
        extras = (ROOT / "pyproject.toml").read_text()
        wanted = [w for w in words if w.startswith(".[")]
        for name in (n for w in wanted for n in w[2:-1].split(",")):
            assert re.search(rf"^{name} = ", extras, re.M), name
        assert wanted or "--no-deps" in words
    elif words[0] in ("python", "torchrun"):
        (script,) = [w for w in words if w.endswith(".py")]
        options = [w for w in words[words.index(script) :] if w.startswith("--")]
        text = (ROOT / script).read_text()
        assert all(re.search(rf"\b{o[2:].replace('-', '_')}\b", text) for o in options)
    else:
        assert words[0] in ("pytest", "nox"), command


def parsed(words, folder, monkeypatch):
    """The command line takes them: typer reads the options, and nothing is run."""
    import typer

    from gradsurgery.cli import app

    group = typer.main.get_command(app())
    monkeypatch.chdir(folder)
    command = group.commands[words[0]]
    command.make_context(words[0], words[1:])


@pytest.mark.parametrize("block", of("diff"), ids=ids)
def test_the_changed_line_is_the_only_one_that_changes_a_step(block):
    """Both sides of the diff run; with `sum` they take the same step."""
    lines = [line for line in block.code.splitlines() if line[2:].strip() not in ("", "...")]
    before = [line[2:] for line in lines if line[0] in " -"]
    after = [line[2:] for line in lines if line[0] in " +"]
    assert len([line for line in lines if line[0] == "-"]) == 1
    found = []
    for code in (before, [line.replace('"mmpareto"', '"sum"') for line in after]):
        names = known.two_encoders()
        exec("\n".join(code), dict(names), names)
        found.append([p.detach().clone() for p in names["model"].parameters()])
    assert all(map(equal, *found))
    names = known.two_encoders()
    exec("\n".join(after), dict(names), names)
    assert isinstance(names["record"], gs.Record)


def equal(one, other):
    return one.equal(other)
