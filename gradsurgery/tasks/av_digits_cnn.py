"""av-digits-cnn: the data of av-digits with convolutional encoders."""

from pathlib import Path

from torch import nn

from gradsurgery.tasks.audiovisual import pairs
from gradsurgery.tasks.av_digits import NOISE
from gradsurgery.tasks.multimodal import MultimodalNet, fused_problem
from gradsurgery.tasks.problem import Problem
from gradsurgery.tasks.task import task

WIDTH = 64


def convolutions(channels: int = 1) -> list[nn.Module]:
    """Two convolutions: features [n, 32 · (h // 4) · (w // 4)] of images [n, channels, h, w]."""
    # Pooling before ReLU is the same function as after it, on a quarter of the numbers.
    return [
        nn.Conv2d(channels, 16, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
    ]  # fmt: skip


def _model() -> nn.Module:
    image = nn.Sequential(*convolutions(), nn.Linear(32 * 3 * 3, WIDTH), nn.ReLU())
    audio = nn.Sequential(
        nn.Unflatten(1, (1, 24)), *convolutions(), nn.Linear(32 * 6 * 3, WIDTH), nn.ReLU()
    )
    return MultimodalNet({"image": image, "audio": audio}, WIDTH)


@task(
    "av-digits-cnn",
    steps=200,
    lr=(0.011, 0.08),
    primary="fused",
    delta=1.0,
    ratio=1_800 / 300,
    paper="as av-digits",
)
def av_digits_cnn(data_root: Path | None = None, seed: int = 0) -> Problem:
    """The data of `av-digits` with an encoder of two convolutions per modality.

    Data, noise, splits, losses and what a seed changes are those of `av-digits`.
    """
    data = pairs(data_root, seed, **NOISE)
    return fused_problem(data, _model, seed=seed, batch=64, modalities=("image", "audio"))
