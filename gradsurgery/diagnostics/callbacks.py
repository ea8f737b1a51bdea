"""A callback for Lightning: it logs what steps decide, and saves the state of the Surgery."""

from typing import Any

from gradsurgery.errors import InputError, extra

SAVED = "gradsurgery"  # the key in a checkpoint


def lightning_callback(every: int | None = None) -> Any:
    """A callback for `lightning.Trainer(callbacks=[...])`.

    The module optimizes by hand. It has the Surgery as `self.surgery`, made in `setup`, and keeps
    the Record of its step as `self.record`:

        self.record = self.surgery.backward(losses)

    The callback gives `record.scalars()` to the Trainer's loggers, under the step of the Record.
    The state of the Surgery is saved with each checkpoint and restored from it.

    Args:
        every: log each k-th batch; by default the Trainer's `log_every_n_steps`.

    Raises:
        MissingExtraError: without lightning.
        InputError: for a number that cannot be used; and in training, for a module that lacks
            `surgery` or `record`.
    """
    if every is not None and (not isinstance(every, int) or every < 1):
        raise InputError(f"every: expected a number of batches, 1 or more; got {every!r}.")
    with extra("lightning", "the callback"):
        from lightning import Callback

    class Watch(Callback):  # type: ignore[misc, unused-ignore]  # Any where it is missing
        """Logs Records and saves the Surgery."""

        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx % (every or trainer.log_every_n_steps) == 0:
                record = _of(module, "record")
                # not log_dict, which logs the same numbers again until there are new ones
                for logger in trainer.loggers:
                    logger.log_metrics(record.scalars(), step=record.step)

        def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            checkpoint[SAVED] = _of(module, "surgery").state_dict()

        def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            if SAVED not in checkpoint:
                raise InputError(
                    f"the checkpoint has no {SAVED!r}: it was saved without this callback."
                )
            _of(module, "surgery").load_state_dict(checkpoint[SAVED])

    return Watch()


def _of(module: Any, name: str) -> Any:
    found = getattr(module, name, None)
    if found is None:
        advice = {
            "surgery": "self.surgery = gradsurgery.Surgery(strategy, self.model) in setup",
            "record": "self.record = self.surgery.backward(losses) in training_step",
        }[name]
        raise InputError(f"{type(module).__name__} has no {name!r}; write {advice}.")
    return found
