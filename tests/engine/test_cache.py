"""What a Surgery takes from the step before: only what it would find again, whatever has changed
since.
"""

import copy
import pickle
import random
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

import gradsurgery as gs
from gradsurgery.engine import tracing
from gradsurgery.engine.parameters import Parameters
from tests.support.changing import Changing, description


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


@pytest.mark.sampled(keep=lambda name: "[0-" in name or "[1-" in name or "[2-" in name)
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
                    patch.setattr(tracing.TraceCache, "find", lambda *args: None)
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
    trace = tracing._trace
    monkeypatch.setattr(tracing, "_trace", lambda *args: found.append(1) or trace(*args))
    for parameters in (Changing(), None):
        model = Changing() if parameters is None else parameters
        surgery = gs.Surgery("mgda", parameters)
        found.clear()
        for _ in range(4):
            surgery.backward(model.losses("abc", torch.randn(5, 3)))
        assert len(found) == 1
        for other in (copy.deepcopy(surgery), pickle.loads(pickle.dumps(surgery))):
            mine = other._config.parameters._parts[""] or copy.deepcopy(model)
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
