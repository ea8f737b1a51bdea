"""Weights decided on a part of each group, and applied to all of it by one pass."""

import warnings

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.models import TwoEncoders, by_loss, flat, gradients_of, grads

GROUPS = {"audio+fused": "audio", "fused+visual": "visual"}


def last_layers(model):
    return [*model.audio[-1].parameters(), *model.visual[-1].parameters()]


@pytest.mark.parametrize("name", ["mgda", "upgrad", "nash-mtl", "cagrad", "pcgrad", "mmpareto"])
@pytest.mark.parametrize("method", ["auto", "taps"])
def test_weights_of_the_part_act_on_the_whole_group(name, method):
    model = TwoEncoders()
    strategy = gs.get_strategy(name)
    surgery = gs.Surgery(strategy, model, decide_on=last_layers(model), method=method)
    record = surgery.backward(model.losses())
    losses = model.losses()
    for title, part in GROUPS.items():
        encoder = getattr(model, part)
        own = {n: losses[n] for n in record[title].objectives}
        at = by_loss(own, list(encoder[-1].parameters()))
        assert torch.allclose(torch.as_tensor(record[title].gram), at @ at.T, rtol=1e-9)
        weights = torch.as_tensor(record[title].weights)
        expected = weights @ by_loss(own, list(encoder.parameters()))
        found = flat([p.grad for p in encoder.parameters()])
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-13)
        if "rng" not in strategy.inputs:
            assert torch.allclose(weights @ at, strategy(at), rtol=1e-7, atol=1e-10)
    for part in ("audio_head", "visual_head", "fusion"):
        for key, parameter in getattr(model, part).named_parameters(prefix=part):
            every = gradients_of(losses, [parameter]).values()
            total = sum(g for (g,) in every if g is not None)
            assert torch.allclose(parameter.grad, total), key


def test_deciding_on_everything_is_as_without():
    first, second = TwoEncoders(), TwoEncoders()
    gs.backward(first.losses(), first, "mgda", decide_on=first)
    gs.backward(second.losses(), second, "mgda")
    pairs = zip(grads(first).values(), grads(second).values(), strict=True)
    assert all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_only_one_pass_goes_below_what_decides():
    model = TwoEncoders()
    calls = []
    losses = model.losses()
    model.audio[0].weight.register_hook(lambda g: calls.append(g))
    gs.backward(losses, model, "mgda", decide_on=model.audio[-1], retain_graph=True)
    assert len(calls) == 1
    calls.clear()
    model.zero_grad()
    gs.backward(losses, model, "mgda", retain_graph=True)
    assert len(calls) == 2
    model.zero_grad()
    record = gs.backward(losses, model, "mgda", decide_on=model.audio[-1])
    whole = gs.inspect(model.losses(), model)["fused+visual"]
    assert record["fused+visual"].gram == pytest.approx(whole.gram)  # it solves as usual


def test_weights_are_used_again_and_bring_the_length_of_the_part():
    model = TwoEncoders()
    settings = {"every": 2, "length": "sum", "protect": "fused"}
    surgery = gs.Surgery("nash-mtl", model, decide_on=last_layers(model), **settings)
    group = surgery.backward(model.losses())["audio+fused"]
    weights, gram = group.weights, group.gram
    assert weights @ gram @ weights == pytest.approx(gram.sum())
    model.zero_grad()
    again = surgery.backward(model.losses(1))["audio+fused"]
    assert again.replayed
    assert again.weights.tolist() == weights.tolist()
    expected = torch.as_tensor(weights) @ by_loss(
        {n: model.losses(1)[n] for n in again.objectives}, list(model.audio.parameters())
    )
    assert torch.allclose(flat([p.grad for p in model.audio.parameters()]), expected)


