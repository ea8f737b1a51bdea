"""What the tests of strategies share."""

import torch

import gradsurgery as gs
from gradsurgery.testing import make_sample


def jacobian(rng, n, kind, spread=0.0):
    return make_sample(kind, n, rng, spread=spread).jacobian


def direction(name, rows, **options):
    return gs.get_strategy(name, **options)(torch.as_tensor(rows))
