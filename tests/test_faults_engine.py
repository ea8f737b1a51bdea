"""Faults once found in the engine: what is held, leaves, functions that fill `.grad`, interrupts, processes."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import gradsurgery as gs

ROOT = Path(__file__).parent.parent


class Two(nn.Module):
    """A trunk and two heads."""

    def __init__(self):
        super().__init__()
        self.enc, self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 1), nn.Linear(5, 1)

    def forward(self, x):
        z = self.enc(x).tanh()
        return self.a(z), self.b(z)


def losses_of(model, x):
    first, second = model(x)
    return {"a": (first - 1).pow(2).mean(), "b": (second + x.sum(1, keepdim=True)).pow(2).mean()}


def gradients(model):
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] is None) == (gradient is None), name
        assert gradient is None or torch.allclose(found[name], gradient, rtol=1e-5, atol=1e-7), name


# --- what a step takes from the one before (entry 2) ---


def assigned(model):
    model.enc = None
    model.enc = nn.Linear(4, 5)


def deleted(model):
    del model.enc
    model.enc = nn.Linear(4, 5)


def popped(model):
    model._modules.pop("enc")
    model.enc = nn.Linear(4, 5)


def parameter_anew(model):
    del model.enc.weight
    model.enc.weight = nn.Parameter(torch.randn(5, 4))


def swapped(model):
    other = nn.Linear(4, 5)
    model.enc.__dict__, other.__dict__ = other.__dict__, model.enc.__dict__


@pytest.mark.parametrize("change", [assigned, deleted, popped, parameter_anew, swapped])
def test_a_layer_made_anew_under_the_same_name_is_found_in_every_try(change):
    torch.manual_seed(0)
    model = Two()
    surgery, x = gs.Surgery("mgda", model), torch.randn(8, 4)
    for _ in range(60):
        surgery.backward(losses_of(model, x))
        change(model)
        model.zero_grad()
        record = surgery.backward(losses_of(model, x))
        assert model.enc.weight.grad is not None
        assert model.enc.bias.grad is not None
        assert record["a+b"].parameters == 2


def test_a_module_dict_entry_made_anew_is_found():
    model = nn.ModuleDict({"t": nn.Linear(4, 5), "a": nn.Linear(5, 1), "b": nn.Linear(5, 1)})
    surgery, x = gs.Surgery("mgda", model), torch.randn(8, 4)
    for _ in range(60):
        z = model["t"](x)
        surgery.backward({name: model[name](z).pow(2).mean() for name in "ab"})
        model.pop("t")
        model["t"] = nn.Linear(4, 5)
        z = model["t"](x)
        surgery.backward({name: model[name](z).pow(2).mean() for name in "ab"})
        assert model["t"].weight.grad is not None


def test_named_parameters_set_on_the_instance_or_the_class_later_are_asked():
    class Own(Two):
        pass

    x = torch.randn(8, 4)
    for on_instance in (True, False):
        model = Own()
        surgery = gs.Surgery("mgda", model, others="ignore")
        surgery.backward(losses_of(model, x))
        model.zero_grad()

        def without_bias(*args, model=model, **kwargs):
            return ((n, p) for n, p in nn.Module.named_parameters(model) if not n.endswith("bias"))

        (model if on_instance else Own).named_parameters = without_bias
        surgery.backward(losses_of(model, x))
        assert model.enc.bias.grad is None
        assert model.enc.weight.grad is not None


def test_a_class_put_in_the_place_of_another_is_asked():
    class Renamed(Two):
        def named_parameters(self, *args, **kwargs):
            return ((n, p) for n, p in super().named_parameters(*args, **kwargs) if "enc" in n)

    model, x = Two(), torch.randn(8, 4)
    surgery = gs.Surgery("mgda", model, others="ignore")
    surgery.backward(losses_of(model, x))
    model.zero_grad()
    model.__class__ = Renamed
    surgery.backward(losses_of(model, x))
    assert model.enc.weight.grad is not None
    assert model.a.weight.grad is None


class WithScriptedPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.jit.script(Two())

    def forward(self, x):
        first, second = self.body(x)
        return first, second


WAYS = {
    "scripted": torch.jit.script,
    "traced": lambda model: torch.jit.trace(model, torch.randn(8, 4)),
    "a scripted part": lambda model: WithScriptedPart(),
    "fx": torch.fx.symbolic_trace,
    "exported": lambda model: torch.export.export(model, (torch.randn(8, 4),)).module(),
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "parametrized": lambda model: parametrize.register_parametrization(model.enc, "weight", nn.Tanh()) and model,
    "copied": copy.deepcopy,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", ["module", "list", "none"])
def test_containers_of_every_kind_give_the_groups_of_the_plain_model(way, given):
    torch.manual_seed(0)
    model, x = WAYS[way](Two()), torch.randn(8, 4)
    surgery = gs.Surgery("mgda", {"module": model, "list": list(model.parameters()), "none": None}[given])
    for _ in range(4):  # TorchScript makes its regions from the second call on
        model.zero_grad()
        losses = losses_of(model, x)
        trained = [p for p in model.parameters() if p.requires_grad]
        alone = torch.autograd.grad(losses["a"], trained, retain_graph=True, allow_unused=True)
        record = surgery.backward(losses)
        assert set(record) == {"a+b", "a", "b"}
        for p, g, (name, _) in zip(trained, alone, model.named_parameters(), strict=True):
            if name.split(".")[-2] == "a":
                assert torch.allclose(p.grad, g, rtol=1e-5, atol=1e-7)


def test_lazy_layers_are_trained_once_they_have_a_shape():
    model = nn.ModuleDict({"t": nn.LazyLinear(5), "a": nn.LazyLinear(1), "b": nn.LazyLinear(1)})
    surgery, x = gs.Surgery("mgda", model), torch.randn(8, 4)
    for _ in range(3):
        z = model["t"](x)
        record = surgery.backward({name: model[name](z).pow(2).mean() for name in "ab"})
        assert set(record) == {"a+b", "a", "b"}
        assert model["t"].weight.grad is not None


# --- other processes (entry 1) ---


def ranks(world, tmp_path):
    """What each of `world` processes prints, as a dict per rank."""
    store = tmp_path / f"store{world}"
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    script = str(ROOT / "tests" / "ranks.py")
    commands = [[sys.executable, script, str(rank), str(world), str(store)] for rank in range(world)]
    pipe = subprocess.PIPE
    runs = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env) for command in commands]
    try:
        outputs = [run.communicate(timeout=120) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert all(run.returncode == 0 for run in runs), outputs[0][1][-2000:]
    pairs = [[line.partition(" InputError: ") for line in out.splitlines()] for out, _ in outputs]
    return [{(a if sep else a.removesuffix(" fine")): said for a, sep, said in found} for found in pairs]


def test_ranks_that_would_drift_apart_are_an_error_unless_asked_for(tmp_path):
    wrapped = {"ddp", "ddp inside", "ddp in a group", "ddp, one-shot", "ddp, composable", "fsdp1", "dtensor", "fsdp2"}
    wrapped |= {"fsdp2 after the constructor", "fsdp2, no parameters", "wrong"}
    plain = {"ddp.module", "plain", "plain, made before", "plain, accumulate", "plain, inspect", "plain, list", "plain, no parameters"}
    told = {"plain, None", "inspect, None", "one-shot, None", "ddp, None"}
    for world in (1, 2):
        for found in ranks(world, tmp_path):
            assert found.keys() == wrapped | plain | told
            refused = {name for name, said in found.items() if said}
            assert refused == wrapped | (plain if world == 2 else set()), found
            assert "DDP" in found["ddp"]
            assert "DTensor" in found["dtensor"]
            assert "FSDP2" in found["fsdp2"]
            if world == 2:
                assert "2 ranks" in found["plain"]


@pytest.mark.parametrize("given", ["world", 1, True, object()])
def test_a_process_group_that_is_not_there_yet_is_refused(given):
    for make in (lambda: gs.Surgery("sum", Two(), process_group=given), lambda: gs.inspect([torch.ones((), requires_grad=True)], process_group=given)):
        with pytest.raises(gs.InputError, match=r"process_group: expected 'auto' .* or None .*; got"):
            make()
