"""Losses observed after the step."""

import numpy as np
import pytest
import torch

import gradsurgery as gs

pytestmark = pytest.mark.quick


def test_famo_is_its_official_procedure():
    """Written out with torch's own Adam and autograd."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    twin = torch.nn.Linear(3, 3)
    twin.load_state_dict(model.state_dict())
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.025, weight_decay=1e-3)
    surgery = gs.Surgery("famo", model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, twin)]
    for k in range(6):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(k))

        def losses(which, x=x):
            return (which(x).pow(2) + 0.1).mean(0)

        optimizers[0].zero_grad()
        record = surgery.backward(losses(model))
        optimizers[0].step()
        with torch.no_grad():
            surgery.observe(losses(model))

        optimizers[1].zero_grad()
        before = losses(twin)
        shares = torch.softmax(logits, 0).detach()
        above = before.detach().double() + 1e-8
        scale = 1 / (shares / above).sum()
        assert record["0+1+2"].weights == pytest.approx((scale * shares / above).numpy(), rel=1e-5)
        (scale * (shares * torch.log(before.double() + 1e-8)).sum()).backward()
        optimizers[1].step()
        after = losses(twin).detach().double() + 1e-8
        adam.zero_grad()
        logits.grad = torch.autograd.grad(
            torch.softmax(logits, 0), logits, above.log() - after.log()
        )[0]
        adam.step()
        assert torch.allclose(model.weight, twin.weight, rtol=1e-4)
    # without observe the next step's losses serve
    surgery = gs.Surgery("famo", model)
    first = surgery.backward(losses(model))
    second = surgery.backward(2 * losses(model))
    assert first["0+1+2"].weights.tolist() == pytest.approx(
        second["0+1+2"].weights.tolist(), rel=0.05
    )


def test_observed_losses_carry_the_users_weights_and_are_saved():
    model = torch.nn.Linear(2, 2)
    outcomes = []
    for saved in (False, True):
        surgery = gs.Surgery("famo", model)
        surgery.backward(
            dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)),
            weights={"a": 2.0, "b": 1.0},
        )
        surgery.observe({"a": 1.0, "b": 0.5})
        if saved:
            other = gs.Surgery("famo", model)
            other.load_state_dict(surgery.state_dict())
            surgery = other
        record = surgery.backward(
            dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)),
            weights={"a": 2.0, "b": 1.0},
        )
        outcomes.append(record["a+b"].weights.tolist())
    assert outcomes[0] == outcomes[1]
    surgery = gs.Surgery("famo", model)
    with pytest.raises(gs.InputError, match="no step yet"):
        surgery.observe({"a": 1.0})
    surgery.backward(dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)))
    with pytest.raises(gs.InputError, match="unknown loss 'c'"):
        surgery.observe({"c": 1.0})
    with pytest.raises(gs.InputError, match="'b' of the last step's losses are missing"):
        surgery.observe({"a": 1.0})
    for wrong in (5.0, [{"a": 1.0}], {"a": "x", "b": 1.0}):
        with pytest.raises(gs.InputError, match="expected a number for each name"):
            surgery.observe(wrong)
    with pytest.raises(gs.InputError, match="scores: expected a number"):
        surgery.backward(
            dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)), scores=[1, 2]
        )
    with pytest.raises(gs.InputError, match="loss 'a' is nan"):
        surgery.observe({"a": float("nan")})


def test_an_observation_serves_those_it_has_when_a_loss_comes():
    model = torch.nn.Linear(2, 3)

    def losses(names):
        return dict(zip(names, model(torch.ones(2)).pow(2) + 1, strict=False))

    outcomes = []
    for observed in ({"a": 5.0, "b": 0.1}, {"a": 0.1, "b": 5.0}):
        surgery = gs.Surgery("famo", model)
        surgery.backward(losses("ab"))
        surgery.observe(observed)
        outcomes.append(surgery.backward(losses("abc"))["a+b+c"].weights)
    assert not np.allclose(*outcomes)
