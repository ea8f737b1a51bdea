"""The page on choosing a strategy: its tables are the registry's facts and the study's rows."""

import importlib
import itertools
import sys

import pytest

import gradsurgery as gs
from gradsurgery.contract.registry import registered
from gradsurgery.study import DECLARATION
from tests.study.known import evidence, rows
from tests.support.paths import DOCS
from tests.support.shared_trunk import SharedTrunk
from tests.support.shipped import SHIPPED, ready

PAGE = (DOCS / "choosing.rst").read_text()


@pytest.fixture
def choosing(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    yield importlib.import_module("choosing")
    for name in ("choosing", "results_tables"):
        sys.modules.pop(name)


def test_symptoms_have_a_section_each_and_name_strategies_that_ship(choosing):
    lines = PAGE.splitlines()
    titles = {
        title
        for title, rule in itertools.pairwise(lines)
        if rule and set(rule) == {"-"} and len(rule) == len(title)
    }
    for one in choosing.SYMPTOMS:
        assert one.seen.split("`")[1] in titles, one.seen
        assert {one.first, *one.others} <= set(SHIPPED), one.seen
    kinds = [strategy.name for found in choosing.kinds().values() for strategy in found]
    assert sorted(kinds) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_the_passes_of_the_table_are_those_of_a_step(choosing, name):
    """Counted where the backward pass enters what three losses share."""
    model, count = SharedTrunk(), []
    surgery = gs.Surgery(ready(name, "a"), model, method="gradients")
    several = 3 if "cross" in surgery.strategy.inputs else 1
    batches = [model.losses(z=lambda z: counted(z, count))[0] for _ in range(several)]
    given = batches if several > 1 else batches[0]
    surgery.backward(given, scores={"a+b+c": 2.0, "other": 1.0})
    said = choosing.passes(choosing.bound(name))
    assert len(count) == {"1": 1, "n": 3, "n per batch": 9, "1 per set of weights": 1}[said], said


def counted(z, count):
    z.register_hook(lambda gradient: count.append(1))
    return z


def test_the_passes_of_settings_are_those_of_a_step(choosing):
    said = {one.how: one.passes for one in choosing.SYMPTOMS if one.passes}
    model, count = SharedTrunk(), []
    losses, _ = model.losses(z=lambda z: counted(z, count))
    gs.Surgery("sum", model, protect="a", method="gradients").backward(losses)
    assert (said['``protect="name"``'], len(count)) == ("n", 3)
    count.clear()
    losses, z = model.losses(z=lambda z: counted(z, count).view_as(z))
    gs.Surgery("balancer", model).backward(losses, features=z)
    assert (said["``features=``"], len(count)) == ("n to the features, then 1", 1)


def test_promises_are_those_of_the_claims_under_the_options(choosing):
    def said(name):
        return choosing.promise(choosing.bound(name))

    assert said("upgrad") == said("mgda") == said("mmpareto") == said("cagrad(c=1.0)") == "always"
    assert said("cagrad") == "only with c >= 1"
    assert said("mmpareto(rescale='tensor')").startswith("only with rescale is group")
    assert said("pcgrad") == "n <= 2"
    assert said("sum") == "–"
    for name in SHIPPED:
        claims = {claim.name for claim in registered(name).claims}
        assert ("non-conflicting" in claims) == (said(name) != "–"), name


def test_what_the_loop_has_to_give_is_what_a_step_asks_for(choosing):
    assert choosing.needs(choosing.bound("ogm-ge")) == "``scores=``"
    assert choosing.needs(choosing.bound("dgl")) == "``joint=`` (an option)"
    assert choosing.needs(choosing.bound("famo")) == "``observe(losses)``"
    assert choosing.needs(choosing.bound("modo")) == "three independent batches"
    assert choosing.needs(choosing.bound("mgda")) == "–"


def test_verdicts_are_those_of_the_rows(choosing):
    part = DECLARATION.parts[0]
    known = evidence(DECLARATION, {part.name: rows(part, {"mmpareto": 3.0, "mgda": 0.0})})
    text = "\n".join(choosing.verdicts(known))
    assert "* - ``mmpareto``\n     - better (+3.00)" in text
    assert "* - ``mgda``\n     - equivalent (+0.00)" in text
    assert "* - ``upgrad``\n     - –" in text
    assert "better on 1 of 1" in " ".join("\n".join(choosing.answers(known)).split())
    assert "No rows" in "\n".join(choosing.verdicts(evidence(DECLARATION, {})))


def test_the_tables_are_written_and_included(choosing, tmp_path):
    made = choosing.write_tables(tmp_path, evidence(DECLARATION, {}))
    assert len(made) == 4
    assert all(f".. include:: choosing/{path.name}" in PAGE for path in made)
    text = (tmp_path / "choosing" / "facts.inc").read_text()
    assert all(f"<strategies/{name}>`" in text for name in SHIPPED)
