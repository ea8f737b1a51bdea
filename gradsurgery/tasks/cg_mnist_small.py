"""cg-mnist-small: the digits of cg-mnist, gray and coloured, at 14 x 14 pixels."""

from pathlib import Path

from torch import nn

from gradsurgery.tasks.av_digits_cnn import convolutions
from gradsurgery.tasks.cg_mnist import painted
from gradsurgery.tasks.digits import Examples, load_digits, pooled
from gradsurgery.tasks.multimodal import MultimodalNet, fused_problem
from gradsurgery.tasks.problem import Problem
from gradsurgery.tasks.splits import Splits
from gradsurgery.tasks.task import task

WIDTH = 64


def _model() -> nn.Module:
    def encoder(channels: int) -> nn.Module:
        return nn.Sequential(*convolutions(channels), nn.Linear(32 * 3 * 3, WIDTH), nn.ReLU())

    return MultimodalNet({"gray": encoder(1), "colour": encoder(3)}, WIDTH)


def _small(examples: Examples) -> Examples:
    images, labels = examples
    return pooled(images), labels


@task(
    "cg-mnist-small",
    steps=330,
    lr=(0.01, 0.1),
    primary="fused",
    delta=1.0,
    ratio=3_500 / 500,
    paper="as cg-mnist",
)
def cg_mnist_small(data_root: Path | None = None, seed: int = 0) -> Problem:
    """A gray digit and the same digit in one colour, averaged to 14 x 14 pixels.

    Colours, splits and what a seed changes are those of `cg-mnist`; an encoder is two convolutions.
    Colour tells the label in training and validation, and nothing at test. So validation figures
    do not follow test figures, and which learning rate they choose decides much: read the response
    curve and not a table alone. A difference below δ = 1 point, ten test digits, counts as none.
    """
    digits = load_digits(data_root, seed)
    data = Splits(
        painted(_small(digits.train), 3 * seed, shortcut=True),
        painted(_small(digits.validation), 3 * seed + 1, shortcut=True),
        painted(_small(digits.test), 3 * seed + 2, shortcut=False),
    )
    return fused_problem(data, _model, seed=seed, batch=64, modalities=("gray", "colour"))
