"""Models and losses that mix the examples of a batch; each gives (model, losses_of, named)."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.support.per_example_models import Calling, D

B = 6
MIXING = {}


def mixing(named):
    """A model or loss that mixes examples, and what its error has to name."""

    def keep(make):
        MIXING[make.__name__.replace("_", " ")] = (make, named)
        return make

    return keep


def two(middle, **modules):
    """A layer before and one after what mixes."""
    model = Calling(
        lambda m, x: m.last(middle(m, torch.tanh(m.first(x)))),
        first=nn.Linear(D, D),
        last=nn.Linear(D, 1),
        **modules,
    )
    x = torch.randn(B, D)
    return model, lambda: model(x)[:, 0].square()


def of_losses(change):
    """A loss whose examples a function of all losses mixes."""
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 3))
    x, y = torch.randn(B, D), torch.randint(3, (B,))
    return model, lambda: change(F.cross_entropy(model(x), y, reduction="none"))


@mixing("norm.weight")
def batch_normalization_in_training():
    return two(lambda m, h: m.norm(h), norm=nn.BatchNorm1d(D))


@mixing("batch normalization in training mode")
def batch_normalization_without_parameters():
    return two(lambda m, h: F.batch_norm(h, None, None, training=True))


@mixing("first.weight")
def batch_normalization_written_out():
    return two(lambda m, h: (h - h.mean(0)) / (h.var(0) + 1e-5).sqrt())


@mixing("first.weight")
def mean_over_the_batch_added():
    return two(lambda m, h: h + h.mean(0))


@mixing("first.weight")
def attention_over_the_batch():
    return two(lambda m, h: F.scaled_dot_product_attention(h, h, h))


@mixing("first.weight")
def attention_with_the_batch_as_sequence():
    body = nn.MultiheadAttention(D, 2)
    return two(lambda m, h: m.body(h[:, None], h[:, None], h[:, None])[0][:, 0], body=body)


@mixing("first.weight")
def state_carried_from_example_to_example():
    return two(lambda m, h: m.cell(h[:, None])[0][:, 0], cell=nn.RNN(D, D))


@mixing("first.weight")
def neighbours_in_the_batch():
    return two(lambda m, h: h - h.roll(1, 0))


class Expertise(nn.Module):
    """Two experts; one that is full passes its tokens to none, by the scores of all examples."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(D, 2)
        self.experts = nn.ModuleList(nn.Linear(D, D) for _ in range(2))

    def forward(self, h):
        scores = self.router(h).softmax(1)
        out = torch.zeros_like(h)
        for e, expert in enumerate(self.experts):
            weights, chosen = (scores[:, e] / scores[:, e].sum()).topk(B // 2)
            out = out.index_add(0, chosen, weights[:, None] * expert(h[chosen]))
        return h + out


@mixing("router")
def experts_with_a_capacity():
    return two(lambda m, h: m.body(h), body=Expertise())


@mixing("0.weight")
def contrastive_loss():
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 4))
    x, other = torch.randn(B, D), torch.randn(B, D)

    def losses_of():
        a, b = F.normalize(model(x), dim=1), F.normalize(model(other), dim=1)
        return F.cross_entropy(a @ b.T / 0.1, torch.arange(B), reduction="none")

    return model, losses_of


@mixing("0.weight")
def contrastive_loss_with_one_side_known():
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 4))
    x, other = torch.randn(B, D), torch.randn(B, 4)
    return model, lambda: F.cross_entropy(other @ model(x).T, torch.arange(B), reduction="none")


@mixing("0.weight")
def losses_less_their_mean():
    return of_losses(lambda losses: (losses - losses.mean()).square())


@mixing("0.weight")
def losses_in_units_of_their_deviation():
    return of_losses(lambda losses: losses / losses.std())


@mixing("0.weight")
def softmax_over_the_batch():
    return of_losses(lambda losses: losses.softmax(0))


@mixing("0.weight")
def normalized_advantages():
    model = nn.Sequential(nn.Linear(D, D), nn.Tanh(), nn.Linear(D, 1))
    x, values = torch.randn(B, D), torch.randn(B)

    def losses_of():
        advantages = values - model(x)[:, 0]
        return ((advantages - advantages.mean()) / advantages.std()).square()

    return model, losses_of


@mixing("0.weight")
def sorted_losses():
    return of_losses(lambda losses: losses * losses.sort().values)
