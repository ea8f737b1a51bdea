"""The Lightning callback: it logs the numbers of the Records and saves the Surgery's state."""

import pytest

import gradsurgery as gs
from gradsurgery.diagnostics import lightning_callback
from tests.support.frameworks import needs, python

MODULE = """
import lightning, torch
import gradsurgery as gs
from gradsurgery.diagnostics import lightning_callback

class Two(lightning.LightningModule):
    def __init__(self, record=True):
        super().__init__()
        self.automatic_optimization = False
        self.net, self.keeps, self.logged = torch.nn.Linear(3, 2), record, []
    def setup(self, stage):
        self.surgery = gs.Surgery("gradvac", self.net)
    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.05)
    def training_step(self, batch, index):
        out = self.net(batch[0])
        first, second = (out[:, 0] - 1).pow(2), (out[:, 1] + batch[0][:, 0]).pow(2)
        losses = {"a": first.mean(), "b": second.mean()}
        self.optimizers().zero_grad()
        record = self.surgery.backward(losses)
        if self.keeps:
            self.record = record
        self.optimizers().step()
    def train_dataloader(self):
        rows = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size=4)

class Kept(lightning.pytorch.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.found = []
    def log_metrics(self, metrics, step=None):
        self.found.append((step, dict(metrics)))

def fit(module, epochs, every=1, resume=None):
    logger = Kept()
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=logger, log_every_n_steps=1,
        callbacks=[lightning_callback(every)], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(module, ckpt_path=resume, weights_only=True)
    return trainer, logger.found
"""
LOGS = """
torch.manual_seed(0)
module = Two()
trainer, found = fit(module, 1, every=2)
mine = [(step, values) for step, values in found if "loss/a" in values]
assert [step for step, _ in mine] == [0, 2, 4], mine
names = {"a+b/conflicts", "a+b/cosine/a, b", "a+b/weight/a", "loss/b", "a+b/norm/a"}
assert names <= set(mine[-1][1]), mine[-1]
trainer.save_checkpoint("half.ckpt")
again = Two()
trainer, _ = fit(again, 2, resume="half.ckpt")
assert again.surgery.state_dict()["step"] == 12
state = torch.load("half.ckpt", weights_only=True)["gradsurgery"]
assert state["step"] == 6
print("logged and resumed")
"""
WRONG = """
torch.manual_seed(0)
try:
    fit(Two(record=False), 1)
except gs.InputError as error:
    print(error)
"""


@needs("lightning")
def test_it_logs_records_and_saves_the_state(tmp_path):
    assert "logged and resumed" in python(tmp_path, "-c", MODULE + LOGS)


@needs("lightning")
def test_a_module_that_keeps_no_record_is_told_what_to_write(tmp_path):
    out = python(tmp_path, "-c", MODULE + WRONG)
    assert "Two has no 'record'; write self.record = self.surgery.backward(losses)" in out


@pytest.mark.parametrize("every", [0, 1.5])
def test_every_is_a_number_of_batches(every):
    with pytest.raises(gs.InputError, match="every: expected a number of batches"):
        lightning_callback(every)
