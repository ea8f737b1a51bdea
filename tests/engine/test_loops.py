"""Every loop of support/loops.py with every strategy, and the table in the docs that says so."""

import importlib.util

import pytest
import torch

import gradsurgery as gs
from tests.support.loops import LOOPS
from tests.support.paths import DOCS
from tests.support.shipped import SHIPPED, ready


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("title", LOOPS)
def test_loop(title, name):
    """It works, with or without a note, or it is the error that the table says."""
    loop = LOOPS[title]
    strategy = ready(name, "a")
    outcome, text = loop.outcome(name)
    torch.manual_seed(0)
    if outcome == "error":
        with pytest.raises(gs.GradSurgeryError, match=text):
            loop.run(strategy)
    else:
        loop.run(strategy)


def test_the_docs_table_is_what_is_tested():
    """docs/loops.py makes it from the same list; its file has the name of ours, so it is loaded by
    its path.
    """
    spec = importlib.util.spec_from_file_location("loops_page", DOCS / "loops.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (DOCS / "loops.rst").read_text() == module.page(), "python docs/loops.py renews it"
