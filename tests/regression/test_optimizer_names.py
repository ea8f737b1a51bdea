"""What a record says of a metric: known, assumed, or in place of another."""

import torch
from torch import nn

import gradsurgery as gs


class Sign(torch.optim.SGD):
    """A step of its own, of whose scaling nothing is known."""

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.1 * parameter.grad.sign()


def corrected(optimizer, **given):
    """The record of a step in which u raises the first objective."""
    weight = nn.Parameter(torch.tensor([0.0, 0.0]))
    made = optimizer([weight], lr=0.1)
    surgery = gs.Surgery("sum", [weight])
    losses = [weight[0] + 3 * weight[1], weight[0] - 5 * weight[1]]
    return next(iter(surgery.step(losses, made, guard="correct", **given).values())), made


def test_the_learning_rate_alone_is_known_of_sgd_and_assumed_of_others():
    group, _ = corrected(torch.optim.SGD)
    assert group.metric == "identity"
    group, _ = corrected(Sign)
    assert group.metric == "identity for Sign"
    weight = nn.Parameter(torch.zeros(2))
    surgery, optimizer = gs.Surgery("upgrad", [weight]), Sign([weight], lr=0.1)
    record = surgery.step([weight[0], weight.sum()], optimizer, metric="optimizer")
    assert record["0+1"].solved_in == "identity for Sign"
    assert "solved in the metric 'identity for Sign'" in str(record)


def test_a_correction_that_was_too_long_names_the_metric_that_it_replaces():
    """Two losses that nearly cancel, but on one coordinate, which Adam scales up."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    surgery, generator = gs.Surgery("sum", [weight]), torch.Generator().manual_seed(0)
    names = set()
    for _ in range(20):
        rows = torch.randn(2, 3, generator=generator) * torch.tensor([1e-3, 1.0, 1.0])
        rows[1, 1:] = rows[0, 1:] * (1e-3 * torch.randn(2, generator=generator) - 1)
        optimizer.zero_grad()
        (group,) = surgery.step(list(rows @ weight), optimizer, guard="correct").values()
        names.add(group.metric)
    assert names == {"adam", "identity in place of adam"}
