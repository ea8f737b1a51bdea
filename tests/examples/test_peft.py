"""peft: the example as a user runs it, and what it promises."""

import re

import pytest

from tests.support.frameworks import needs, python, run

needs_peft = needs("peft", "transformers", "rich", "typer")


def peft_table(out):
    """name -> the cells of its row, each a list of one number for each seed."""
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in out.splitlines()
        if line.startswith("│")
    ]
    return {
        name: [[float(number) for number in re.findall(r"[\d.]+", cell)] for cell in cells]
        for name, *cells in rows
    }


@needs_peft
@pytest.mark.slow
def test_peft_forgets_and_retains(tmp_path):
    table = peft_table(
        run(
            tmp_path,
            "peft_forget_retain.py",
            "--seeds",
            "1",
            "--strategy",
            "sum",
            "--strategy",
            "pcgrad",
        )
    )
    assert set(table) == {"before", "sum", "pcgrad", "sum, protect='retain'"}
    known = table.pop("before")
    assert known[1] == known[3] == [100.0]
    for name, (npo, right, loss, kept, conflicts, risen) in table.items():
        assert npo[0] < 0.05 * known[0][0]
        assert right[0] < 50
        assert conflicts[0] > 50
        if name != "sum":
            assert kept[0] >= 95
            assert loss[0] < 0.1
            assert risen[0] < 30


@needs_peft
def test_peft_only_lora_moves_and_the_first_step_is_non_conflicting(tmp_path):
    """One surgery on LoRA's parameters: what is frozen gets no gradient, and what the protected
    direction does to retain is no conflict.
    """
    code = """
import copy, torch, gradsurgery as gs, peft_forget_retain as example
from peft import LoraConfig, get_peft_model
people = example.make_people(0)
base = example.learn(people, 0, 60)
torch.manual_seed(0)
lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
model = get_peft_model(copy.deepcopy(base), lora)
trained = [p for p in model.parameters() if p.requires_grad]
reference = example.log_likelihood(base, people[:8]).detach()
losses = example.losses(model, people[:8], reference, people[8:])
found = [torch.autograd.grad(loss, trained, retain_graph=True) for loss in losses.values()]
gradients = [torch.cat([g.double().flatten() for g in row]) for row in found]
assert gradients[0] @ gradients[1] < 0
record = gs.Surgery("sum", model, protect="retain").backward(losses)
direction = torch.cat([p.grad.double().flatten() for p in trained])
assert record["forget+retain"].conflicts == (("forget", "retain"),)
assert record["forget+retain"].parameters == len(trained) == 8
assert direction @ gradients[0] > 0
assert direction @ gradients[1] > -1e-6 * direction.norm() * gradients[1].norm()
assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
"""
    python(tmp_path, "-c", code)
