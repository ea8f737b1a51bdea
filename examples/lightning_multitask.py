"""Lightning: two digits read from one image by two heads on a shared trunk.

Optimization is manual. Each step logs its losses, the weights the strategy gave them and whether
they were in conflict, to a CSV file. The strategy's state is saved and restored with the
checkpoint. With the extra `lightning` installed:

    python examples/lightning_multitask.py
    python examples/lightning_multitask.py --resume lightning_runs/checkpoints/epoch=0.ckpt

The second goes on after the first epoch and ends with the very parameters of the first. With
`--ranks 2` two processes train together, each on half of every batch (Lightning's "ddp").
"""

import csv
from pathlib import Path
from typing import Annotated

import lightning
import torch
import typer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import gradsurgery as gs
from gradsurgery.tasks import get_task

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def figures(record: gs.Record) -> dict[str, float]:
    """What a step decided, as numbers to log.

    The losses, and per group of several objectives its pairs in conflict and its weights.
    """
    found = {f"loss/{name}": value for name, value in record.losses.items()}
    for group in record.values():
        if len(group.objectives) > 1:
            if group.conflicts is not None:
                found[f"conflicts/{group.name}"] = float(len(group.conflicts))
                # beside it, as orthogonal gradients are in conflict half the time
                found[f"cosine/{group.name}"] = group.mean_cosine
            if group.weights is not None:
                weights = group.weights if group.weights.ndim == 1 else group.weights.mean(0)
                found |= {
                    f"weight/{group.name}/{name}": float(weight)
                    for name, weight in zip(group.objectives, weights, strict=True)
                }
    return found


# [module]
class TwoDigits(lightning.LightningModule):
    """Two tasks on a shared trunk, each step a gradient surgery."""

    def __init__(self, strategy: str, seed: int = 0, lr: float = 2e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.problem = get_task("multimnist").load()
        self.model = self.problem.model()

    def setup(self, stage: str) -> None:
        # here the processes of Lightning's "ddp" have found each other
        group = torch.distributed.group.WORLD if self.trainer.world_size > 1 else "auto"
        given = {"seed": self.hparams.seed, "process_group": group}
        self.surgery = gs.Surgery(self.hparams.strategy, self.model, **given)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.hparams.lr)

    def training_step(self, batch: list[torch.Tensor], index: int) -> None:
        optimizer = self.optimizers()
        losses = self.problem.losses(self.model, batch)
        optimizer.zero_grad()
        scaler = getattr(
            self.trainer.precision_plugin, "scaler", None
        )  # there is one with 16-mixed
        # in place of self.manual_backward(sum(losses.values()))
        record = self.surgery.backward(losses, scaler=scaler)
        optimizer.step()
        self.log_dict(figures(record))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["surgery"] = self.surgery.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.surgery.load_state_dict(checkpoint["surgery"])

    # [end of module]

    def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
        accuracies = self.problem.metrics(self.model, batch)
        self.log_dict(
            {f"accuracy/{name}": value for name, value in accuracies.items()},
            on_epoch=True,
            batch_size=len(batch[0]),
        )

    def train_dataloader(self) -> DataLoader:
        """The training data; the order of an epoch follows from (seed, epoch) alone.

        So a resumed run sees the batches that an uninterrupted one does.
        """
        data = TensorDataset(*self.problem.train)
        ranks = self.trainer.world_size
        own = {"num_replicas": ranks, "rank": self.trainer.global_rank}
        return DataLoader(
            data,
            batch_size=64 // ranks,
            sampler=DistributedSampler(data, **own, seed=self.hparams.seed),
        )

    def val_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(*self.problem.validation), batch_size=500)


def show(log: Path, strategy: str) -> None:
    """A table of the CSV file: the means of each epoch."""
    rows = list(csv.DictReader(log.read_text().splitlines()))
    epochs = sorted({int(row["epoch"]) for row in rows})
    table = Table(title=f"{strategy}: means of each epoch, from {log}")
    table.add_column("", no_wrap=True)
    for epoch in epochs:
        table.add_column(f"epoch {epoch}", justify="right")
    for name in rows[0]:
        values = {
            epoch: [float(row[name]) for row in rows if int(row["epoch"]) == epoch and row[name]]
            for epoch in epochs
        }
        if name not in ("epoch", "step"):
            table.add_row(
                name,
                *(f"{sum(found) / len(found):.4g}" if found else "" for found in values.values()),
            )
    Console().print(table)


@app.command()
def main(
    strategy: Annotated[
        str, typer.Option(help="A strategy's name; options in brackets, as in 'cagrad(c=0.4)'.")
    ] = "gradvac",
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    steps: Annotated[
        int | None, typer.Option(min=1, help="At most so many steps an epoch.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    precision: Annotated[
        str,
        typer.Option(
            help="As Lightning takes it: '32-true', 'bf16-mixed', or '16-mixed' on a GPU."
        ),
    ] = "32-true",
    ranks: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    resume: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A checkpoint to go on from.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where checkpoints and logs go.")] = Path(
        "lightning_runs"
    ),
) -> None:
    """Train on MultiMNIST with Lightning and print what was logged."""
    lightning.seed_everything(seed, verbose=False)
    module = TwoDigits(strategy, seed)
    logger = CSVLogger(out, name="logs")  # a new version_N at each run
    # at the very end of an epoch, so that a resumed run begins the next one
    checkpoints = ModelCheckpoint(
        out / "checkpoints",
        filename="{epoch}",
        save_top_k=-1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    trainer = lightning.Trainer(
        max_epochs=epochs,
        limit_train_batches=steps,
        precision=precision,
        accelerator="auto" if ranks == 1 or torch.cuda.device_count() >= ranks else "cpu",
        devices=ranks,
        strategy="auto" if ranks == 1 else "ddp",
        use_distributed_sampler=False,  # the loader below shares the data out
        logger=logger,
        log_every_n_steps=1,
        callbacks=[checkpoints],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=True,
    )
    trainer.fit(module, ckpt_path=resume, weights_only=True)
    if not trainer.is_global_zero:
        return
    show(Path(logger.log_dir) / "metrics.csv", strategy)
    saved = ", ".join(sorted(str(path) for path in (out / "checkpoints").iterdir()))
    print(f"{trainer.global_step} steps; {module.surgery}; checkpoints: {saved}")


if __name__ == "__main__":
    app()
