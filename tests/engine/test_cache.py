"""What a Surgery takes from the step before: only what it would find again, whatever has changed since."""

import copy
import dataclasses
import gc
import pickle
import random
import weakref

import pytest
import torch
from models import TwoEncoders, gradients_of, grads
from torch import nn
from torch.nn.utils import parametrize, prune

import gradsurgery as gs
from gradsurgery.engine import scene
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.source import passes


class Changing(nn.Module):
    """A trunk and heads, of which everything may change between two steps."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
        self.heads = nn.ModuleDict({name: nn.Linear(4, 1) for name in "abc"})
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.own = True

    def losses(self, order, x):
        z = self.trunk(x)
        return {
            name: (self.heads[name](z) * (self.scale if self.own else 1.0)).pow(2).mean()
            for name in order
        }


def change(model, surgeries, draw):
    """One change, the same whenever `draw` is the same."""
    kind = draw.choice(
        [
            "none",
            "none",
            "freeze",
            "replace",
            "remove",
            "add",
            "rename",
            "prune",
            "parametrize",
            "unprune",
            "tie",
            "outside",
        ]
    )
    layer = draw.choice([model.trunk[0], model.trunk[2], *model.heads.values()])
    name = draw.choice("abcdef")
    if kind == "freeze":
        parameter = draw.choice(list(model.parameters()))
        parameter.requires_grad_(not parameter.requires_grad)
    elif (
        kind == "replace"
        and not parametrize.is_parametrized(layer)
        and "weight" in layer._parameters
    ):
        layer.weight = nn.Parameter(layer.weight.detach() * 0.5)
    elif kind == "remove" and len(model.heads) > 2 and name in model.heads:
        del model.heads[name]
    elif kind == "add":
        model.heads[name] = nn.Linear(4, 1)
    elif kind == "rename":
        renamed = model._modules.pop("trunk")
        model.trunk = renamed
    elif (
        kind == "prune" and not parametrize.is_parametrized(layer) and "weight" in layer._parameters
    ):
        prune.random_unstructured(layer, "weight", 0.2)
    elif kind == "unprune" and "weight_orig" in layer._parameters:
        prune.remove(layer, "weight")
    elif (
        kind == "parametrize"
        and not parametrize.is_parametrized(layer)
        and "weight" in layer._parameters
    ):
        parametrize.register_parametrization(layer, "weight", nn.Tanh())
    elif kind == "tie" and {"a", "b"} <= set(model.heads):
        model.heads["a"] = model.heads["b"]
    elif kind == "outside":
        model.own = not model.own
    for head in model.heads.values():
        head.bias.requires_grad_(True)  # every loss reaches something
    return kind


def one_step(surgery, model, order, x, how):
    if how == "micro-batches":
        surgery.accumulate(model.losses(order, x))
        surgery.accumulate(model.losses(order[:1], x))
        return surgery.combine()
    if how == "fails":
        with pytest.raises(gs.NonFiniteError):
            surgery.backward(model.losses(order, x * float("nan")))
    elif how == "reload":
        surgery.load_state_dict(surgery.state_dict())
    return surgery.backward(model.losses(order, x))


def description(record):
    return [
        (
            g.name,
            g.objectives,
            g.strategy,
            g.parameters,
            None if g.weights is None else g.weights.round(9).tolist(),
        )
        for g in record.values()
    ]


@pytest.mark.parametrize("given", ["module", "parts", "tensors", "none"])
@pytest.mark.parametrize("strategy", ["sum", "mgda", "scaled-sum", "moco"])
@pytest.mark.parametrize("seed", range(6))
def test_every_change_is_seen(given, strategy, seed, monkeypatch):
    """Beside a Surgery that looks at everything again at every step."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = Changing()
    if given == "parts":  # what is not in them is an other parameter
        parameters = {"body": model.trunk, "tops": model.heads}
    elif given == "tensors":
        parameters = [*model.trunk.parameters(), model.scale]
    else:
        parameters = model if given == "module" else None
    ours, forgetful = (gs.Surgery(strategy, parameters) for _ in range(2))
    seen = set()
    for step in range(25):
        if step:
            seen.add(change(model, (ours, forgetful), draw))
        order = (
            draw.sample(sorted(model.heads), draw.randint(1, len(model.heads)))
            if draw.random() < 0.3
            else sorted(model.heads)
        )
        x = torch.randn(5, 3)
        how = draw.choice(["step", "step", "step", "micro-batches", "fails", "reload"])
        outcomes = []
        for surgery, looks_again in ((ours, False), (forgetful, True)):
            model.zero_grad()
            with monkeypatch.context() as patch:
                if looks_again:
                    patch.setattr(scene.Seen, "again", lambda *args: False)
                    patch.setattr(Parameters, "_unchanged", lambda self: False)
                try:
                    record = one_step(surgery, model, order, x, how)
                    outcomes.append(
                        (
                            description(record),
                            record.losses,
                            [
                                None if p.grad is None else p.grad.tolist()
                                for p in model.parameters()
                            ],
                        )
                    )
                except gs.InputError as error:
                    surgery.discard()
                    outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        assert ours.state_dict().keys() == forgetful.state_dict().keys()
        assert ours.state_dict().get("reach") == forgetful.state_dict().get("reach")
    assert len(seen) > 4


