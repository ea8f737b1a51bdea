"""Lightning, Hugging Face Trainer and peft: each example as a user runs it, and what it promises."""

import csv
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import torch

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def needs(*packages):
    """Skip where a framework is missing; it is not imported here, where its own deprecation warnings would be errors."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(
        bool(missing),
        reason=f"without {', '.join(missing)}; `nox -s frameworks` installs and runs it",
    )


needs_lightning = needs("lightning", "mlxtend", "rich", "typer")
needs_transformers = needs("transformers", "accelerate", "rich", "typer")
needs_peft = needs("peft", "transformers", "rich", "typer")


def python(folder, *arguments):
    environment = {
        **os.environ,
        "COLUMNS": "160",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(EXAMPLES),
    }
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run(folder, script, *arguments):
    return python(folder, EXAMPLES / script, *arguments)


def same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


# ---- Lightning


def lightning_log(folder):
    return list(
        csv.DictReader((folder / "logs" / "version_0" / "metrics.csv").read_text().splitlines())
    )


def lightning_checkpoint(folder, epoch):
    return torch.load(folder / "checkpoints" / f"epoch={epoch}.ckpt", weights_only=True)


@needs_lightning
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightning_learns_logs_and_resumes(tmp_path, precision):
    """An uninterrupted run, and one that goes on after its first epoch in another process: the same log and parameters, bit for bit."""
    options = ["--epochs", "2", "--steps", "40", "--precision", precision]
    run(tmp_path, "lightning_multitask.py", *options, "--out", "whole")
    run(
        tmp_path,
        "lightning_multitask.py",
        *options,
        "--out",
        "rest",
        "--resume",
        "whole/checkpoints/epoch=0.ckpt",
    )
    rows = [row for row in lightning_log(tmp_path / "whole") if row["loss/left"]]
    assert [int(row["step"]) for row in rows] == list(range(80))
    for side in ("left", "right"):
        losses = [float(row[f"loss/{side}"]) for row in rows]
        assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    conflicts = [float(row["conflicts/left+right"]) for row in rows]
    assert set(conflicts) == {0.0, 1.0}
    for row, conflict in zip(rows, conflicts, strict=True):
        weights = [float(row[f"weight/left+right/{side}"]) for side in ("left", "right")]
        assert not conflict or min(weights) > 1.0  # gradvac adds of each gradient to the other
    assert lightning_log(tmp_path / "rest") == [
        row for row in lightning_log(tmp_path / "whole") if row["epoch"] == "1"
    ]
    whole, rest = (lightning_checkpoint(tmp_path / name, 1) for name in ("whole", "rest"))
    same(whole["state_dict"], rest["state_dict"])
    assert whole["surgery"] == rest["surgery"]
    assert whole["surgery"]["step"] == 80


@needs_lightning
@pytest.mark.slow
def test_lightning_needs_the_saved_state(tmp_path):
    """Without the strategy's state the resumed run is another one, so that the test above would see it missing."""
    options = ["--epochs", "2", "--steps", "40"]
    run(tmp_path, "lightning_multitask.py", *options, "--out", "whole")
    checkpoint = lightning_checkpoint(tmp_path / "whole", 0)
    checkpoint["surgery"]["groups"] = ()
    torch.save(checkpoint, tmp_path / "stripped.ckpt")
    run(tmp_path, "lightning_multitask.py", *options, "--out", "rest", "--resume", "stripped.ckpt")
    whole, rest = (
        lightning_checkpoint(tmp_path / name, 1)["state_dict"] for name in ("whole", "rest")
    )
    assert any(not torch.equal(whole[name], rest[name]) for name in whole)


@needs_lightning
def test_lightning_grad_scaler(tmp_path):
    """With 16-mixed the scaler's factor is in `.grad`, and a step that overflows is skipped and leaves the surgery as it was."""
    code = """
import lightning, torch, lightning_multitask
from lightning.pytorch.plugins.precision import MixedPrecision
for scale in (2.0**10, 2.0**120):
    lightning.seed_everything(0)
    module = lightning_multitask.TwoDigits("mgda")
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainer = lightning.Trainer(
        max_epochs=1, limit_train_batches=5, limit_val_batches=0, accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module)
    print("scale", scaler.get_scale() / scale, module.surgery.state_dict()["step"])
"""
    out = python(tmp_path, "-c", code)
    assert re.findall(r"^scale .*", out, re.M) == ["scale 1.0 5", f"scale {2.0**-5} 0"]


# ---- Hugging Face Trainer


def trainer_log(folder, step):
    return json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())[
        "log_history"
    ]


