"""yeast: fourteen functions of a gene from one trunk, a loss and an AUC each."""

import functools
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from gradsurgery.errors import InputError
from gradsurgery.tasks.metric import Metric
from gradsurgery.tasks.packaged import packaged
from gradsurgery.tasks.problem import Batch, Problem
from gradsurgery.tasks.splits import Splits, standardised, three_ways
from gradsurgery.tasks.task import task
from gradsurgery.tasks.tensors import batches

FEATURES = 103
LABELS = tuple(f"class-{number}" for number in range(1, 15))
MEAN = "mean"
SHARES = (0.13, 0.37)  # of validation and test
WIDTH = 64


class SharedTrunk(nn.Module):
    """A trunk of two layers that all losses reach, and an output per label."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(FEATURES, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
        )
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, 1) for name in LABELS})

    def forward(self, genes: Tensor) -> dict[str, Tensor]:
        """A logit [n] per label from features [n, 103]."""
        features = self.trunk(genes)
        return {name: head(features)[:, 0] for name, head in self.heads.items()}


@task(
    "yeast",
    steps=200,
    lr=(1e-3, 8e-3),
    primary=MEAN,
    delta=1.0,
    ratio=50 / 13,
    paper="Elisseeff & Weston 2001, A kernel method for multi-labelled classification",
)
def yeast(data_root: Path | None = None, seed: int = 0) -> Problem:
    """Fourteen functions of a gene of yeast from one trunk: fourteen losses on one group.

    2,417 genes have 103 features (expressions and a phylogenetic profile), standardised, and some
    of 14 functional classes, 4.2 on average. The losses are cross-entropies. The figures are the
    area under the ROC curve of each class and, first, the mean of the fourteen, all in percent:
    50 is a guess.

    Half of the genes train, 13 % validate and 37 % are for test. The rarest class of a gene decides
    its stratum, so that all splits have some of each class. The test genes are the same for every
    seed; a seed gives the other splits.
    """
    data = split_genes(data_root, seed)

    def evaluate(model: nn.Module, split: str) -> dict[str, float]:
        inputs, wanted = getattr(data, split)
        logits = model(inputs)
        areas = {name: 100 * auc(logits[name], wanted[:, k]) for k, name in enumerate(LABELS)}
        return {MEAN: sum(areas.values()) / len(areas), **areas}

    return Problem(
        model=SharedTrunk,
        optimizer=_adam,
        batches=lambda: batches(data.train, 64, seed),
        losses=_losses,
        evaluate=evaluate,
        metrics=dict.fromkeys((MEAN, *LABELS), Metric("AUC", unit="%", chance=50)),
        alone={name: [name] for name in LABELS},
    )


def _adam(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr)


def _losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    genes, classes = batch
    return {
        name: binary_cross_entropy_with_logits(logits, classes[:, k])
        for k, (name, logits) in enumerate(model(genes).items())
    }


def auc(scores: Tensor, wanted: Tensor) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties half.

    Args:
        scores: [n], of any scale.
        wanted: ones and zeros [n]. Without one of each the area is NaN.
    """
    _, group, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    ends = sizes.cumsum(0).double()
    ranks = (ends - (sizes - 1) / 2)[group]  # ties have the mean of their ranks
    positive = wanted > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if not n * m:
        return float("nan")
    return (float(ranks[positive].sum()) - n * (n + 1) / 2) / (n * m)


def split_genes(root: Path | None, seed: int) -> Splits:
    """The features and the classes of each split, standardised by the training genes."""
    genes, classes = load_genes(root)
    rows = three_ways(_strata(classes), *SHARES, seed)
    ready = standardised(genes, rows[0])
    return Splits(*((ready[chosen], classes[chosen]) for chosen in rows))


def _strata(classes: Tensor) -> Tensor:
    """The rarest class [n] of each row of classes [n, k]; a row without any has k."""
    often = classes.sum(0).expand(classes.shape)
    rarest = torch.where(classes > 0, often, torch.inf).argmin(1)
    return torch.where(classes.any(1), rarest, classes.shape[1])


def load_genes(root: Path | None = None) -> tuple[Tensor, Tensor]:
    """Features [2417, 103] and classes [2417, 14] of ones and zeros.

    Args:
        root: a folder with `yeast/yeast.csv.gz`; else the package river has it.

    Raises:
        MissingExtraError: where neither has it.
        InputError: for a file that is something else.
    """
    file = "yeast/yeast.csv.gz"
    own = None if root is None else Path(root) / file
    if own is None or not own.is_file():
        own = packaged("yeast", "river/datasets/yeast.csv.gz", "river", "0.26.1", file)
    return _read(own)


@functools.lru_cache(maxsize=1)
def _read(path: Path) -> tuple[Tensor, Tensor]:
    """The file, read once per process: a header, then 103 features and 14 classes a line."""
    try:
        with gzip.open(path, "rt") as lines:
            table = np.loadtxt(lines, np.float32, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    classes = table[:, FEATURES:]
    if table.shape[1] != FEATURES + len(LABELS) or not np.isin(classes, (0, 1)).all():
        raise InputError(
            f"{path} has {table.shape[1]} columns; expected {FEATURES} features, then "
            f"{len(LABELS)} classes of 0 or 1."
        )
    return torch.from_numpy(table[:, :FEATURES].copy()), torch.from_numpy(classes.copy())
