"""cg-mnist: a digit's gray image beside a coloured one, a shortcut that fails at test."""

from pathlib import Path

import torch
from torch import Tensor, nn

from gradsurgery.tasks.digits import Examples, load_digits
from gradsurgery.tasks.metric import ACCURACY
from gradsurgery.tasks.multimodal import accuracies, losses, scores
from gradsurgery.tasks.problem import Batch, Problem
from gradsurgery.tasks.task import task

VARIANCE = 0.03  # σ² of a colour around its mean


def _encoder(channels: int) -> nn.Sequential:
    # Pooling before ReLU is the same function as after it, on a quarter of the numbers.
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.Conv2d(channels, 32, 5), nn.MaxPool2d(3, 2), nn.ReLU(),
        nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 64),
    )  # fmt: skip


class GrayAndColourNet(nn.Module):
    """Encoders `gray` and `colour`, with a head each and a fused head.

    The features of each encoder go to a head of its own and, concatenated, to the fused head.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gray, self.colour = _encoder(1), _encoder(3)
        self.gray_head, self.colour_head, self.fused_head = (
            nn.Linear(64, 10),
            nn.Linear(64, 10),
            nn.Linear(128, 10),
        )
        # torch declares `to` for device and dtype only
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack it

    def forward(self, gray: Tensor, colour: Tensor) -> dict[str, Tensor]:
        """Logits [n, 10] of each head from images [n, 1, 28, 28] and [n, 3, 28, 28]."""
        g, c = self.gray(gray), self.colour(colour)
        return {
            "fused": self.fused_head(torch.cat([g, c], 1)),
            "gray": self.gray_head(g),
            "colour": self.colour_head(c),
        }


@task(
    "cg-mnist",
    epochs=6,
    batch=64,
    lr=0.01,
    paper="Wei & Hu 2024, arXiv:2405.17730; Kim et al. 2019, arXiv:1812.10352",
)
def cg_mnist(data_root: Path | None = None, seed: int = 0) -> Problem:
    """A gray digit and the same digit in one colour: two encoders, three losses.

    In training and validation the colour is drawn around the mean colour of the label,
    c = clip(μ_y + N(0, σ²I), 0, 1) with σ² = 0.03. At test it is drawn around a mean colour chosen
    at random. Colour is an easy shortcut that fails at test: what the fused head scores shows how
    much the gray encoder learned in spite of it. There are one fused and two unimodal heads, and
    each encoder is reached by two losses. The test digits are fixed; a seed gives the other splits,
    and all colours around means that are fixed.
    """
    digits = load_digits(data_root, seed)
    return Problem(
        train=painted(digits.train, 3 * seed, shortcut=True),
        validation=painted(digits.validation, 3 * seed + 1, shortcut=True),
        test=painted(digits.test, 3 * seed + 2, shortcut=False),
        model=GrayAndColourNet,
        optimizer=lambda parameters, lr: torch.optim.SGD(
            parameters, lr=lr, momentum=0.9, weight_decay=1e-4
        ),
        losses=losses,
        metrics=accuracies,
        chance=10.0,
        better="higher",
        at_once=512,
        figure=ACCURACY,
        scores=lambda model, batch, strategy: scores(model, batch, strategy, ("gray", "colour")),
    )


def painted(examples: Examples, seed: int, shortcut: bool) -> Batch:
    """Gray images [n, 1, h, w], coloured ones [n, 3, h, w], labels [n]; from images [n, h, w]."""
    images, labels = examples
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(10, 3, generator=torch.Generator().manual_seed(7))
    which = labels if shortcut else torch.randint(10, labels.shape, generator=generator)
    colour = (
        means[which] + VARIANCE**0.5 * torch.randn(len(images), 3, generator=generator)
    ).clamp(0, 1)
    painted = images[:, None] * colour[:, :, None, None]
    return images[:, None], painted.contiguous(memory_format=torch.channels_last), labels
