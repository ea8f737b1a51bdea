"""The skill file and llms.txt: what they say works, and what they name is there."""

import re

import pytest

import gradsurgery as gs
from tests.support.paths import DOCS

pytestmark = pytest.mark.quick
SKILL = DOCS / "skills" / "choose-and-wire-a-strategy.md"
LLMS = DOCS / "llms.txt"


def test_the_blocks_of_the_skill_run_one_after_the_other(capsys):
    blocks = re.findall(r"```python\n(.*?)```", SKILL.read_text(), re.S)
    assert len(blocks) == 5
    names = {"__name__": "skill"}
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{SKILL.name}, block {number}", "exec"), names)
    assert "audio+fused" in capsys.readouterr().out


def test_its_front_matter_has_a_name_and_a_description():
    head = SKILL.read_text().split("---\n")[1]
    assert re.match(rf"name: {SKILL.stem}\ndescription: \w", head)


def test_strategies_and_settings_that_it_names_exist():
    table = [line for line in SKILL.read_text().splitlines() if line.startswith("| ")]
    named = {name for line in table[2:] for name in re.findall(r"`([a-z-]+)`", line)}
    assert len(named) > 8
    assert named <= set(gs.strategy_names())


def test_every_page_that_llms_txt_links_to_is_built():
    links = re.findall(r"\]\(([^)]+)\)", LLMS.read_text())
    assert len(links) > 10
    for link in links:
        if link in ("strategies/index.html", "api/index.html"):
            continue  # written by each build
        page, skill = f"{link.removesuffix('.html')}.rst", f"skills/{link}"
        assert (DOCS / (page if link.endswith(".html") else skill)).is_file(), link


def test_llms_txt_is_copied_into_the_site():
    text = (DOCS / "conf.py").read_text()
    assert 'html_extra_path = ["llms.txt", "skills"]' in text
