"""Every loop of loops.py with every strategy, and the table in the docs that says so."""

import pytest
import torch
from loops import LOOPS
from zoo import SHIPPED, ready

import gradsurgery as gs


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
