"""multimnist-hard: multimnist with half of the pixels of the right digit spoilt."""

from pathlib import Path

import torch
from torch import nn

from gradsurgery.tasks.digits import load_digits
from gradsurgery.tasks.metric import Metric
from gradsurgery.tasks.multimnist import SIDES, MultiDigitNet, accuracies, losses, pairs
from gradsurgery.tasks.problem import Problem
from gradsurgery.tasks.splits import Splits
from gradsurgery.tasks.task import task
from gradsurgery.tasks.tensors import batches

MEAN = "mean"
SPOILT = 0.5


@task(
    "multimnist-hard",
    steps=250,
    lr=(1e-3, 6e-3),
    primary=MEAN,
    delta=1.0,
    ratio=3_500 / 500,
    paper="Sabour et al. 2017, arXiv:1710.09829; Sener & Koltun 2018, arXiv:1810.04650",
)
def multimnist_hard(data_root: Path | None = None, seed: int = 0) -> Problem:
    """Two overlapping digits, half of the right one's pixels spoilt: a difficult and an easier one.

    Images, trunk and losses are those of `multimnist`. Before the digits are laid over each other,
    half of the pixels of the right one turn black or white by chance. Where they overlap, that
    spoils the left one too. The figures are the accuracy of each digit and, first, their mean. The
    test digits are fixed; a seed gives the other splits, all pairs and all noise.
    """
    digits = load_digits(data_root, seed)
    data = Splits(
        pairs(digits.train, 2, 3 * seed, SPOILT),
        pairs(digits.validation, 2, 3 * seed + 1, SPOILT),
        pairs(digits.test, 2, 3 * seed + 2, SPOILT),
    )

    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        found = accuracies(model, getattr(data, split))
        return {MEAN: sum(found.values()) / len(found), **found}

    return Problem(
        model=MultiDigitNet,
        optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
        batches=lambda: batches(data.train, 64, seed),
        losses=losses,
        evaluate=evaluate,
        metrics=dict.fromkeys((MEAN, *SIDES), Metric("accuracy", unit="%", chance=10)),
        alone={side: [side] for side in SIDES},
    )
