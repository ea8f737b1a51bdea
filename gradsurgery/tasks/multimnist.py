"""multimnist: two overlapping digits in one image, one objective each, on a shared LeNet trunk."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from gradsurgery.tasks.digits import Examples, load_digits
from gradsurgery.tasks.metric import ACCURACY
from gradsurgery.tasks.problem import Batch, Problem
from gradsurgery.tasks.task import task

SIDES = ("left", "right")


class MultiDigitNet(nn.Module):
    """A shared LeNet `trunk` and a head for each digit."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(320, 50), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict(
            {side: nn.Sequential(nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 10)) for side in SIDES}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [n, 10] of each digit from images [n, 1, 28, 28]."""
        features = self.trunk(images)
        return {side: head(features) for side, head in self.heads.items()}


@task(
    "multimnist",
    epochs=6,
    batch=64,
    lr=2e-3,
    paper="Sabour et al. 2017, arXiv:1710.09829; Sener & Koltun 2018, arXiv:1810.04650",
)
def multimnist(data_root: Path | None = None, seed: int = 0) -> Problem:
    """Two overlapping digits, left and right, to be read from one image.

    Two digits on a canvas of 36 x 36, the right one shifted by six pixels, the maximum where they
    overlap, resized to 28 x 28 by nearest neighbours. Each training digit is the left one of two
    images, each time with another partner; pairs never mix the splits. The model has one trunk that
    both losses reach, and a head each. The test digits are fixed; a seed gives the other splits,
    and all pairs.
    """
    digits = load_digits(data_root, seed)
    return Problem(
        train=pairs(digits.train, 2, 3 * seed),
        validation=pairs(digits.validation, 2, 3 * seed + 1),
        test=pairs(digits.test, 2, 3 * seed + 2),
        model=MultiDigitNet,
        optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
        losses=losses,
        metrics=accuracies,
        chance=10.0,
        better="higher",
        at_once=512,
        figure=ACCURACY,
    )


def pairs(examples: Examples, copies: int, seed: int, spoilt: float = 0.0) -> Batch:
    """Images [n, 1, 28, 28], normalised, and labels [n, 2].

    Args:
        examples: digits and their labels.
        copies: images per left digit, each with another partner.
        seed: of the partners, and of what is spoilt.
        spoilt: the share of the right digit's pixels that become black or white, by chance.
    """
    images, labels = examples
    first = torch.arange(copies * len(images)) % len(images)
    generator = torch.Generator().manual_seed(seed)
    partner = torch.randint(len(images), first.shape, generator=generator)
    right = images[partner]
    if spoilt:
        drawn = torch.rand(right.shape, generator=generator)
        right = torch.where(drawn < spoilt, (drawn < spoilt / 2).float(), right)
    canvas = torch.zeros(len(first), 36, 36)
    canvas[:, :28, :28] = images[first]
    canvas[:, 6:34, 6:34] = torch.maximum(canvas[:, 6:34, 6:34], right)
    small = interpolate(canvas[:, None], size=(28, 28), mode="nearest")
    return (small - 0.1307) / 0.3081, torch.stack([labels[first], labels[partner]], 1)


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The cross-entropy of each digit."""
    images, labels = batch
    return {
        side: cross_entropy(logits, labels[:, SIDES.index(side)])
        for side, logits in model(images).items()
    }


def accuracies(model: nn.Module, examples: Batch) -> dict[str, float]:
    """The accuracy of each digit in percent."""
    images, labels = examples
    return {
        side: 100 * (logits.argmax(1) == labels[:, SIDES.index(side)]).float().mean().item()
        for side, logits in model(images).items()
    }
