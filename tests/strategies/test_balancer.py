"""balancer against the official code's figures, and its definition written out."""

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.definitions import close, d

pytestmark = pytest.mark.quick

# github.com/facebookresearch/encodec at 0e2d0ae, torch 2.13.0: Balancer({a: 1, b: 3, c: 0.5},
# total_norm=2, ema_decay=0.9) on the gradients of `official_rows`, after the first and third step.
OFFICIAL = {
    (False, 0): [
        0.43110322410071433, -0.13857285063112643, -0.23210130952723254, 0.4910459665993316,
        -0.23179729671175966, -0.612854577251759, 0.409084798820347, 0.22749623049124396,
        -0.26624739876661224, 0.49371735680184275, 0.2067097921049136, -0.5941120682113116,
    ],
    (False, 2): [
        -0.1875515841948353, 0.4647663854359748, -0.4539872812013725, -0.602541752631966,
        0.4203421729141473, 0.0039159690489287136, -0.2968942442943034, 0.5358189957856296,
        -0.006085565034881217, -0.6688820686386258, 0.31708423780010686, 0.3706563393098353,
    ],
    (True, 0): [
        0.7380119047950505, -0.25414945733405275, -0.41457564681643183, 0.8510548480611041,
        -0.40657995952678205, -1.0684909794984025, 0.7170483292707877, 0.40203997851271533,
        -0.4570791451080576, 0.8726019390737334, 0.3756057588836427, -1.0185718143879539,
    ],
    (True, 2): [
        -0.34743039900264483, 0.7907199501176007, -0.8042935777115369, -1.0596841165854562,
        0.7225094789758426, 0.0005969188584910162, -0.5199107452472249, 0.9319924312863832,
        -0.007384469183679111, -1.157299242695549, 0.5607631842960958, 0.656505994347128,
    ],
}  # fmt: skip
OPTIONS = {"preference": [1.0, 3.0, 0.5], "total_norm": 2.0, "beta": 0.9}


def official_rows(step):
    """Gradients at a batch of three, [2, 2] each."""
    k = torch.arange(12, dtype=torch.float64)
    return torch.stack([torch.sin(k + step), 10 * torch.cos(2 * k - step), 0.01 * (k - 5 - step)])


@pytest.mark.parametrize("per_batch_item", [False, True])
def test_the_official_code_has_the_same_figures(per_batch_item):
    chosen = gs.get_strategy("balancer", **OPTIONS, items=3 if per_batch_item else None)
    state = gs.State()
    for step in range(3):
        state = gs.State.from_state_dict(state.state_dict(), whole=True, finite=True)
        found = chosen(official_rows(step), state=state).tolist()
        if (per_batch_item, step) in OFFICIAL:
            assert found == pytest.approx(OFFICIAL[per_batch_item, step], rel=1e-9)


def test_it_is_its_formula_over_several_steps():
    rng = np.random.default_rng(0)
    for beta in (0.0, 0.8, 1.0):
        state, history = gs.State(), []
        for t in range(1, 6):
            rows = rng.normal(size=(3, 4)) * [[1.0], [1e3], [1e-3]]
            history.append([sum(x * x for x in row) ** 0.5 for row in rows])
            ages = [beta ** (t - 1 - k) if t - 1 - k else 1.0 for k in range(t)]
            expected = np.zeros(4)
            for i, share in enumerate([0.5, 0.25, 0.25]):
                mean = sum(a * norms[i] for a, norms in zip(ages, history, strict=True)) / sum(ages)
                expected += 3.0 * share * rows[i] / mean
            found = d(
                "balancer", rows, preference=[2, 1, 1], total_norm=3.0, beta=beta, state=state
            )
            assert close(found, expected, 1e-12)


class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(4, 3), nn.Linear(3, 4)
        self.double()

    def forward(self, x):
        code = self.encoder(x).tanh()
        quantized = code + (code.round() - code).detach()
        return self.decoder(quantized), (code - code.round().detach()).square().mean()


def test_at_the_features_beside_a_loss_around_them():
    """As EnCodec is trained: the balanced losses at the audio, the commitment loss by itself."""
    model, plain = Codec(), Codec()
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def losses(made):
        return {"time": (made - x).abs().mean(), "power": 50 * (made - x).square().mean()}

    made, commitment = model(x)
    surgery = gs.Surgery("balancer", model, preference={"time": 1.0, "power": 2.0}, items=6)
    commitment.backward(retain_graph=True)
    surgery.backward(losses(made), features=made)

    made, commitment = plain(x)
    commitment.backward(retain_graph=True)
    total = torch.zeros_like(made)
    for name, loss in losses(made).items():
        gradient = torch.autograd.grad(loss, made, retain_graph=True)[0]
        share = {"time": 1 / 3, "power": 2 / 3}[name]
        total += share * gradient / gradient.norm(dim=1).mean()
    made.backward(total)
    for parameter, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad)


def test_items_of_several_features():
    """An example's norm is over its part of each tensor."""
    rows = torch.arange(1.0, 11).double()[None]
    found = gs.get_strategy("balancer", items=2)(rows, state=gs.State(), splits=(4, 6))
    norms = [np.linalg.norm([1, 2, 5, 6, 7]), np.linalg.norm([3, 4, 8, 9, 10])]
    assert close(found.numpy(), rows[0].numpy() / np.mean(norms), 1e-12)


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_no_scale_matters(scale):
    rows = np.random.default_rng(2).normal(size=(3, 6))
    for items in (None, 3):
        assert close(d("balancer", rows * scale, items=items), d("balancer", rows, items=items))
        assert d("balancer", rows * 0.0, items=items).tolist() == [0.0] * 6


def test_what_cannot_be_used_is_an_error():
    with pytest.raises(gs.InputError, match=r"items=4, and gradients of 6 entries"):
        d("balancer", np.eye(2, 6), items=4)
    with pytest.raises(gs.InputError, match=r"a preference above 0 is needed; got \{'0': 0\.0"):
        d("balancer", np.eye(2), preference=0.0)


@pytest.mark.parametrize("given", ["made", "both"])
def test_a_loss_around_the_features_does_as_the_error_says(given):
    """The quantizer's commitment, of the encoder alone."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 6), nn.Linear(6, 4)])
    x = torch.randn(8, 4)

    def forward():
        z = model[0](x)
        made = model[1](z)
        losses = {"l1": (made - x).abs().mean(), "l2": (made - x).pow(2).mean()}
        return z, made, losses, z.pow(2).mean()

    surgery = gs.Surgery("balancer", model)
    z, made, losses, commitment = forward()
    features = made if given == "made" else [made, z]
    with pytest.raises(gs.InputError, match=r"its own \.backward\(retain_graph=True\) before"):
        surgery.backward({**losses, "commitment": commitment}, features=features)
    z, made, losses, commitment = forward()
    commitment.backward(retain_graph=True)
    own = [p.grad.clone() if p.grad is not None else 0 for p in model.parameters()]
    surgery.backward(losses, features=made)
    found = [p.grad - before for p, before in zip(model.parameters(), own, strict=True)]
    model.zero_grad()
    z, made, losses, _ = forward()
    gs.Surgery("balancer", model).backward(losses, features=made)
    for p, other in zip(model.parameters(), found, strict=True):
        torch.testing.assert_close(p.grad, other)
