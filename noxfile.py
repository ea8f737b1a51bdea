"""The project's checks, each one session: tests, lint, types, examples."""

import nox

nox.options.sessions = ["lint", "types", "tests", "examples"]
CONSTRAINTS = ("-c", "constraints.txt")


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite and the doctests."""
    session.install(*CONSTRAINTS, "-e", ".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


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
def examples(session: nox.Session) -> None:
    """Both examples in full, with the accuracies that they have to reach."""
    session.install(*CONSTRAINTS, "-e", ".[examples]")
    session.run("python", "examples/multimodal_cgmnist.py", "--strategy", "sum", "--strategy", "mmpareto", "--require", "85")
    session.run("python", "examples/multitask_multimnist.py", "--strategy", "sum", "--require", "80")
