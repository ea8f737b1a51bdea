"""Which losses share a backward pass."""

import pytest
import torch

import gradsurgery as gs
from gradsurgery.engine.passes import passes
from tests.support.models import TwoEncoders, gradients_of, grads


def test_losses_that_share_nothing_take_part_in_one_pass(monkeypatch):
    """Gradients and records are as with a pass for each."""
    calls = []
    grad = torch.autograd.grad

    def counting(outputs, *args, **kwargs):
        calls.append(1 if isinstance(outputs, torch.Tensor) else len(outputs))
        return grad(outputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", counting)
    one = TwoEncoders()
    expected = gradients_of(one.losses(), one.parameters())
    for method in ("gradients", "taps"):
        calls.clear()
        model = TwoEncoders()
        surgery = gs.Surgery("upgrad", model, method=method)
        record = surgery.backward(model.losses())
        assert calls == [1, 2]
        shared = [
            i
            for i, p in enumerate(model.parameters())
            if expected["fused"][i] is not None and expected["audio"][i] is not None
        ]
        rows = [torch.cat([expected[o][i].reshape(-1) for i in shared]) for o in ("fused", "audio")]
        gram = torch.stack(rows) @ torch.stack(rows).T
        torch.testing.assert_close(torch.from_numpy(record["audio+fused"].gram), gram)
        assert record["visual"].objectives == ("visual",)
        for i, p in enumerate(model.parameters()):
            if expected["visual"][i] is not None and expected["fused"][i] is None:
                assert torch.equal(p.grad, expected["visual"][i])
    assert grads(model)


def test_which_losses_share_a_pass():
    t = torch.zeros(1)
    wanted = [dict.fromkeys(names, t) for names in ("ab", "cd", "", "bc", "e", "a", "f")]
    assert passes(wanted) == [[0, 1, 4, 6], [3, 5]]


def test_a_nan_in_one_of_two_losses_of_a_pass_is_its_own():
    model = TwoEncoders()
    losses = model.losses()
    losses["audio"] = losses["audio"] * float("nan")
    with pytest.raises(gs.NonFiniteError, match="loss 'audio' is nan"):
        gs.backward(losses, model, "mgda")
    model.zero_grad()
    losses = model.losses()
    losses["audio"] = losses["audio"] * float("nan")
    gs.backward(losses, model, "mgda", nonfinite="ignore")
    assert all(torch.isfinite(p.grad).all() for p in model.visual_head.parameters())
    assert all(torch.isfinite(p.grad).all() for p in model.visual.parameters())
