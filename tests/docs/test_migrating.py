"""The page on coming from another library: before and after both run, and give one gradient."""

import re

import pytest
import torch
from torch import nn

from tests.support.blocks import blocks
from tests.support.paths import DOCS
from tests.support.peers import stand_ins

PAGE = (DOCS / "migrating.rst").read_text()
# title -> how far the gradients of the trunk may differ, relative to their length: TorchJD's
# regulariser, and the float32 weights of conflictfree
AGREE = {
    "A loop written by hand": 1e-12,
    "TorchJD": 2e-3,
    "LibMTL": 1e-9,
    "A PCGrad wrapper": 1e-9,
    "ConFIG": 1e-5,
}


class Net(nn.Module):
    """A trunk and a head for each of three losses, of which one pair conflicts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in "abc"})
        self.double()


def names(objectives):
    """What the blocks of the page speak of."""
    model = Net()

    def features_and_losses(model, batch):
        z = model.trunk(batch)
        targets = {"a": 1.0, "b": -1.0, "c": 0.5}
        heads = {name: model.heads[name](z) for name in objectives}
        return z, {name: (y - targets[name]).pow(2).mean() for name, y in heads.items()}

    def losses_of(model, batch):
        return features_and_losses(model, batch)[1]

    loader = [torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).double()]
    tasks = {name: (lambda m, b, name=name: losses_of(m, b)[name]) for name in objectives}
    return {
        "torch": torch,
        "model": model,
        "loader": loader,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.0),
        "losses_of": losses_of,
        "features_and_losses": features_and_losses,
        "task_dict": tasks,
        "architecture": lambda encoder, decoders: model,
        "encoder_class": Net,
        "decoders": model.heads,
        "optim_param": {"optim": "sgd", "lr": 0.0},
    }


SUM = "for batch in loader:\n    sum(losses_of(model, batch).values()).backward()"


def sections():
    """Title -> the blocks of code of a section."""
    found = {}
    lines = PAGE.splitlines()
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"-{4,}", line)]
    for block in blocks():
        if block.file == "migrating.rst":
            title = lines[max(i for i in rules if i < block.line) - 1]
            found.setdefault(title, []).append(block.code)
    return found


def gradient(code, objectives="abc"):
    given = names(objectives)
    with stand_ins():
        exec(compile(code, "migrating.rst", "exec"), given)
    found = {name: p.grad for name, p in given["model"].named_parameters()}
    return torch.cat([g.reshape(-1) for name, g in found.items() if name.startswith("trunk")])


def test_each_section_has_a_before_and_an_after():
    found = sections()
    assert [title for title, parts in found.items() if len(parts) == 2] == list(AGREE)
    assert len(found) == len(AGREE) + 1


@pytest.mark.parametrize("title", AGREE)
def test_before_and_after_leave_one_gradient(title):
    if title == "TorchJD":
        pytest.importorskip("torchjd", reason="torchjd is not installed: nox -s peers installs it")
    of = "ab" if "PCGrad" in sections()[title][0] else "abc"  # of two the order does not matter
    before, after = (gradient(code, of) for code in sections()[title])
    summed = gradient(SUM, of)
    assert float((before - summed).norm() / summed.norm()) > 0.01
    assert float((before - after).norm() / before.norm()) <= AGREE[title]


def test_the_scripts_loop_runs():
    (code,) = sections()["The benchmark scripts of Nash-MTL, FAMO and FairGrad"]
    assert float(gradient(code).norm()) > 0
