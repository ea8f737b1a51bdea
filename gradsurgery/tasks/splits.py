"""Three splits of one pool of examples: the test data before any seed, the others by the seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradsurgery.tasks.problem import Batch

DATA = 1  # tells the random numbers of the data from others


@dataclass(frozen=True)
class Splits:
    """Tensors with a row per example, three times: no example of the pool is in two of them."""

    train: Batch
    validation: Batch
    test: Batch


def split(labels: Tensor, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The rows of the rest and of a share of every class, by the seed.

    Args:
        labels: classes [n].
        share: of each class, from 0 to 1.
        seed: of what is taken, and of the order of both.
    """
    rng = np.random.default_rng(seed)
    rest, taken = [], []
    for label in sorted(set(labels.tolist())):
        rows = rng.permutation(torch.nonzero(labels == label)[:, 0].numpy())
        cut = round(share * len(rows))
        taken.append(rows[:cut])
        rest.append(rows[cut:])
    first, second = (torch.from_numpy(np.concatenate(parts)) for parts in (rest, taken))
    return first, second


def three_ways(
    labels: Tensor, validation: float, test: float, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows for training, validation and test, each with its share of every class.

    Args:
        labels: classes [n].
        validation: its share of the whole.
        test: its share of the whole; which rows it has does not depend on the seed.
        seed: of the split into training and validation.
    """
    rest, tested = split(labels, test)
    kept, chosen = split(labels[rest], validation / (1 - test), seed)
    return rest[kept], rest[chosen], tested


def data_generator(seed: int) -> torch.Generator:
    """Random numbers for noise: other ones than the weights and the order have by this seed."""
    # torch's, seeded alike, would give the noise of the first image what the first weights have
    (state,) = np.random.SeedSequence([seed, DATA]).generate_state(1)
    return torch.Generator().manual_seed(int(state))


def standardised(values: Tensor, rows: Tensor) -> Tensor:
    """Features [n, d] with mean 0 and standard deviation 1 over these rows.

    A feature that is constant there becomes zero.
    """
    spread, mean = torch.std_mean(values[rows], 0)
    # rounding in the mean of a constant would otherwise be magnified to noise
    constant = spread <= 1e-6 * mean.abs()
    return torch.where(constant, 0.0, (values - mean) / torch.where(constant, 1.0, spread))
