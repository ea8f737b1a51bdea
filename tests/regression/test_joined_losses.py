"""Losses that were joined into one tensor."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import gradsurgery as gs
from tests.support.tapped import gradients


class TwoHeads(nn.Module):
    """A trunk, two heads, and a learned factor per loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 1)
        self.factors = nn.Parameter(torch.tensor([1.0, 1.0]))

    def losses(self, rows=16):
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(2))
        z = self.trunk(x).tanh()
        return [(self.first(z) - 1).pow(2).mean(), (self.second(z) - 9).pow(2).mean()]

    def per_example(self, rows=16):
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(2))
        z = self.trunk(x).tanh()
        return (self.first(z) - 1).pow(2).squeeze(1), (self.second(z) - 9).pow(2).squeeze(1)


def ones(losses):
    return [loss.reshape(1) for loss in losses]


def written_in_place(losses):
    vector = torch.zeros(2)
    for i, loss in enumerate(losses):
        vector[i] = loss
    return vector


# name -> what makes two losses of two; all of them depend on one of them each
JOINED = {
    "stack": torch.stack,
    "stack, listed": lambda v: list(torch.stack(v)),
    "stack, indexed": lambda v: [torch.stack(v)[0], torch.stack(v)[-1]],
    "one stack, indexed": lambda v: (lambda s: [s[0], s[-1]])(torch.stack(v)),
    "a stack for each, sliced": lambda v: [torch.stack(v)[i : i + 1].squeeze(0) for i in range(2)],
    "in place": lambda v: torch.stack(v).mul_(torch.tensor([1.0, 1.0])),
    "where": lambda v: torch.where(torch.tensor([True, True]), torch.stack(v), torch.zeros(2)),
    "sliced": lambda v: (lambda s: [s[:1], s[-1:]])(torch.stack(v)),
    "split": lambda v: list(torch.stack(v).split(1)),
    "split in sizes": lambda v: list(torch.stack(v).split([1, 1])),
    "chunk": lambda v: list(torch.stack(v).chunk(2)),
    "cat": lambda v: torch.cat(ones(v)),
    "cat, a dict": lambda v: dict(zip("01", torch.cat(ones(v)), strict=True)),
    "cat with a constant": lambda v: torch.cat([torch.ones(3), *ones(v)])[3:],
    "hstack": torch.hstack,
    "vstack": lambda v: torch.vstack(v).squeeze(1),
    "column_stack": lambda v: torch.column_stack(v)[0],
    "stack of [1], squeezed": lambda v: torch.stack(ones(v)).squeeze(1),
    "stack of [1], squeezed everywhere": lambda v: torch.stack(ones(v)).squeeze(),
    "stack of [1], flattened": lambda v: torch.stack(ones(v)).flatten(),
    "stack of [1], view(-1)": lambda v: torch.stack(ones(v)).view(-1),
    "stack of [1] along 1": lambda v: torch.stack(ones(v), 1)[0],
    "unsqueezed and back": lambda v: torch.stack(v).unsqueeze(0)[0],
    "transposed": lambda v: torch.stack(ones(v)).T[0],
    "permuted": lambda v: torch.stack(ones(v)).permute(1, 0).reshape(-1),
    "nested": lambda v: torch.cat([torch.stack(v[:1]), torch.cat(ones(v[1:]))]),
    "stack of stacks": lambda v: torch.stack([torch.stack(v), torch.stack(v) * 0.0 + 3.0])[0],
    "cast": lambda v: torch.stack(v).to(torch.float64).float(),
    "cloned": lambda v: torch.stack(v).clone(),
    "times constants": lambda v: (
        torch.stack(v) * torch.tensor([2.0, 0.5]) / torch.tensor([2.0, 0.5])
    ),
    "times constants, then indexed": lambda v: (
        lambda s: {"0": s[0], "1": s[1]}
    )(torch.cat(ones(v)) * 1.0),
    "indexed, then times": lambda v: (lambda s: [2 * s[0] / 2, s[1] + 0.0])(torch.cat(ones(v))),
    "a mask": lambda v: torch.cat([*ones(v), torch.zeros(1)])[torch.tensor([True, True, False])],
    "a list of indices": lambda v: torch.cat([torch.zeros(1), *ones(v)])[[1, 2]],
    "index_select": lambda v: (
        torch.cat([torch.zeros(1), *ones(v)]).index_select(0, torch.tensor([1, 2]))
    ),
    "gather": lambda v: torch.cat([torch.zeros(1), *ones(v)]).gather(0, torch.tensor([1, 2])),
    "flipped twice": lambda v: torch.cat(ones(v)).flip(0).roll(1),
    "means of parts": lambda v: (lambda s: [s[:1].mean(), s[1:].sum()])(torch.cat(ones(v))),
}  # fmt: skip


