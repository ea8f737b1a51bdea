"""Where the numbers of a Recorder go: a CSV file, TensorBoard, or any function (step, tags)."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradsurgery.errors import extra

if TYPE_CHECKING:
    from gradsurgery.diagnostics.recorder import Recorder, Sink


def to_csv(recorder: "Recorder", path: str | Path) -> None:
    """Write the rows of a Recorder to a CSV file: step, group, pair, cosine, ratio, weights, ...

    NaN, for what was not measured, is an empty field.
    """
    rows = recorder.rows()
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        if rows:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({k: "" if v != v else v for k, v in row.items()})


def tensorboard(writer: Any) -> "Sink":
    """A sink for TensorBoard: `Recorder(sink=tensorboard("runs/1"))`, or for `Recorder.replay`.

    Args:
        writer: a folder, or a `SummaryWriter` (anything with `add_scalar(tag, value, step)`).

    Raises:
        MissingExtraError: for a folder, without tensorboard.
    """
    if isinstance(writer, (str, Path)):
        with extra("tensorboard", "a log for TensorBoard"):
            from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(writer))

    def write(step: int, tags: dict[str, float]) -> None:
        for tag, value in tags.items():
            writer.add_scalar(tag, value, step)

    return write