def test_a_step_like_the_last_one_is_known_again(monkeypatch):
    """Otherwise the test above would hold for a memory that forgets everything."""
    found = []
    look = scene._look
    monkeypatch.setattr(scene, "_look", lambda *args: found.append(1) or look(*args))
    for parameters in (Changing(), None):
        model = Changing() if parameters is None else parameters
        surgery = gs.Surgery("mgda", parameters)
        found.clear()
        for _ in range(4):
            surgery.backward(model.losses("abc", torch.randn(5, 3)))
        assert len(found) == 1
        for other in (copy.deepcopy(surgery), pickle.loads(pickle.dumps(surgery))):
            mine = other._plan.parameters._parts[""] or copy.deepcopy(model)
            other.backward(mine.losses("abc", torch.randn(5, 3)))
        assert len(found) == 3  # a copy has its own tensors, and looks for itself


def test_inputs_and_graphs_are_not_held_on_to():
    model = Changing()
    surgery = gs.Surgery("mgda", model)
    for _ in range(3):
        x = torch.randn(5, 3, requires_grad=True)
        losses = model.losses("abc", x)
        record = surgery.backward(losses)
        held = [weakref.ref(x), *(weakref.ref(loss) for loss in losses.values())]
        del x, losses
        assert [ref() for ref in held] == [None] * 4
    assert record["a"].objectives == ("a",)


def test_a_removed_layer_is_let_go_at_the_next_step():
    model = Changing()
    surgery = gs.Surgery("mgda", model)
    surgery.backward(model.losses("abc", torch.randn(5, 3)))
    weight = weakref.ref(model.heads["c"].weight)
    del model.heads["c"]
    surgery.backward(model.losses("ab", torch.randn(5, 3)))
    assert weight() is None


@pytest.mark.parametrize("settings", [{}, {"nonfinite": "ignore"}, {"every": 2}])
@pytest.mark.parametrize("strategy", ["sum", "mgda", "scaled-sum", "uw"])
def test_a_record_keeps_no_tensor_of_the_model(strategy, settings):
    model = Changing()
    surgery = gs.Surgery(strategy, model, **settings)
    records = [surgery.backward(model.losses("abc", torch.randn(5, 3))) for _ in range(4)]
    held = [weakref.ref(p) for p in model.parameters()]
    del model, surgery
    gc.collect()
    assert [ref() for ref in held] == [None] * len(held)
    assert all(record["a"].objectives == ("a",) for record in records)


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


def test_what_a_record_says_was_decided_then():
    """Losses and groups are read later, from what they were."""
    model = Changing()
    for check in ("error", "ignore"):
        losses = model.losses("abc", torch.randn(5, 3))
        values = {name: loss.item() for name, loss in losses.items()}
        record = gs.Surgery("sum", model, nonfinite=check).backward(losses)
        with torch.no_grad():
            for loss in losses.values():
                loss.zero_()
        assert record.losses == pytest.approx(values)
        again = pickle.loads(pickle.dumps(record))
        assert again.losses == record.losses
        assert description(again) == description(copy.deepcopy(record)) == description(record)
        assert dataclasses.replace(record, step=3).losses == record.losses
        assert dataclasses.replace(record, step=3).step == 3
        assert dataclasses.asdict(record)["losses"] == record.losses
        assert [f.name for f in dataclasses.fields(record)] == [
            "strategy",
            "losses",
            "groups",
            "step",
            "overflow",
        ]
        assert repr(record).startswith("Record(strategy='sum', losses={'a': ")
        assert str(record).startswith("step 0: sum on a = ")


def test_records_are_equal_either_way():
    model = Changing()
    x = torch.randn(5, 3)
    one, two = (gs.Surgery("sum", model).backward(model.losses("a", x)) for _ in range(2))
    read = copy.copy(two)
    assert type(read) is gs.Record
    assert one == two == read == one
    assert one != gs.Surgery("sum", model).backward(model.losses("b", x))
    assert "a+b" not in one
    assert list(one) == list(one.groups)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.step = 1
