"""A recommender with a sparse embedding, and comparisons of gradients of any layout."""

import pytest
import torch
from torch import nn

import gradsurgery as gs

PLACES = torch.tensor([[0, 3, 3], [1, 3, 0], [7, 7, 7]])


class Recommender(nn.Module):
    """A sparse embedding, a trunk and a head."""

    def __init__(self, sparse=True, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(9, 4, sparse=sparse, dtype=dtype)
        self.trunk = nn.Linear(4, 5, dtype=dtype)
        self.head = nn.Linear(5, 3, dtype=dtype)

    def losses(self, shift=0):
        out = self.head(self.trunk(self.table((PLACES + shift) % 9).mean(1)).tanh())
        parts = (out - torch.tensor([1.0, -1.0, 0.3])).pow(2).mean(0)
        return dict(zip(("click", "buy", "like"), parts, strict=True))

    @property
    def dense(self):
        return [*self.trunk.parameters(), *self.head.parameters()]

    @property
    def grads(self):
        return {
            name: None if p.grad is None else p.grad.clone() for name, p in self.named_parameters()
        }


def same(found, expected):
    """Alike in layout and dtype, and equal in numbers."""
    assert found.layout == expected.layout
    assert found.dtype == expected.dtype
    if found.layout == torch.sparse_coo:
        assert found.is_coalesced() == expected.is_coalesced()
        found, expected = found.to_dense(), expected.to_dense()
    torch.testing.assert_close(found, expected)


def total(losses):
    return sum(losses.values())


def taken(strategy, settings):
    """Whether Surgery takes these settings for this strategy, whatever the parameters."""
    try:
        gs.Surgery(strategy, [nn.Parameter(torch.ones(1))], **settings)
    except gs.InputError:
        return False
    return True


def each_with(strategies, modes):
    return pytest.mark.parametrize(
        ("strategy", "settings"),
        [
            pytest.param(s, m, id=f"{s}-{'-'.join(map(str, m.values()))}")
            for s in strategies
            for m in modes
            if taken(s, m)
        ],
    )