@needs_transformers
@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", [["--whole-batch"], ["--each-micro-batch"], ["--bf16"]], ids=lambda mode: mode[0]
)
def test_transformers_learns_logs_and_resumes(tmp_path, mode):
    """An uninterrupted run, and one that goes on from its middle in another process: the same log and parameters, bit for bit."""
    options = ["--steps", "60", *mode]
    run(tmp_path, "transformers_trainer.py", *options, "--out", "whole")
    run(
        tmp_path,
        "transformers_trainer.py",
        *options,
        "--out",
        "rest",
        "--resume",
        "whole/checkpoint-30",
    )
    logs = [entry for entry in trainer_log(tmp_path / "whole", 60) if "grad_norm" in entry]
    assert [entry["step"] for entry in logs] == [10, 20, 30, 40, 50, 60]
    assert logs[-1]["loss/words"] < 0.8 * logs[0]["loss/words"]
    for entry in logs:
        assert 0.0 <= entry["conflicts/pairs+words"] <= 1.0
        assert entry["weight/pairs+words/words"] >= 1.0
        assert entry["loss"] == pytest.approx(entry["loss/words"] + entry["loss/pairs"], rel=1e-4)
    assert max(entry["conflicts/pairs+words"] for entry in logs) > 0
    again = [entry for entry in trainer_log(tmp_path / "rest", 60) if "grad_norm" in entry]
    assert again == logs
    models, states = (
        [
            torch.load(tmp_path / name / "checkpoint-60" / file, weights_only=True)
            for name in ("whole", "rest")
        ]
        for file in ("optimizer.pt", "surgery.pt")
    )
    from safetensors.torch import load_file

    same(
        *(
            load_file(tmp_path / name / "checkpoint-60" / "model.safetensors")
            for name in ("whole", "rest")
        )
    )
    same(
        *(
            {
                f"{i} {key}": value
                for i, found in model["state"].items()
                for key, value in found.items()
            }
            for model in models
        )
    )
    assert states[0] == states[1]
    assert states[0]["step"] == (60 if mode != ["--each-micro-batch"] else 240)


SMALL_TRAINER = """
import torch, gradsurgery as gs, transformers_trainer as example
from transformers import BertConfig, BertForPreTraining, PrinterCallback, Trainer, TrainingArguments, set_seed

rows = example.make_text(256, 0)


class Plain(Trainer):
    loss_is_scaled_for_ga = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return sum(example.SurgeryTrainer.compute_losses(self, model, inputs, num_items_in_batch, self.current_gradient_accumulation_steps)[0].values())


def train(kind, batch=8, accumulation=4, dropout=0.0, strategy="sum", whole_batch=True, lr=1e-3):
    set_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32)
    chances = dict(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model = BertForPreTraining(BertConfig(vocab_size=64, **sizes, **chances))
    arguments = TrainingArguments(
        "unused", max_steps=6, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, learning_rate=lr, optim="sgd",
        max_grad_norm=0.5, use_cpu=True, disable_tqdm=True, report_to="none", save_strategy="no", logging_steps=1,
    )
    options = {} if kind is Plain else dict(surgery=gs.Surgery(strategy, model), whole_batch=whole_batch)
    trainer = kind(model, arguments, train_dataset=rows, **options)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    return torch.cat([p.detach().flatten() for p in model.parameters()]), torch.tensor(norms)
"""


@needs_transformers
def test_transformers_sum_is_the_plain_trainer(tmp_path):
    """Dropout, accumulation, clipping: with the strategy `sum` everything is as Trainer does it."""
    code = """
(plain, plain_norms), (summed, norms) = train(Plain, dropout=0.1), train(example.SurgeryTrainer, dropout=0.1, whole_batch=False)
assert norms.min() > 0.5  # so that every step is clipped
assert torch.equal(plain, summed) and torch.equal(plain_norms, norms)
"""
    python(tmp_path, "-c", SMALL_TRAINER + code)


@needs_transformers
def test_transformers_whole_batch_is_one_large_batch(tmp_path):
    """Four micro-batches of 8 rows, which differ in how many words are masked, are one of 32; a surgery on each is something else."""
    code = """
for strategy in ("mgda", "gradvac"):
    large, _ = train(example.SurgeryTrainer, batch=32, accumulation=1, strategy=strategy)
    whole, _ = train(example.SurgeryTrainer, strategy=strategy)
    parts, _ = train(example.SurgeryTrainer, strategy=strategy, whole_batch=False)
    start, _ = train(example.SurgeryTrainer, lr=0.0)
    way, rounding, difference = ((other - large).norm().item() for other in (start, whole, parts))
    assert rounding < 1e-4 * way and rounding < 0.01 * difference, (strategy, way, rounding, difference)
"""
    python(tmp_path, "-c", SMALL_TRAINER + code)


# ---- peft


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
def test_peft_only_lora_moves_and_the_first_step_hurts_nobody(tmp_path):
    """One surgery on LoRA's parameters: what is frozen gets no gradient, and what the protected direction does to retain is no harm."""
    code = """
import copy, torch, gradsurgery as gs, peft_forget_retain as example
from peft import LoraConfig, get_peft_model
people = example.make_people(0)
base = example.learn(people, 0, 60)
torch.manual_seed(0)
model = get_peft_model(copy.deepcopy(base), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
trained = [p for p in model.parameters() if p.requires_grad]
reference = example.log_likelihood(base, people[:8]).detach()
losses = example.losses(model, people[:8], reference, people[8:])
gradients = [torch.cat([g.double().flatten() for g in torch.autograd.grad(loss, trained, retain_graph=True)]) for loss in losses.values()]
assert gradients[0] @ gradients[1] < 0
record = gs.Surgery("sum", model, protect="retain").backward(losses)
direction = torch.cat([p.grad.double().flatten() for p in trained])
assert record["forget+retain"].conflicts == (("forget", "retain"),)
assert record["forget+retain"].parameters == len(trained) == 8
assert direction @ gradients[0] > 0 and direction @ gradients[1] > -1e-6 * direction.norm() * gradients[1].norm()
assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
"""
    python(tmp_path, "-c", code)
