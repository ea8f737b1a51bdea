"""Hugging Face Trainer: the example as a user runs it, and what it promises."""

import json

import pytest
import torch

from tests.support.frameworks import needs, python, run, same

needs_transformers = needs("transformers", "accelerate", "rich", "typer")


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
    """An uninterrupted run, and one that goes on from its middle in another process: the same log
    and parameters, bit for bit.
    """
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
from transformers import BertConfig, BertForPreTraining, PrinterCallback, Trainer
from transformers import TrainingArguments, set_seed

rows = example.make_text(256, 0)


class Plain(Trainer):
    loss_is_scaled_for_ga = True

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses, _ = example.SurgeryTrainer.compute_losses(
            self, model, inputs, num_items_in_batch, self.current_gradient_accumulation_steps
        )
        return sum(losses.values())


def train(kind, batch=8, accumulation=4, dropout=0.0, strategy="sum", whole_batch=True, lr=1e-3):
    set_seed(0)
    sizes = dict(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )
    chances = dict(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model = BertForPreTraining(BertConfig(vocab_size=64, **sizes, **chances))
    arguments = TrainingArguments(
        "unused", max_steps=6, per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation, learning_rate=lr, optim="sgd",
        max_grad_norm=0.5, use_cpu=True, disable_tqdm=True, report_to="none",
        save_strategy="no", logging_steps=1,
    )
    group = torch.distributed.group.WORLD if arguments.world_size > 1 else "auto"
    options = {}
    if kind is not Plain:
        surgery = gs.Surgery(strategy, model, process_group=group)
        options = dict(surgery=surgery, whole_batch=whole_batch)
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
plain, plain_norms = train(Plain, dropout=0.1)
summed, norms = train(example.SurgeryTrainer, dropout=0.1, whole_batch=False)
assert norms.min() > 0.5  # so that every step is clipped
assert torch.equal(plain, summed) and torch.equal(plain_norms, norms)
"""
    python(tmp_path, "-c", SMALL_TRAINER + code)


@needs_transformers
def test_transformers_whole_batch_is_one_large_batch(tmp_path):
    """Four micro-batches of 8 rows, which differ in how many words are masked, are one of 32; a
    surgery on each is something else.
    """
    code = """
for strategy in ("mgda", "gradvac"):
    large, _ = train(example.SurgeryTrainer, batch=32, accumulation=1, strategy=strategy)
    whole, _ = train(example.SurgeryTrainer, strategy=strategy)
    parts, _ = train(example.SurgeryTrainer, strategy=strategy, whole_batch=False)
    start, _ = train(example.SurgeryTrainer, lr=0.0)
    way, rounding, difference = ((other - large).norm().item() for other in (start, whole, parts))
    found = (strategy, way, rounding, difference)
    assert rounding < 1e-4 * way and rounding < 0.01 * difference, found
"""
    python(tmp_path, "-c", SMALL_TRAINER + code)


@needs_transformers
def test_transformers_two_processes_are_one(tmp_path):
    """Half the rows each, in the same order: `sum` is the plain Trainer of two processes, and other
    strategies are the run of one process.
    """
    code = """
import sys
if len(sys.argv) > 1:
    runs = {s: train(example.SurgeryTrainer, batch=8, accumulation=2, strategy=s) for s in NAMES}
    plain = train(Plain, batch=8, accumulation=2)
    (difference,) = [(plain[0] - runs["sum"][0]).norm()]
    assert difference < 1e-5 * runs["sum"][0].norm(), difference
    if torch.distributed.get_rank() == 0:
        torch.save({name: found[0] for name, found in runs.items()}, sys.argv[1])
    torch.distributed.destroy_process_group()
else:
    two = torch.load("two.pt")
    for name in NAMES:
        one, _ = train(example.SurgeryTrainer, batch=16, accumulation=2, strategy=name)
        start, _ = train(example.SurgeryTrainer, batch=16, accumulation=2, lr=0.0)
        rounding, way = (two[name] - one).norm().item(), (start - one).norm().item()
        assert rounding < 1e-4 * way, (name, rounding, way)
"""
    script = tmp_path / "trained.py"
    script.write_text(SMALL_TRAINER + 'NAMES = ("sum", "mgda", "gradvac")\n' + code)
    ranks = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    python(tmp_path, *ranks, script, "two.pt")
    python(tmp_path, script)
