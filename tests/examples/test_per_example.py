"""The examples of per-example losses, run as a user would, in their quick mode."""

import importlib.util
import re

import pytest

from tests.support.frameworks import python
from tests.support.frameworks import run as frameworks_run
from tests.support.paths import EXAMPLES


@pytest.fixture
def run(fresh):
    """Run a script with its arguments: the rows of the table that it prints, and all of it."""

    def ran(script, *arguments):
        code, out, err = fresh.program(EXAMPLES / script, *arguments, COLUMNS="140")
        assert code == 0, err
        found = [
            [cell.strip() for cell in line.split("│")[1:-1]]
            for line in out.splitlines()
            if line.startswith("│")
        ]
        return found, out

    return ran


def numbers(cells):
    return [float(number) for number in re.findall(r"[\d.]+", " ".join(cells))]


def test_groups_are_trained(run):
    rows, _ = run("groups.py", "--quick")
    assert [name for name, *_ in rows] == ["sum", "mgda"]
    for _, rate, worst, _, mean, _ in rows:
        assert float(rate) > 0
        assert 0 <= numbers([worst])[0] <= float(mean) <= 100
    assert float(rows[0][4]) > 55  # the sum of groups learns; chance is 50


@pytest.mark.exhaustive
def test_every_example_is_an_objective(run):
    rows, _ = run("instance_wise.py", "--quick")
    assert [name for name, *_ in rows] == ["sum", "upgrad", "mgda"]
    for _, _, *quantiles, right, _ in rows:
        means = [numbers([cell])[0] for cell in quantiles]
        assert means == sorted(means)
        assert 0 <= numbers([right])[0] <= 100
    assert numbers([rows[0][6]])[0] > 20  # the sum learns in 14 steps; chance is 10


@pytest.mark.exhaustive
def test_rewards_are_followed_and_costs_told(run):
    rows, out = run("multi_reward.py", "--quick")
    assert [name for name, *_ in rows] == ["sum", "", "", "pcgrad", "", ""]
    for _, reward, *values in rows:
        assert reward in ("correct", "short", "format")
        assert all(0 <= value <= 1 for value in numbers(values))
    assert float(rows[1][6].split()[0]) > float(rows[1][2])  # shortness is easily had
    assert re.search(r"plain [\d.]+ \(1\.00x\), PerExample [\d.]+ .*a pass each [\d.]+", out, re.S)


EXACT = """
import torch, trl_grpo
trainer = trl_grpo.make_trainer("sum", 1, "unused")
trainer.current_gradient_accumulation_steps = 1
trainer.model.train()
inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
trainer.surgery.backward(trainer.objectives(trainer.model, inputs))
ours = [p.grad.clone() for p in trainer.model.parameters()]
trainer.model.zero_grad()
inputs["advantages"] = inputs["advantages_each"].sum(1)
trainer._compute_loss(trainer.model, inputs).backward()
for gradient, parameter in zip(ours, trainer.model.parameters(), strict=True):
    torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)
assert max(p.grad.abs().max() for p in trainer.model.parameters()) > 1e-3
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(
    importlib.util.find_spec("trl") is None,
    reason="without trl; `python -m pip install -c constraints.txt trl`",
)
def test_trl_has_the_gradient_of_grpo(tmp_path):
    """With the sum of advantages the direction of `sum` is the gradient of TRL's own loss."""
    python(tmp_path, "-c", EXACT)
    out = frameworks_run(tmp_path, "trl_grpo.py", "--steps", "5")
    assert re.search(r"^5 .*rewards/brief/mean.*rewards/varied/mean", out, re.M)
