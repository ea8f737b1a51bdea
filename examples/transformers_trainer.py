"""Hugging Face Trainer: a small BERT learns masked words and sentence pairs at once.

A subclass of Trainer whose `training_step` calls the surgery where Trainer calls
`accelerator.backward`. Gradients are accumulated and clipped as ever. What each step decided goes
into Trainer's own log, and the surgery's state into its checkpoints. The text is made on the spot.
With the extra `transformers` installed:

    python examples/transformers_trainer.py --steps 300
    python examples/transformers_trainer.py --steps 300 --resume transformers_runs/checkpoint-150

The second goes on in the middle and ends with the very parameters of the first. Several processes
train together with `torchrun --nproc-per-node 2 examples/transformers_trainer.py`.
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from accelerate import DistributedType
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForPreTraining,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

import gradsurgery as gs

TOPICS, WORDS = 6, 8
CLS, SEP, MASK, FIRST_WORD = 0, 1, 2, 3
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


# [trainer]
class SurgeryTrainer(Trainer):
    """Trainer with several losses.

    `compute_losses` gives them by name, and a `Surgery` takes the place of `accelerator.backward`.

    Args:
        surgery: made on the same model; of several processes for the group of all.
        whole_batch: whether one surgery is done on the gradients of all micro-batches of a step
            together, or one on each micro-batch.
    """

    def __init__(
        self, *args: Any, surgery: gs.Surgery, whole_batch: bool = True, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        kinds = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
        if self.accelerator.distributed_type not in kinds or self.args.n_gpu > 1:
            raise RuntimeError("this example is for processes with one device and a whole model")
        self.surgery, self.whole_batch = surgery, whole_batch
        self.records: list[gs.Record] = []  # since the last log

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """As Trainer's, with the surgery in place of `self.accelerator.backward(loss)`."""
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # schedule-free optimizers
            self.optimizer.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            losses, _ = self.compute_losses(
                model, inputs, num_items_in_batch, self.current_gradient_accumulation_steps
            )
        scaler = self.accelerator.scaler  # there is one with fp16=True
        if not self.whole_batch:
            self.records.append(self.surgery.backward(losses, scaler=scaler))
        else:
            self.surgery.accumulate(losses, scaler=scaler)
            if self.accelerator.sync_gradients:  # the last micro-batch of the step
                self.records.append(self.surgery.combine())
        return sum(losses.values()).detach()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The sum of the losses, which evaluation reports."""
        losses, outputs = self.compute_losses(model, inputs, num_items_in_batch)
        return (sum(losses.values()), outputs) if return_outputs else sum(losses.values())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Beside Trainer's training loss: the means of what was decided since the last log."""
        if "loss" in logs:
            logs |= figures(
                self.records, 1 if self.whole_batch else self.args.gradient_accumulation_steps
            )
            self.records.clear()
        super().log(logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:  # it is the same on all processes
            torch.save(self.surgery.state_dict(), Path(output_dir) / "surgery.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.surgery.load_state_dict(
                torch.load(Path(checkpoint) / "surgery.pt", weights_only=True)
            )

    # [losses]
    def compute_losses(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        num_items_in_batch: Tensor | int | None = None,
        parts: int = 1,
    ) -> tuple[dict, Any]:
        """The losses of a micro-batch, scaled as parts of the mean over a step.

        Their sum over the `parts` micro-batches of a step is that mean. Trainer counts
        `num_items_in_batch`, the words to be found in all micro-batches together, as these differ
        in that.
        """
        words, pairs = inputs["labels"], inputs["next_sentence_label"]
        outputs = model(input_ids=inputs["input_ids"], token_type_ids=inputs["token_type_ids"])
        items = (words != -100).sum() if num_items_in_batch is None else num_items_in_batch
        logits = outputs.prediction_logits.flatten(0, 1)
        found = cross_entropy(logits, words.flatten(), reduction="sum") / items
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            found = found * self.accelerator.num_processes  # the words of all processes
        related = cross_entropy(outputs.seq_relationship_logits, pairs) / parts
        return {"words": found, "pairs": related}, outputs


# [end]


def figures(records: list[gs.Record], parts: int) -> dict[str, float]:
    """Means over the records, of which `parts` make a step.

    The losses, and per group of several objectives its weights and conflicts.
    """
    found: dict[str, list[float]] = {}
    for record in records:
        for group in record.values():
            if len(group.objectives) > 1 and group.conflicts is not None:
                found.setdefault(f"conflicts/{group.name}", []).append(float(bool(group.conflicts)))
                # beside it, as orthogonal gradients are in conflict half the time
                found.setdefault(f"cosine/{group.name}", []).append(group.mean_cosine)
            if len(group.objectives) > 1 and group.weights is not None:
                weights = group.weights if group.weights.ndim == 1 else group.weights.mean(0)
                for name, weight in zip(group.objectives, weights, strict=True):
                    found.setdefault(f"weight/{group.name}/{name}", []).append(float(weight))
        for name, value in record.losses.items():
            found.setdefault(f"loss/{name}", []).append(parts * value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def make_text(rows: int, seed: int) -> list[dict[str, list[int] | int]]:
    """Pairs of sentences with some words masked.

    The second keeps to the topic of the first (label 0) or not (1). A topic is a sentence of eight
    words, in which one in ten is replaced by another word of the topic.
    """
    draw = np.random.default_rng(seed)
    examples = []
    for _ in range(rows):
        other = int(draw.integers(2))
        first = int(draw.integers(TOPICS))
        second = (first + other * int(draw.integers(1, TOPICS))) % TOPICS
        tokens, kinds = [CLS], [0]
        for kind, topic in enumerate((first, second)):
            words = np.where(
                draw.random(WORDS) < 0.1, draw.integers(WORDS, size=WORDS), np.arange(WORDS)
            )
            tokens += [*(FIRST_WORD + WORDS * topic + words).tolist(), SEP]
            kinds += [kind] * (WORDS + 1)
        masked = [token >= FIRST_WORD and draw.random() < 0.2 for token in tokens]
        pairs = list(zip(tokens, masked, strict=True))
        example = {
            "input_ids": [MASK if hide else token for token, hide in pairs],
            "token_type_ids": kinds,
            "labels": [token if hide else -100 for token, hide in pairs],
            "next_sentence_label": other,
        }
        examples.append(example)
    return examples


def accuracies(evaluation: EvalPrediction) -> dict[str, float]:
    """How many masked words and how many pairs are right, in percent."""
    (words, pairs), (word_labels, pair_labels) = evaluation.predictions, evaluation.label_ids
    asked = word_labels != -100
    return {
        "words": 100 * (words.argmax(-1) == word_labels)[asked].mean(),
        "pairs": 100 * (pairs.argmax(-1) == pair_labels).mean(),
    }


@app.command()
def main(
    strategy: Annotated[str, typer.Option(help="As in 'cagrad(c=0.4)'.")] = "gradvac",
    steps: Annotated[int, typer.Option(min=2, help="Steps of the optimizer.")] = 300,
    accumulation: Annotated[int, typer.Option(min=1, help="Micro-batches per step.")] = 4,
    whole_batch: Annotated[
        bool,
        typer.Option(
            "--whole-batch/--each-micro-batch",
            help="One surgery per step, or one per micro-batch.",
        ),
    ] = True,
    batch: Annotated[int, typer.Option(min=1, help="Rows of a micro-batch.")] = 16,
    max_grad_norm: Annotated[
        float, typer.Option(min=0.0, help="Where the combined gradient is clipped.")
    ] = 1.0,
    bf16: Annotated[bool, typer.Option("--bf16/--float32", help="Mixed precision.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A checkpoint's folder to go on from."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where the checkpoints go; the log is in their trainer_state.json.")
    ] = Path("transformers_runs"),
) -> None:
    """Train a small BERT on two objectives and print what was logged."""
    set_seed(seed)
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 32,
    }
    model = BertForPreTraining(BertConfig(vocab_size=FIRST_WORD + TOPICS * WORDS, **sizes))
    arguments = TrainingArguments(  # joins the processes that torchrun started
        str(out),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=max_grad_norm,
        learning_rate=2e-3,
        warmup_steps=min(20, steps // 2),
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=max(1, steps // 6),
        save_steps=3 * max(1, steps // 6),
        dataloader_drop_last=True,
        disable_tqdm=True,
        report_to="none",
        seed=seed,
    )
    group = torch.distributed.group.WORLD if arguments.world_size > 1 else "auto"
    trainer = SurgeryTrainer(
        model,
        arguments,
        train_dataset=make_text(4096, 2 * seed),
        eval_dataset=make_text(512, 2 * seed + 1),
        compute_metrics=accuracies,
        surgery=gs.Surgery(strategy, model, seed=seed, process_group=group),
        whole_batch=whole_batch,
    )
    trainer.remove_callback(PrinterCallback)
    before = trainer.evaluate()
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    after = trainer.evaluate()
    if trainer.is_world_process_zero():
        show([entry for entry in trainer.state.log_history if "grad_norm" in entry], strategy)
        now = {n: f"{before[n]:.1f} % -> {after[n]:.1f} %" for n in ("eval_pairs", "eval_words")}
        print(f"pairs {now['eval_pairs']}, masked words {now['eval_words']}")
        count = trainer.state.global_step
        log = f"{out}/checkpoint-{count}/trainer_state.json"
        print(f"{count} steps; {trainer.surgery}; the log: {log}")


def show(logs: list[dict[str, float]], strategy: str) -> None:
    """A table of Trainer's log: a column for each time it logged."""
    table = Table(title=f"{strategy}: Trainer's log, means since the column before")
    table.add_column("", no_wrap=True)
    for entry in logs:
        table.add_column(f"step {entry['step']}", justify="right")
    for name in logs[0]:
        if name not in ("step", "epoch"):
            table.add_row(name, *(f"{entry[name]:.3g}" for entry in logs))
    Console().print(table)


if __name__ == "__main__":
    app()
