"""Lightning: the example as a user runs it, and what it promises."""

import csv
import re

import pytest
import torch

from tests.support.frameworks import needs, python, run, same

needs_lightning = needs("lightning", "mlxtend", "rich", "typer")


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
    """An uninterrupted run, and one that goes on after its first epoch in another process: the same
    log and parameters, bit for bit.
    """
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
    """Without the strategy's state the resumed run is another one, so that the test above would see
    it missing.
    """
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
    """With 16-mixed the scaler's factor is in `.grad`, and a step that overflows is skipped and
    leaves the surgery as it was.
    """
    code = """
import lightning, torch, lightning_multitask
from lightning.pytorch.plugins.precision import MixedPrecision
for scale in (2.0**10, 2.0**120):
    lightning.seed_everything(0)
    module = lightning_multitask.TwoDigits("mgda")
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    trainer = lightning.Trainer(
        max_epochs=1, limit_train_batches=5, limit_val_batches=0, accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module)
    print("scale", scaler.get_scale() / scale, module.surgery.state_dict()["step"])
"""
    out = python(tmp_path, "-c", code)
    assert re.findall(r"^scale .*", out, re.M) == ["scale 1.0 5", f"scale {2.0**-5} 0"]


@needs_lightning
def test_lightning_ddp_is_one_process(tmp_path):
    """Two processes with half of every batch each end with the parameters of one."""
    options = ["--epochs", "1", "--steps", "30", "--strategy", "mgda"]
    run(tmp_path, "lightning_multitask.py", *options, "--out", "one")
    run(tmp_path, "lightning_multitask.py", *options, "--out", "two", "--ranks", "2")
    one, two = (lightning_checkpoint(tmp_path / name, 0) for name in ("one", "two"))
    assert one["surgery"]["step"] == two["surgery"]["step"] == 30
    for name, tensor in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], tensor, rtol=1e-4, atol=1e-5)
