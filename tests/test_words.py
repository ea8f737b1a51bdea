"""The house's words: terms that are ruled out in code, docs and messages; the width of lines."""

import ast
import io
import re
import tokenize

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.quick

PARTS = ("gradsurgery", "benchmarks", "examples", "docs")
GENERATED = ("_build", "api", "gallery", "strategies")  # below docs: pages that each build writes
FILES = sorted(
    path
    for path in [*(p for part in PARTS for p in (ROOT / part).rglob("*")), *ROOT.glob("*.*")]
    if path.suffix in (".py", ".rst", ".md", ".jinja")
    and not (path.is_relative_to(ROOT / "docs") and set(path.parts) & set(GENERATED))
)
# The field has better terms: conflict, non-conflicting, per, low memory, reach.
WORD = r"hurt\w*|harm(?:s|ed|ful|less|ing)?|nobody\w*|lean|heard|sift\w*|settl\w*|scenes?"
# A word of a sentence, or a part of a name: lean, is_lean, lean_step.
RULED_OUT = re.compile(
    rf"(?<![^\W_])(?:{WORD})(?![^\W_])|made\s+anew|a\s+factor\s+a\s+group", re.IGNORECASE
)
# Ordinary English in sentences, and no terms of ours: they are ruled out in names alone.
ORDINARY = {"met", "look", "looks", "looked", "behind"}
# An earlier public name is kept for those who use it, and a paper has its title.
KEPT = {
    "gradsurgery/solvers/__init__.py": "without_harm = without_conflict",
    "gradsurgery/testing/checks.py": "def look(self)",
    "gradsurgery/strategies/uw.py": "to Weigh Losses for Scene Geometry and ",
}
WIDTH = 100


def ruled_out(text):
    """(line number, word, line) for each ruled-out word of a text, over the ends of lines too."""
    lines = text.splitlines()
    for found in RULED_OUT.finditer(text):
        number = text.count("\n", 0, found.start())
        yield number + 1, found.group(0), lines[number]


def names(text):
    """(line number, name, line) for each name in a Python file that has an ordinary word in it."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME and set(token.string.lower().split("_")) & ORDINARY:
            yield token.start[0], token.string, token.line


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_ruled_out_words_do_not_occur(path):
    text = path.read_text()
    found = [*ruled_out(text), *(names(text) if path.suffix == ".py" else ())]
    kept = KEPT.get(path.relative_to(ROOT).as_posix())
    assert [x for x in found if kept is None or kept not in x[2]] == []


def test_what_is_kept_is_there():
    for path, line in KEPT.items():
        assert (ROOT / path).read_text().count(line) == 1


def test_names_of_tests_have_no_ruled_out_words():
    for path in (ROOT / "tests").rglob("*.py"):
        tree = ast.parse(path.read_text())
        kinds = (ast.FunctionDef, ast.ClassDef)
        said = [path.stem, *(node.name for node in ast.walk(tree) if isinstance(node, kinds))]
        assert list(ruled_out("\n".join(said))) == [], path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("so that nobody is hurt", ["nobody", "hurt"]),
        ("what is lean, `is_lean`, lean_step", ["lean", "lean", "lean"]),
        ("HURT = -1e-6; without_harm(w)", ["HURT", "harm"]),
        ("the page, made\nanew; a factor a group", ["made\nanew", "a factor a group"]),
        ("settles, harmless, a Scene", ["settles", "harmless", "Scene"]),
        ("harmonic, clean, obscene, learned, unheard-of cleanly", []),
        ("they met; look behind it", []),
    ],
)
def test_the_search_finds_ruled_out_words_and_no_others(text, words):
    assert [word for _, word, _ in ruled_out(text)] == words


def test_the_search_finds_ordinary_words_in_names():
    assert [
        name for _, name, _ in names("met_by = look(behind=1)\nmetric = outlook  # we met\n")
    ] == [
        "met_by",
        "look",
        "behind",
    ]


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.suffix in (".rst", ".md")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_pages_have_lines_of_at_most_100_columns(path):
    """ruff holds the Python files; the rows of a table in Markdown cannot be broken."""
    lines = enumerate(path.read_text().splitlines(), 1)
    wide = [n for n, line in lines if len(line) > WIDTH and not line.startswith("| ")]
    assert wide == []
