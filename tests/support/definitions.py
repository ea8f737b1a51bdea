"""Two rows of any lengths, and a strategy's direction on rows, for definitions written out in
numpy.
"""

import numpy as np
import torch

import gradsurgery as gs
from tests.support.shipped import direction


def pairs(count=100, seed=0, dimension=4):
    """Two rows with lengths from 1e-6 to 1e6."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.normal(size=(2, dimension)) * 10.0 ** rng.uniform(-6, 6, (2, 1))


def cosine(rows):
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(units[0] @ units[1])


def d(name, rows, **options):
    inputs = {
        k: options.pop(k) for k in ("losses", "state", "observed", "scores", "step") if k in options
    }
    return direction(
        gs.get_strategy(name, **options),
        torch.as_tensor(np.asarray(rows, dtype=np.float64)),
        **inputs,
    ).numpy()


def close(found, expected, tolerance=1e-8):
    return np.linalg.norm(found - expected) <= tolerance * max(
        np.linalg.norm(expected), np.linalg.norm(found)
    )