def test_a_scaler_and_what_is_not_finite():
    model, plain = TwoEncoders(), TwoEncoders()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    gs.Surgery("mgda", model, decide_on=last_layers(model)).backward(model.losses(), scaler=scaler)
    gs.backward(plain.losses(), plain, "mgda", decide_on=last_layers(plain))
    for mine, own in zip(grads(model).values(), grads(plain).values(), strict=True):
        assert mine is own is None or torch.allclose(mine / 2**8, own)
    model.zero_grad(set_to_none=True)
    losses = model.losses()
    model.audio[0].weight.register_hook(lambda g: g * torch.nan)
    with pytest.raises(gs.NonFiniteError, match=r"audio.* in group 'audio\+fused' has NaN or inf"):
        gs.backward(losses, model, "mgda", decide_on=last_layers(model))
    assert all(p.grad is None for p in model.parameters())


def test_what_cannot_be_right_is_refused():
    model = TwoEncoders()
    part = last_layers(model)
    refused = [
        ("graddrop", {}, "takes `rows`"),
        (gs.get_strategy("mmpareto", rescale="tensor"), {}, "takes `block_grams`"),
        ("modo", {}, "takes `cross`"),
        ("mgda", {"memory": "low"}, "not with memory='low'"),
        ("mgda", {"method": "batched"}, "not with method='batched'"),
        ("mgda", {"decide_on": nn.Linear(2, 2)}, "'weight', .* is not among the parameters"),
        ("mgda", {"decide_on": model.frozen}, "expected a Module or tensors .* trained"),
        ("mgda", {"decide_on": {"a": part}}, "or a dict"),
    ]
    for strategy, changed, text in refused:
        with pytest.raises(gs.InputError, match=text):
            gs.Surgery(strategy, model, **{"decide_on": part, **changed})
    surgery = gs.Surgery("mgda", model, decide_on=part)
    with pytest.raises(gs.InputError, match="accumulate keeps every gradient"):
        surgery.accumulate(model.losses())
    z = model.audio(torch.ones(2, 4, dtype=torch.float64))
    with pytest.raises(gs.InputError, match="not with features="):
        surgery.backward({"a": z.sum(), "b": z.mean()}, features=z)
    with pytest.raises(gs.InputError, match="no loss reaches any of these"):
        gs.backward(model.losses(), None, "mgda", decide_on=nn.Linear(2, 2))
    explicit = {"encoders": [*model.audio.parameters(), *model.visual.parameters()]}
    with pytest.raises(gs.InputError, match="objective 'visual' reaches group 'encoders'"):
        gs.backward(model.losses(), explicit, "mgda", decide_on=model.audio[-1])
    assert all(p.grad is None for p in model.parameters())


def test_deciding_on_a_head_alone_warns_once_and_solves_as_usual():
    model, plain = TwoEncoders(), TwoEncoders()
    surgery = gs.Surgery("mgda", model, decide_on=model.audio_head)
    with pytest.warns(
        UserWarning, match=r"none .* group of several .*'audio\+fused'.* of the trunk"
    ):
        surgery.backward(model.losses())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surgery.backward(model.losses(1))  # once
        own = model.losses()["audio"]
        gs.Surgery("mgda", model, decide_on=model.audio_head).backward({"audio": own})
        gs.Surgery("mgda", model, decide_on=model.audio).backward(model.losses())
    model.zero_grad()
    with pytest.warns(UserWarning, match="nothing is decided by them"):
        gs.backward(model.losses(), model, "mgda", decide_on=model.audio_head)
    gs.backward(plain.losses(), plain, "mgda")
    pairs = zip(grads(model).values(), grads(plain).values(), strict=True)
    assert all(a is b is None or torch.equal(a, b) for a, b in pairs)


def test_with_decide_on_the_optimizers_step_is_not_measured_and_not_corrected():
    torch.manual_seed(0)
    trunk, heads = (
        torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)),
        torch.nn.Linear(2, 2),
    )
    model = torch.nn.ModuleList([trunk, heads])
    surgery = gs.Surgery("mgda", model, decide_on=trunk[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def losses():
        first, second = heads(trunk(torch.ones(3))).pow(2)
        return {"first": first, "second": second}

    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(gs.InputError, match="decide_on"):
        surgery.step(losses(), optimizer, guard="correct")
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    record = surgery.step(losses(), optimizer)
    assert record.change is None
    assert any("decide_on" in (group.unmeasured or "") for group in record.values())