@pytest.mark.parametrize("how", JOINED)
def test_a_loss_taken_out_of_joined_losses_reaches_its_own_head_only(how):
    found = []
    for join in (list, JOINED[how]):
        model = TwoHeads()
        surgery = gs.Surgery("mgda", model)
        for _ in range(2):
            model.zero_grad()
            record = surgery.backward(join(model.losses()))
        found.append((gradients(model), list(record), record["0+1"].weights))
    assert found[1][1] == ["0+1", "0", "1"]
    np.testing.assert_allclose(found[1][2], found[0][2], rtol=1e-5)
    for name, gradient in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], gradient)


def test_losses_of_examples_that_were_put_together_reach_their_own_heads():
    model = TwoHeads()
    together = torch.cat(model.per_example())
    record = gs.backward(
        {"first": together[:16].mean(), "second": together[16:].mean()}, model, "mgda"
    )
    assert list(record) == ["first+second", "first", "second"]
    model.zero_grad()
    rows = torch.stack(model.per_example()).mean(1)
    assert list(gs.backward(rows, model, "mgda")) == ["0+1", "0", "1"]


def test_a_learned_factor_is_reached_by_all_that_it_is_multiplied_with():
    model = TwoHeads()
    record = gs.backward(
        torch.stack(model.losses()) * model.factors,
        {"factors": [model.factors], "model": [*model.first.parameters()]},
        "mgda",
    )
    assert record["factors"].objectives == ("0", "1")
    assert record["model"].objectives == ("0",)


class Mul(torch.autograd.Function):
    """Called like one of torch's own, and mixing what it is given."""

    @staticmethod
    def forward(ctx, losses):
        return losses + losses.flip(0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient + gradient.flip(0)


MIXED = {
    "a matrix": lambda v: torch.tensor([[1.0, 0.5], [0.5, 1.0]]) @ torch.stack(v),
    "a matrix, then a dict": lambda v: dict(
        zip("ab", torch.tensor([[1.0, 0.5], [0.5, 1.0]]) @ torch.cat(ones(v)), strict=True)
    ),
    "softmax": lambda v: torch.stack(v).softmax(0),
    "cumsum": lambda v: list(torch.stack(v).cumsum(0)),
    "a function of one's own": lambda v: Mul.apply(torch.stack(v)),
    "block_diag": lambda v: torch.block_diag(*(x.view(1, 1) for x in v)).diagonal(),
    "index_put": lambda v: torch.zeros(2).index_put((torch.tensor([0, 1]),), torch.stack(v)),
    "written in place": written_in_place,
    "written in place, then a dict": lambda v: dict(zip("ab", written_in_place(v), strict=True)),
}  # fmt: skip


@pytest.mark.parametrize("how", MIXED)
def test_joined_losses_that_cannot_be_told_apart_are_warned_of_once(how):
    model = TwoHeads()
    surgery = gs.Surgery("mgda", model)
    with pytest.warns(UserWarning, match="before they were joined") as warned:
        record = surgery.backward(MIXED[how](model.losses()))
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert len(record) == 1
    surgery.backward(MIXED[how](model.losses()))  # warnings are errors


def test_ordinary_vectors_of_losses_are_not_warned_of():
    model = TwoHeads()
    x = torch.randn(6, 4)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    gs.backward(F.cross_entropy(net(x), torch.arange(6) % 3, reduction="none"), net, "mgda")
    gs.backward(net(x).mean(0), net, "mgda")
    gs.backward(torch.stack([net(row).pow(2).sum() for row in x]), net, "mgda")
    gs.backward(torch.stack([net(row).pow(2).sum() for row in x]).softmax(0), net, "mgda")
    gs.backward(list(net(x[0])), net, "mgda")
    both = torch.cat([model.first(model.trunk(x).tanh()), model.second(model.trunk(x).tanh())], 1)
    gs.backward({"a": (both @ both.T).mean(), "b": both.exp().sum()}, model, "mgda")
    record = gs.backward(
        (
            nn.Linear(2, 2)(
                torch.cat([model.first(x.repeat(1, 2)), model.second(x.repeat(1, 2))], 1)
            )
        ).mean(0),
        model,
        "mgda",
    )
    assert list(record)


def test_one_surgery_takes_losses_joined_or_not():
    model, other = TwoHeads(), TwoHeads()
    surgery, plain = (gs.Surgery("mgda", m) for m in (model, other))
    for join in (list, torch.stack, JOINED["cat"], list, JOINED["chunk"], JOINED["cat"]):
        model.zero_grad()
        other.zero_grad()
        assert list(surgery.backward(join(model.losses()))) == list(plain.backward(other.losses()))
        for name, gradient in gradients(other).items():
            torch.testing.assert_close(gradients(model)[name], gradient)
