"""What the README promises."""

import pytest

import gradsurgery as gs
from tests.support.paths import ROOT

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
