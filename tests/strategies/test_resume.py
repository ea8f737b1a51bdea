"""Every strategy's state: saved, resumed in a new process, and never shared by two groups."""

import pytest
import torch

import gradsurgery as gs
from gradsurgery.contract.registry import registered
from tests.support.models import Tree, TwoEncoders
from tests.support.paths import ROOT
from tests.support.shipped import SHIPPED, plain, ready, step

STATEFUL = [name for name in SHIPPED if "state" in registered(name).inputs]


RESUME = """
import sys, torch
sys.path.insert(0, {root!r})
import gradsurgery as gs
from tests.support.models import Tree
from tests.support.shipped import ready, step, plain
name, saved, out = sys.argv[1:]
model = Tree()
checkpoint = torch.load(saved, weights_only=True)
model.load_state_dict(checkpoint["model"])
surgery = gs.Surgery(ready(name, "a"), model, seed=5)
surgery.load_state_dict(checkpoint["surgery"])
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for k in range(10, 14):
    optimizer.zero_grad()
    step(surgery, losses_of(model, k), lambda: losses_of(model, k + 100))
    optimizer.step()
torch.save([model.state_dict(), surgery.state_dict()], out)
"""


LOSSES = """
def losses_of(model, k):
    return {name: loss + 0.1 for name, loss in model.losses(k).items()}
"""


def losses_of(model, k):
    return {name: loss + 0.1 for name, loss in model.losses(k).items()}


@pytest.mark.sampled(keep=lambda name: "[moco]" in name or "[famo]" in name)
@pytest.mark.parametrize("name", [*STATEFUL, "pcgrad", "random", "graddrop"])
def test_saved_at_step_ten_and_resumed_in_a_new_process_it_goes_on_bit_for_bit(
    name, tmp_path, fresh
):
    model = Tree()
    surgery = gs.Surgery(ready(name, "a"), model, seed=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for k in range(14):
        if k == 10:
            torch.save(
                {"model": model.state_dict(), "surgery": surgery.state_dict()},
                tmp_path / "saved.pt",
            )
        optimizer.zero_grad()
        step(surgery, losses_of(model, k), lambda k=k: losses_of(model, k + 100))
        optimizer.step()
    script = LOSSES + RESUME.format(root=str(ROOT))
    ran = fresh(script, name, tmp_path / "saved.pt", tmp_path / "out.pt")
    assert ran.returncode == 0, ran.stderr
    weights, state = torch.load(tmp_path / "out.pt", weights_only=True)
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())
    assert plain(state) == plain(surgery.state_dict())


@pytest.mark.parametrize("name", [n for n in STATEFUL if registered(n).acts_on == "group"])
def test_two_groups_never_share_state(name):
    """The step of one encoder is the same whether the other one is trained too or not."""
    outcomes = []
    for groups in (("audio",), ("audio", "visual")):
        model = TwoEncoders()
        surgery = gs.Surgery(
            ready(name, "fused"), {g: getattr(model, g) for g in groups}, others="ignore"
        )
        for k in range(3):
            model.zero_grad()
            step(surgery, model.losses(k), lambda k=k, model=model: model.losses(k + 50))
        outcomes.append([p.grad.clone() for p in model.audio.parameters()])
        assert len(surgery.state_dict()["groups"]) == len(groups)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
