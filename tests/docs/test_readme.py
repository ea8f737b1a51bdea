"""What the README promises, and that what it shows is what comes out."""

import importlib
import re
import sys

import pytest

import gradsurgery as gs
from tests.support.paths import DOCS, ROOT

pytestmark = pytest.mark.quick


def test_the_readme_promises_nothing_unconditional_of_later_steps():
    from gradsurgery.contract.registry import registered

    text = (ROOT / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    head = next(line for line in lines if line.startswith("| name | what it does"))
    assert "| non-conflicting |" in head
    rows = {
        line.split("`")[1]: line.split(" | ")[2]
        for line in lines[lines.index(head) + 1 :]
        if line.startswith("| `")
    }
    found = 0
    for name in gs.strategy_names():
        chosen = registered(name)
        if chosen.shipped and any(claim.name == "non-conflicting" for claim in chosen.claims):
            keeps = "state" in chosen.inputs if not chosen.required else False
            found += keeps
            assert rows[name].endswith("from a fresh state") == keeps, name
    assert found >= 2


@pytest.fixture
def docs(monkeypatch):
    """Imports a module of the docs."""
    monkeypatch.syspath_prepend(str(DOCS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in ("front", "choosing", "results_tables", "prose"):
            sys.modules.pop(name)


def test_the_first_step_prints_what_the_readme_shows(docs):
    text = (ROOT / "README.md").read_text()
    assert docs("front").renewed(text) == text, "python docs/front.py"
    assert "conflicts fused/ear" in docs("front").printed(text)


def test_the_picture_shows_a_sum_that_conflicts_and_five_directions_that_do_not(docs):
    front = docs("front")
    found = {name: front.conflicts(d) for name, d in front.directions().items()}
    assert found.pop("sum") == ["calm"]
    assert set(map(tuple, found.values())) == {()}
    for page in (ROOT / "README.md", DOCS / "index.rst"):
        text = page.read_text()
        assert "front.png" in text
        assert all(name.split("(")[0] in text for name in front.STRATEGIES)


def test_what_is_promised_always_is_what_claims_say(docs):
    choosing = docs("choosing")
    always = {
        s.name for s in map(choosing.bound, choosing.SHIPPED) if choosing.promise(s) == "always"
    }
    for page in (ROOT / "README.md", DOCS / "index.rst"):
        said = page.read_text().split("**Non-conflicting always**")[1].partition("loss rises")[0]
        assert set(re.findall(r"`+([\w-]+)`+", said)) == always, page


def test_the_table_of_symptoms_is_that_of_the_page_on_choosing(docs):
    choosing, text = docs("choosing"), (ROOT / "README.md").read_text()
    assert choosing.renewed(text) == text, "python docs/choosing.py"
    table = text.split(choosing.MARKS[0])[1].split(choosing.MARKS[1])[0]
    rows = table.strip().splitlines()[2:]
    assert len(rows) == len(choosing.SYMPTOMS)
    assert "| One modality dominates | `mmpareto`, a loss per modality beside the joint" in table
    assert choosing.renewed(text.replace(rows[0] + "\n", "")) == text


def test_groups_named_by_the_reader_are_those_of_the_record(docs):
    text = (ROOT / "README.md").read_text()
    named = 'gs.Surgery("mmpareto", {"ear": encoders["ear"], "eye": encoders["eye"]})'
    plain = 'gs.Surgery("mmpareto", model, gamma=1.0)'
    assert f"`{named}`" in text
    assert f"`{plain}`" in text
    program = docs("front").STEP.search(text)[2]
    for said, groups in ((named, ("ear", "eye")), (plain, ("ear+fused", "eye+fused"))):
        names = {"__name__": "readme"}
        exec(program.replace('gs.Surgery("mmpareto", model)', said), names)
        assert all(names["record"][group].strategy == "mmpareto" for group in groups)
    assert names["record"]["eye+fused"].weights.tolist() == [1.0, 1.0]
