"""digit-pairs: two overlapping digits in one small image, one objective each, on a shared trunk."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gradsurgery.tasks.digits import Examples, load_digits, pooled
from gradsurgery.tasks.metric import Metric
from gradsurgery.tasks.problem import Batch, Problem
from gradsurgery.tasks.splits import Splits, data_generator
from gradsurgery.tasks.task import task
from gradsurgery.tasks.tensors import batches

SIDES = ("left", "right")
SIDE, SHIFT = 14, 4  # pixels of a digit's image; the right digit lies so far right and below
BATCH = 64
MEAN, SPREAD = 0.15, 0.3  # of the pixels of such pairs, about


class PairsNet(nn.Module):
    """A shared convolutional `trunk` and a head for each digit."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 5 * 5, 48), nn.ReLU(),
        )  # fmt: skip
        self.heads = nn.ModuleDict({side: nn.Linear(48, 10) for side in SIDES})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits [n, 10] of each digit from images [n, 1, 18, 18]."""
        features = self.trunk(images)
        return {side: head(features) for side, head in self.heads.items()}


# The middle of the rates is where `sum` validates best: both 83.2 % at 0.0068, 75.8 at 0.0013 and
# 82.5 at 0.01 (seeds 1000 to 1002).
@task(
    "digit-pairs",
    steps=400,
    lr=(3e-3, 1.4e-2),
    primary="both",
    delta=1.0,
    ratio=3_500 / 500,
    paper="Sabour et al. 2017, arXiv:1710.09829; Sener & Koltun 2018, arXiv:1810.04650",
)
def digit_pairs(data_root: Path | None = None, seed: int = 0) -> Problem:
    """Two overlapping digits to be read from one small image: a trunk under two losses.

    Images of MNIST are averaged to 14 x 14. The right digit lies four pixels right of the left one
    and below it, the maximum where they overlap. Each training digit is the left one of two images,
    with two partners; pairs never mix the splits. A pair is read when both digits are, which the
    figure `both` counts. A run takes two seconds, which is why `gradsurgery compare` without
    options takes this task.

    A difference below δ = 1 point counts as none: it is twenty of the 2,000 test pairs, and two
    seeds of one strategy differ by as much. The test digits are fixed; a seed gives the other
    splits, and all pairs.
    """
    digits, generator = load_digits(data_root, seed), data_generator(seed)
    parts = (_pairs(part, generator) for part in (digits.train, digits.validation, digits.test))
    data = Splits(*parts)

    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        images, labels = getattr(data, split)
        logits = torch.stack([*model(images).values()], 1)
        right = (logits.argmax(2) == labels).float()
        each = dict(zip(SIDES, (100 * right.mean(0)).tolist(), strict=True))
        return {"both": 100 * right.prod(1).mean().item(), **each}

    digit = Metric("accuracy", unit="%", chance=10)
    return Problem(
        model=PairsNet,
        optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
        batches=lambda: batches(data.train, BATCH, seed),
        losses=_losses,
        evaluate=evaluate,
        metrics={
            "both": Metric("accuracy", unit="%", chance=1),
            **dict.fromkeys(SIDES, digit),
        },
        alone={side: [side] for side in SIDES},
    )


def _pairs(examples: Examples, generator: torch.Generator) -> Batch:
    """Images [n, 1, 18, 18], normalised, and labels [n, 2]; each digit is twice the left one."""
    images, labels = examples
    small = pooled(images)
    first = torch.arange(2 * len(small)) % len(small)
    partner = torch.randint(len(small), first.shape, generator=generator)
    canvas = torch.zeros(len(first), SIDE + SHIFT, SIDE + SHIFT)
    canvas[:, :SIDE, :SIDE] = small[first]
    shifted = canvas[:, SHIFT:, SHIFT:]
    shifted.copy_(torch.maximum(shifted, small[partner]))
    return (canvas[:, None] - MEAN) / SPREAD, torch.stack([labels[first], labels[partner]], 1)


def _losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    images, labels = batch
    return {
        side: cross_entropy(logits, labels[:, SIDES.index(side)])
        for side, logits in model(images).items()
    }
