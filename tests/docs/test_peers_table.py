"""The table beside other libraries: its cells are what was measured, and tests show ours."""

import ast
import importlib
import subprocess
import sys

import pytest
import torch

import gradsurgery as gs
from tests.support.paths import DOCS, ROOT
from tests.support.shipped import SHIPPED, direction, ready


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield importlib.import_module("peers_table")
    for name in ("peers_table", "peers_probes", "results_tables", "prose"):
        sys.modules.pop(name, None)


def test_the_pages_have_the_table_of_what_was_kept(table):
    kept = table.facts()
    assert (DOCS / "peers" / "beside.txt").read_text() == table.page(kept)
    readme = (ROOT / "README.md").read_text()
    assert table.renewed(readme, kept) == readme, "python docs/peers_table.py page"
    assert all(mark in readme for mark in table.MARKS)


def test_each_cell_of_ours_names_a_test_that_is_there(table):
    for row in table.ROWS:
        assert row.test or row.ours in ("no", "none", "not yet"), row.about
        if row.test:
            path, name = row.test.split("::")
            tree = ast.parse((ROOT / path).read_text())
            assert name in {getattr(node, "name", "") for node in tree.body}, row.test


@pytest.mark.exhaustive
def test_the_tests_that_are_named_are_collected(table):
    named = sorted({row.test for row in table.ROWS if row.test})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "-m", "", *named], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert all(name in done.stdout for name in named)


def test_a_peers_cell_is_a_fact_with_a_version_or_not_tried(table):
    kept = table.facts()
    assert set(kept["versions"]) == set(kept["facts"]) <= set(table.LIBRARIES)
    probes = {row.probe for row in table.ROWS}
    for name, found in kept["facts"].items():
        assert set(found) <= probes, name
        assert kept["versions"][name]
    wrappers = [row[-1] for row in table.cells(kept)[1:]]
    assert wrappers.count(table.NOT) == len(wrappers) - 2


def test_our_own_cells_of_the_probes(table):
    """What other libraries are asked, asked of this one."""
    probes = sys.modules["peers_probes"]
    mgda, upgrad = gs.get_strategy("mgda"), gs.get_strategy("upgrad")
    assert probes.excess(lambda rows: mgda.weights((rows @ rows.T).numpy())) == "exact"
    assert probes.conflicts(upgrad) == "a conflict in 0 of 60 draws"
    rows = torch.tensor([[1.0, 0.0], [-4.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(upgrad(1e-3 * rows), 1e-3 * upgrad(rows), rtol=1e-9)
    assert not torch.allclose(upgrad(rows), rows.mean(0))


def test_after_adam_with_the_guard_no_loss_rises(table):
    probes = sys.modules["peers_probes"]
    net, optimizer = probes.adam()
    surgery, parameters = gs.Surgery("upgrad", net), list(net.parameters())
    for k in range(probes.STEPS):
        losses = probes.opposed(net, k)
        given = [torch.autograd.grad(one, parameters, retain_graph=True) for one in losses]
        optimizer.zero_grad()
        before = [p.detach().clone() for p in parameters]
        surgery.step(losses, optimizer, guard="correct")
        moves = [p.detach() - old for p, old in zip(parameters, before, strict=True)]
        assert not any(probes.rises(one, moves) for one in given), k
    assert surgery.corrections["corrected"] > 10


@pytest.mark.parametrize("name", SHIPPED)
def test_every_strategy_takes_bfloat16(name):
    rows = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    made = direction(ready(name), rows)
    assert made.dtype == torch.bfloat16
    assert bool(made.isfinite().all())


def test_torchjds_cells_are_what_it_does(table):
    pytest.importorskip("torchjd", reason="torchjd is not installed: nox -s peers installs it")
    found, kept = sys.modules["peers_probes"].torchjd(), table.facts()["facts"]["torchjd"]
    quick = ("groups", "methods", "nan", "bfloat16", "small", "jacobians")
    assert {row: found[row]() for row in quick} == {row: kept[row] for row in quick}
