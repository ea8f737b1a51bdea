"""`gradsurgery check` as a person uses it, from a folder with a file of their own."""

import json
import re
import sys

import pytest

from gradsurgery.cli import main
from tests.support.paths import DOCS, ROOT

OWN = """
import numpy as np
print("imported")

def mean(G):
    print("called")
    return np.full(len(G), 1 / len(G))

def picky(J):
    if str(J.dtype) != "torch.float64":
        raise TypeError("float64 only")
    return J.mean(0)

class Part:
    @staticmethod
    def total(J):
        return J.sum(0)
"""


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the command in a folder with `own.py`: its exit status, output and errors."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("x = 1\ny = x / 0\n")
    (tmp_path / "wordy.py").write_text("def f(G):\n    return G +\n")
    (tmp_path / "hungry.py").write_text("import nothing_of_that_name\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setenv("COLUMNS", "80")
    known = set(sys.modules)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradsurgery", "check", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return stopped.value.code or 0, out, err

    yield run
    for name in {"own", "broken", "wordy", "hungry"} - known:
        sys.modules.pop(name, None)


def test_a_module_in_the_folder_and_a_file_are_found(command, tmp_path):
    for target in ("own:mean", "own.py:mean", str(tmp_path / "own.py") + ":mean", "own:Part.total"):
        code, out, err = command(target, "--claims", "homogeneous(1)", "--draws", "12")
        assert code == 0, err
        assert out.startswith(target + "\n")
        assert "homogeneous(1)            holds on 12 draws (claimed)" in out
        assert max(map(len, out.splitlines()[1:])) <= 80
        assert "imported" not in out  # what a module prints is no part of the report


def test_the_exit_status_is_that_of_the_claims(command):
    code, out, _ = command("own:mean", "--claims", "sums-to-one,strict", "--draws", "12")
    assert code == 1
    assert "strict                    VIOLATED on" in out
    assert out.endswith("FAILED: strict.\n")
    code, out, _ = command("own:mean", "--draws", "12")
    assert code == 0
    assert "strict                    fails on" in out
    assert out.endswith("Passed: the contract; nothing else is claimed.\n")


def test_a_function_like_a_strategy_promises_what_that_one_claims(command):
    code, out, _ = command("own:mean", "--like", "pcgrad", "--draws", "12", "--objectives", "2")
    assert code == 1
    assert re.search(r"strict +VIOLATED on .*\(claimed when n <= 2\)", out) or "FAILED: non-" in out
    code, out, _ = command("own:mean", "--like", "mean", "--draws", "12", "--objectives", "3")
    assert code == 0
    assert re.search(r"homogeneous\(1\) +holds on 12 draws \(claimed\)", out)


def test_what_fails_in_low_precision_says_what_the_function_was_given(command):
    code, out, _ = command("own:picky", "--draws", "12")
    said = " ".join(out.split())
    assert code == 1
    assert "It raised TypeError for J in float32: float64 only; models give gradients in" in said
    assert "begin with J = J.double()" in said


def test_json_has_the_jacobian(command):
    code, out, _ = command(
        "own:mean", "--claims", "strict", "--draws", "12", "--objectives", "2-3", "--json"
    )
    found = json.loads(out)
    assert code == 1
    assert (found["passed"], found["failures"], found["objectives"]) == (False, ["strict"], [2, 3])
    contract, strict = found["results"]
    assert contract["holds"]
    assert not strict["holds"]
    assert len(strict["example"]["jacobian"]) == 2
    assert any("It prints" in note for note in found["notes"])


WRONG = [
    (("own:maen",), "Did you mean 'mean'?"),
    (("onw:mean",), "Did you mean own?"),
    (("onw.py:mean",), "Did you mean own.py?"),
    (("nowhere/own.py:mean",), "no file 'nowhere/own.py'"),
    (("own.nothing:mean",), "no module 'own.nothing'"),
    (("own:",), "write module:function"),
    (("mgad",), "Did you mean 'mgda'? "),
    (("cagrad(d=1)",), "unknown option 'd'"),
    (("own:np",), "expected a function or a strategy"),
    (("own:mean", "--input", "matrix"), "Known: gram, rows"),
    (("own:mean", "--claims", "strickt"), "Did you mean 'strict'?"),
    (("own:mean", "--claims", "homogeneous(1"), "as in homogeneous(1); in a shell put it in q"),
    (("own:mean", "--claims", "'homogeneous(1)'"), "as in homogeneous(1); in a shell put it in q"),
    (("own:mean", "--claims", "homogeneous"), "In a shell put it in quotes."),
    (("own:mean", "--like", "pcgard"), "Did you mean 'pcgrad'?"),
    (("own:mean", "--draws", "0"), "draws: expected 1 or more"),
    (("own:mean", "--objectives", "few"), "write numbers, as in 2"),
    (("own:mean", "--objectives", "0-2"), "expected numbers from 1 to 100"),
    (("broken:f",), "broken.py, line 2, in <module>: y = x / 0"),
    (("broken.py:f",), "ZeroDivisionError"),
    (("wordy:f",), "line 2: return G +"),
    (("hungry:f",), "hungry cannot be imported: ModuleNotFoundError: No module named 'nothing_of"),
    (("hungry.py:f",), "hungry.py cannot be imported"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[" ".join(a) for a, _ in WRONG])
def test_wrong_use_is_one_error_and_the_exit_status_2(arguments, message, command):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_the_report_in_the_docs_is_that_of_the_command(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    kept = (DOCS / "checked.txt").read_text()
    target = kept.splitlines()[1]
    _, out, _ = command(target, "--draws", "20")
    assert kept.startswith(f"$ gradsurgery check {target} --draws 100\n")

    def table(text):  # fewer draws: other counts, and as much that fails
        return dict(re.findall(r"^  (\S+) +(holds|fails) on", text, re.M))

    assert table(out) == table(kept)
    assert table(out)["permutation-equivariant"] == "fails"  # the fault of the example
