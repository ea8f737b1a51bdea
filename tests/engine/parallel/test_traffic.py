"""What a step sends: how many collectives, how many bytes, and in which order."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

import gradsurgery as gs
from tests.support.ranks import on_ranks
from tests.support.traffic import Traffic

WIDTH = 256
# in halves of an all-reduce: what plain DDP sends is two
PLAIN, SLACK = 2.0, 1.02


class Wide(nn.Module):
    """A trunk that is nearly all of the model, and n small heads."""

    def __init__(self, n):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.heads = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(n))

    def losses(self, rows=8):
        z = self.trunk(torch.randn(rows, WIDTH))
        return z, [head(z).pow(2).mean() for head in self.heads]


def sent(rank, n, strategy, features, settings):
    """Per step the names of its collectives, and its bytes."""
    model = Wide(n)
    size = sum(p.numel() for p in model.parameters())
    surgery = gs.Surgery(strategy, model, process_group=dist.group.WORLD, **settings)
    found = []
    for _ in range(4):
        z, losses = model.losses()
        model.zero_grad()
        with Traffic() as traffic:
            surgery.backward(losses, features=z if features else None)
        found.append((traffic.names, traffic.halves(size)))
    return found


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("n", [2, 4, 8])
def test_a_step_on_gradients_is_n_and_three_collectives(n, world):
    for names, halves in on_ranks(world, sent, n, "mgda", False, {"method": "gradients"})[0]:
        scatters = ["all_to_all_single"] * n
        assert names == ["all_gather_single", *scatters, "all_reduce", "all_gather_single"]
        assert halves <= SLACK * (n + 1)


@pytest.mark.parametrize("strategy", ["sum", "uw", "famo"])
def test_weights_of_losses_cost_what_plain_training_sends(strategy):
    for names, halves in on_ranks(2, sent, 4, strategy, False, {})[0]:
        assert len(names) == 4
        assert halves <= SLACK * PLAIN


def test_weights_used_again_and_features_cost_what_plain_training_sends():
    settings = {"every": 4, "method": "gradients"}
    first, *again = on_ranks(2, sent, 4, "mgda", False, settings)[0]
    assert first[1] <= SLACK * 5
    assert all(halves <= SLACK * PLAIN and len(names) == 5 for names, halves in again)
    for _, halves in on_ranks(2, sent, 4, "mgda", True, {})[0]:
        assert halves <= SLACK * PLAIN


def test_strategies_that_take_rows_cost_an_all_reduce_per_objective():
    for names, halves in on_ranks(2, sent, 4, "graddrop", False, {})[0]:
        assert len(names) == 2 * 4 + 3
        assert halves <= SLACK * 4 * PLAIN


def in_order(rank, n):
    """The passes as they begin, among the scatters as they are sent."""
    model = Wide(n)
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    surgery.backward(model.losses()[1])
    _, losses = model.losses()
    with Traffic() as traffic:
        for i, loss in enumerate(losses):
            loss.register_hook(lambda gradient, i=i: traffic.events.append((f"pass {i}", 0, None)))
        surgery.backward(losses)
    return traffic.events


def test_gradients_are_on_their_way_while_the_next_pass_runs():
    n = 4
    for events in on_ranks(2, in_order, n):
        names = [name for name, *_ in events]
        before = events[: names.index(f"pass {n - 1}")]
        scatters = [waits_not for name, _, waits_not in before if name == "all_to_all_single"]
        assert scatters == [True] * (n - 1)
        order = [name for name in names if name.startswith(("pass", "all_to_all"))]
        assert order == [e for i in range(n) for e in (f"pass {i}", "all_to_all_single")]


def together(rank):
    """Losses that share nothing are asked in one pass, and sent at once."""
    model = nn.ModuleList(nn.Linear(3, 1) for _ in range(3))
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    with Traffic() as traffic:
        surgery.backward([head(torch.ones(2, 3)).sum() for head in model])
    return traffic.names


def test_losses_of_one_pass_are_sent_at_once():
    assert on_ranks(2, together)[0].count("all_to_all_single") == 1
