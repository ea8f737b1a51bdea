"""Faults once found in the engine: what is held, leaves, functions that fill `.grad`, interrupts, processes."""

import copy
import gc
import os
import signal
import subprocess
import sys
import threading
import time
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
    return {
        name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()
    }


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
    "parametrized": lambda model: (
        parametrize.register_parametrization(model.enc, "weight", nn.Tanh()) and model
    ),
    "copied": copy.deepcopy,
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("given", ["module", "list", "none"])
def test_containers_of_every_kind_give_the_groups_of_the_plain_model(way, given):
    torch.manual_seed(0)
    model, x = WAYS[way](Two()), torch.randn(8, 4)
    surgery = gs.Surgery(
        "mgda", {"module": model, "list": list(model.parameters()), "none": None}[given]
    )
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
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    script = str(ROOT / "tests" / "ranks.py")
    commands = [
        [sys.executable, script, str(rank), str(world), str(store)] for rank in range(world)
    ]
    pipe = subprocess.PIPE
    runs = [
        subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env)
        for command in commands
    ]
    try:
        outputs = [run.communicate(timeout=120) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert all(run.returncode == 0 for run in runs), outputs[0][1][-2000:]
    pairs = [[line.partition(" InputError: ") for line in out.splitlines()] for out, _ in outputs]
    return [
        {(a if sep else a.removesuffix(" fine")): said for a, sep, said in found} for found in pairs
    ]


def test_ranks_that_would_drift_apart_are_an_error_unless_asked_for(tmp_path):
    wrapped = {
        "ddp",
        "ddp inside",
        "ddp in a group",
        "ddp, one-shot",
        "ddp, composable",
        "fsdp1",
        "dtensor",
        "fsdp2",
    }
    wrapped |= {"fsdp2 after the constructor", "fsdp2, no parameters", "wrong"}
    plain = {
        "ddp.module",
        "plain",
        "plain, made before",
        "plain, accumulate",
        "plain, inspect",
        "plain, list",
        "plain, no parameters",
    }
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
    for make in (
        lambda: gs.Surgery("sum", Two(), process_group=given),
        lambda: gs.inspect([torch.ones((), requires_grad=True)], process_group=given),
    ):
        with pytest.raises(
            gs.InputError, match=r"process_group: expected 'auto' .* or None .*; got"
        ):
            make()


# --- leaves that are no nn.Parameter (entry 3) ---


def pinn(coefficient, x):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    y = net(x)
    (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    losses = {
        "data": (y - torch.exp(-2 * x)).pow(2).mean(),
        "ode": (slope + coefficient * y).pow(2).mean(),
    }
    return net, losses


@pytest.mark.parametrize("strategy", ["sum", "upgrad", "mgda", "uw", "scaled-sum"])
@pytest.mark.parametrize(
    "settings", [{}, {"memory": "low"}, {"method": "gradients"}, {"every": 2}], ids=str
)
@pytest.mark.parametrize("given", ["net", "none", "listed"])
def test_a_plain_leaf_gets_what_loss_backward_would_give_it(strategy, settings, given):
    coefficient = torch.tensor(0.5, requires_grad=True)
    log_variance = torch.zeros((), requires_grad=True)
    inputs = torch.linspace(0, 1, 6)[:, None]
    surgery = None
    for _ in range(2):
        x = inputs.clone().requires_grad_()
        net, losses = pinn(coefficient, x)
        losses["data"] = losses["data"] * torch.exp(-log_variance) + log_variance
        leaves = [coefficient, log_variance, x]
        expected = torch.autograd.grad(sum(losses.values()), leaves, retain_graph=True)
        given_now = {
            "net": net,
            "none": None,
            "listed": [*net.parameters(), coefficient, log_variance],
        }[given]
        surgery = gs.Surgery(strategy, given_now, **settings)
        coefficient.grad = log_variance.grad = None
        surgery.backward(losses)
        weighted = strategy == "uw"  # its weights belong to the losses, whatever they reach
        for leaf, gradient in zip(leaves, expected, strict=True):
            assert leaf.grad is not None
            if not weighted and not (given == "listed" and leaf is not x):
                assert torch.allclose(leaf.grad, gradient, rtol=1e-5, atol=1e-7)


def test_a_plain_leaf_behind_features_gets_the_plain_sum():
    torch.manual_seed(0)
    scale = torch.tensor(1.5, requires_grad=True)
    trunk, a, b = nn.Linear(4, 5), nn.Linear(5, 1), nn.Linear(5, 1)
    z = trunk(torch.randn(8, 4)).tanh() * scale
    losses = {"a": a(z).pow(2).mean(), "b": (b(z) - 1).pow(2).mean()}
    (expected,) = torch.autograd.grad(sum(losses.values()), [scale], retain_graph=True)
    gs.backward(losses, nn.ModuleList([trunk, a, b]), "mgda", features=z)
    assert torch.allclose(scale.grad, expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["dict", "list", "tensor", "scalar", "accumulate", "option"])
def test_weights_that_require_grad_are_an_error_that_says_how_to_learn_them(form):
    model, log_weights = Two(), torch.zeros(2, requires_grad=True)
    weights = {
        "dict": {"a": log_weights[0].exp(), "b": 1.0},
        "tensor": log_weights.exp(),
        "scalar": log_weights[0].exp(),
    }
    weights["list"] = [log_weights[0].exp(), 1.0]
    weights["accumulate"] = weights["option"] = weights["dict"]
    losses = losses_of(model, torch.randn(8, 4))
    given = list(losses.values()) if form in ("list", "tensor") else losses
    option = form == "option"
    surgery = (
        gs.Surgery("upgrad", model, preference=weights[form])
        if option
        else gs.Surgery("mgda", model)
    )
    step = surgery.accumulate if form == "accumulate" else surgery.backward
    with pytest.raises(gs.InputError, match="requires grad would get no gradient"):
        step(given, **({} if option else {"weights": weights[form]}))
    assert all(p.grad is None for p in model.parameters())


# --- functions that fill .grad within their own backward pass (entry 4) ---


class Reversible(torch.autograd.Function):
    """x + f(x), which makes the gradients of f's parameters by a backward pass inside its own."""

    @staticmethod
    def forward(ctx, x, f):
        ctx.f, ctx.x = f, x.detach()
        return x + f(x)

    @staticmethod
    def backward(ctx, gradient):
        with torch.enable_grad():
            x = ctx.x.clone().requires_grad_()
            y = x + ctx.f(x)
        torch.autograd.backward(y, gradient)
        return x.grad, None


class Assigns(torch.autograd.Function):
    """Puts a gradient into .grad by hand."""

    @staticmethod
    def forward(ctx, x, f):
        ctx.f, ctx.x = f, x.detach()
        return f(x)

    @staticmethod
    def backward(ctx, gradient):
        layer = (
            ctx.f[0] if isinstance(ctx.f, nn.Sequential) else ctx.f.__closure__[0].cell_contents[0]
        )
        layer.weight.grad = torch.ones_like(layer.weight)
        return gradient, None


class Block(nn.Module):
    def __init__(self, function=Reversible, closure=False):
        super().__init__()
        torch.manual_seed(0)
        self.i, self.f = nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), nn.Tanh())
        self.a, self.b = nn.Linear(8, 1), nn.Linear(8, 1)
        self.function, self.closure = function, closure

    def forward(self, x):
        block = self.f
        z = self.function.apply(self.i(x), (lambda x: block(x)) if self.closure else block)
        return self.a(z), self.b(z)


FILLING = {
    "backward": lambda model, losses: gs.Surgery("mgda", model).backward(losses),
    "sum": lambda model, losses: gs.Surgery("sum", model).backward(losses),
    "memory": lambda model, losses: gs.Surgery("mgda", model, memory="low").backward(losses),
    "one-shot": lambda model, losses: gs.backward(losses, model, "upgrad"),
    "no parameters": lambda model, losses: gs.backward(losses, None, "upgrad"),
    "list": lambda model, losses: gs.backward(losses, list(model.parameters()), "upgrad"),
    "trunk alone": lambda model, losses: gs.backward(losses, model.i, "upgrad"),
    "groups": lambda model, losses: gs.backward(
        losses, {"t": [*model.i.parameters(), *model.f.parameters()]}, "mgda"
    ),
    "inspect": lambda model, losses: gs.inspect(losses, model),
    "accumulate": lambda model, losses: gs.Surgery("mgda", model).accumulate(losses),
    "not finite": lambda model, losses: gs.Surgery("mgda", model).backward(
        {**losses, "b": losses["b"] * float("nan")}
    ),
}


@pytest.mark.parametrize("function", [Reversible, Assigns])
@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("way", FILLING)
def test_a_function_that_fills_grad_is_an_error_and_undone(way, function, closure):
    model, x = Block(function, closure), torch.randn(16, 4)
    losses = losses_of(model, x)
    with pytest.raises(
        gs.InputError, match=r"fills \.grad within its own backward pass.*use_reentrant=False"
    ):
        FILLING[way](model, losses)
    assert all(p.grad is None for p in model.parameters())


def test_what_was_added_in_place_is_said_to_stay():
    model, x = Block(), torch.randn(16, 4)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    surgery = gs.Surgery("mgda", model)
    with pytest.raises(
        gs.InputError, match=r"added to the \.grad of f\.0\.weight, f\.0\.bias cannot be undone"
    ):
        surgery.backward(losses_of(model, x))
    assert all(
        not p.grad.any() for name, p in model.named_parameters() if not name.startswith("f.")
    )
    assert surgery.state_dict()["step"] == 0


def test_functions_that_fill_nothing_and_reached_blocks_work_as_ever():
    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, f):
            ctx.f = f
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 2, None

    model, x = Block(Double), torch.randn(16, 4)
    for p in model.f.parameters():  # from another part of the program
        p.grad = torch.ones_like(p)
    record = gs.Surgery("mgda", model).backward(losses_of(model, x))
    assert record["a+b"].parameters == 2
    assert all(bool((p.grad == 1).all()) for p in model.f.parameters())


# --- Ctrl-C at any moment (entry 13) ---


class Storm:
    """Sends SIGINT to this process at random moments while the block runs; the block sees KeyboardInterrupt."""

    def __init__(self, seed, longest):
        generator = torch.Generator().manual_seed(seed)
        self.pauses = (longest * torch.rand(10_000, generator=generator)).tolist()
        self.on = self.over = False  # no Event: its lock could be interrupted while it is held

    def __enter__(self):
        self.handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.thread = threading.Thread(target=self._send)
        self.thread.start()
        return self

    def _send(self):
        for pause in self.pauses:
            while not self.on and not self.over:
                time.sleep(0.0002)
            if self.over:
                return
            time.sleep(pause)
            if self.on:
                os.kill(os.getpid(), signal.SIGINT)

    def __exit__(self, *exception):
        self.on, self.over = False, True
        self.thread.join()
        signal.signal(signal.SIGINT, self.handler)

    def run(self, call):
        """Whether the call ended without an interrupt."""
        ended = False
        try:
            self.on = True
            call()
            ended = True
            self.on = False
        except KeyboardInterrupt:
            pass
        while True:  # what was sent late arrives here
            try:
                self.on = False
                time.sleep(0.001)
                return ended
            except KeyboardInterrupt:
                continue


class Wide(nn.Module):
    def __init__(self, rows=60):
        super().__init__()
        torch.manual_seed(0)
        self.parts = nn.ParameterList(
            torch.randn(rows, 400, dtype=torch.float64) for _ in range(12)
        )

    def losses(self):
        return {
            "a": sum((p * p).sum() for p in self.parts),
            "b": sum((p - 1).pow(2).sum() for p in self.parts),
        }


@pytest.mark.parametrize("strategy", ["moco", "upgrad"])
def test_a_step_that_ctrl_c_interrupts_stands_whole_or_not_at_all(strategy):
    model = Wide()
    surgery = gs.Surgery(strategy, model)
    surgery.backward(model.losses())
    direction_of = {}  # step -> what it adds: the parameters do not change, but moco's state does
    reference = gs.Surgery(strategy, model)
    for step in range(60):
        model.zero_grad()
        reference.backward(model.losses())
        direction_of[step] = [p.grad.clone() for p in model.parts]
        if step and strategy == "upgrad":
            break
    model.zero_grad()
    interrupted = stood = 0
    start = time.perf_counter()
    with Storm(0, 0.006) as storm:
        for attempt in range(300):
            if time.perf_counter() - start > 3 or surgery.state_dict()["step"] >= 59:
                break
            for i, p in enumerate(model.parts):  # some have a .grad already, some have none
                p.grad = torch.zeros_like(p) if (i + attempt) % 2 else None
            step = surgery.state_dict()["step"]
            ended = storm.run(lambda: surgery.backward(model.losses()))
            after = surgery.state_dict()["step"]
            assert after - step in (0, 1)
            interrupted += not ended
            stood += not ended and after == step + 1
            expected = direction_of[step if strategy == "moco" else 0]
            for i, p in enumerate(model.parts):
                if after == step:
                    assert p.grad is None or not p.grad.any()
                    assert (p.grad is None) == ((i + attempt) % 2 == 0)
                else:
                    assert torch.equal(p.grad, expected[i])
    assert interrupted > 10


def test_a_micro_batch_that_ctrl_c_interrupts_is_in_the_sum_or_not():
    model = Wide(rows=20)
    interrupted = 0
    start = time.perf_counter()
    with Storm(1, 0.004) as storm:
        for _ in range(100):
            if time.perf_counter() - start > 2:
                break
            surgery = gs.Surgery("sum", model, method="gradients")
            tried, ended = 6, 0
            for _ in range(tried):
                ended += storm.run(lambda surgery=surgery: surgery.accumulate(model.losses()))
            interrupted += tried - ended
            if surgery._gathered is None:
                assert ended == 0
                continue
            model.zero_grad()
            record = surgery.combine()
            count = (
                record.losses["b"] / model.losses()["b"].item()
            )  # how many micro-batches the losses remember
            assert abs(count - round(count)) < 1e-9
            assert ended <= round(count) <= tried
            for p in model.parts:
                assert torch.allclose(p.grad, round(count) * (4 * p - 2), rtol=1e-12)
    assert interrupted > 10


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("way", ["backward", "accumulate", "inspect"])
def test_a_batched_pass_leaves_no_dead_tensor_in_a_retained_gradient(old, way):
    model, x = Two(), torch.randn(8, 4)
    surgery = gs.Surgery("mgda", model, method="batched")
    for _ in range(3):
        z = model.enc(x)
        z.retain_grad()
        if old:
            gc.collect()
        losses = {"a": model.a(z).pow(2).mean(), "b": (model.b(z) - 1).pow(2).mean()}
        if way == "inspect":
            gs.inspect(losses, model)
        (surgery.accumulate if way == "accumulate" else surgery.backward)(losses)
        assert z.grad is None or bool(torch.isfinite(z.grad).all())
        surgery.discard()


# --- what a review found beside these ---


def test_another_thread_may_train_parameters_that_no_loss_here_reaches():
    net, aux, x = (
        nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 64)),
        nn.Linear(8, 2),
        torch.randn(4, 8),
    )
    surgery, over = gs.Surgery("mgda", nn.ModuleList([net, aux])), []

    def other():
        while not over:
            aux(x).pow(2).mean().backward()
            aux.zero_grad()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(30):
            y = net(torch.randn(32, 16))
            surgery.backward({"a": y.mean(), "b": y.pow(2).mean()})
    finally:
        over.append(1)
        thread.join()


def test_a_surgery_within_a_hook_of_another_stands():
    net, aux, x = nn.Linear(3, 3), nn.Linear(3, 2), torch.randn(4, 3)
    outer, inner = gs.Surgery("mgda", nn.ModuleList([net, aux])), gs.Surgery("mgda", aux)
    z, called = net(x), []

    def hook(gradient):
        if not called:
            called.append(1)
            with torch.enable_grad():
                first, second = aux(x).pow(2).mean(0)
                inner.backward({"p": first, "q": second})

    z.register_hook(hook)
    outer.backward({"u": z.mean(), "v": z.pow(2).mean()})
    assert aux.weight.grad is not None
    assert net.weight.grad is not None


class FillsItsInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, gradient):
        x, w = ctx.saved_tensors
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            torch.autograd.backward(again @ w, gradient)
        return again.grad, None


@pytest.mark.parametrize("way", ["inspect", "mgda", "measure", "memory", "accumulate", "nan"])
def test_a_function_that_fills_a_reached_parameter_is_an_error(way):
    before, w, x = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4)), torch.randn(5, 4)
    parameters = [*before.parameters(), w]
    y = FillsItsInput.apply(before(x), w)
    losses = {
        "a": y.pow(2).mean(),
        "b": -5 * y.pow(2).mean() * (float("nan") if way == "nan" else 1),
    }
    ways = {
        "inspect": lambda: gs.inspect(losses, parameters),
        "measure": lambda: gs.Surgery("sum", parameters, measure=1).backward(losses),
        "memory": lambda: gs.Surgery("mgda", parameters, memory="low").backward(losses),
        "accumulate": lambda: gs.Surgery("mgda", parameters).accumulate(losses),
    }
    with pytest.raises(gs.InputError, match=r"fills \.grad"):
        ways.get(way, lambda: gs.Surgery("mgda", parameters).backward(losses))()
    assert all(p.grad is None for p in parameters)


@pytest.mark.parametrize("strategy", ["sum", "mgda"])
def test_a_part_of_a_batch_that_no_loss_takes_gets_zeros_as_in_torch(strategy):
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    common, first, second = (nn.Linear(4, 3) for _ in range(3))
    model = nn.ModuleList([common, first, second])
    none = x[:, 0] > 99  # no example for the second expert in this batch
    y = torch.cat([first(x)[~none], second(x[none])]) + common(x)
    gs.Surgery(strategy, model).backward({"a": y.pow(2).mean(), "b": (y - 1).abs().mean()})
    assert all(p.grad is not None for p in model.parameters())


def test_a_hook_across_joined_features_is_within_the_group():
    torch.manual_seed(0)
    x, first, second = torch.randn(8, 4), nn.Linear(4, 3), nn.Linear(4, 3)
    z = torch.cat([first(x), second(x)], 1)
    z.register_hook(lambda g: g - g.mean(1, keepdim=True))
    losses = {"a": z[:, :3].pow(2).mean(), "b": (z[:, 3:] - 1).pow(2).mean()}
    assert list(gs.Surgery("mgda", nn.ModuleList([first, second])).backward(losses)) == ["a+b"]


def hooked_layer(hook):
    torch.manual_seed(0)
    n = 200
    x, w, b = torch.randn(8, n), nn.Parameter(torch.randn(n, n) * 0.1), nn.Parameter(torch.zeros(n))

    def layer():
        turned = w.t()
        turned.register_hook(hook)
        return torch.addmm(b, x, turned)

    return w, b, layer


def test_a_batch_without_a_gradient_proves_no_tap():
    w, b, layer = hooked_layer(lambda g: g * 10)

    def losses(labelled):
        y = layer()
        return {
            "a": labelled * y[:, :100].pow(2).mean(),
            "c": (y[:, 100:] - 1).pow(2).mean() + y.mean(),
        }

    tapped, formed = gs.Surgery("upgrad", [w, b]), gs.Surgery("upgrad", [w, b], method="gradients")
    tapped.backward(losses(0.0))
    found = []
    for surgery in (tapped, formed):
        w.grad = b.grad = None
        surgery.backward(losses(1.0))
        found.append(w.grad.clone())
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_a_hook_that_clips_one_loss_alone_is_found():
    w, b, layer = hooked_layer(lambda g: g * min(1.0, 1.0 / float(g.norm())))

    def losses(swapped):
        y = layer()
        found = [
            ("a", 1e-3 * y[:, :100].pow(2).mean()),
            ("c", 100 * (y[:, 100:] - 1).pow(2).mean()),
        ]
        return dict(reversed(found) if swapped else found)

    w.grad = b.grad = None
    gs.Surgery("upgrad", [w, b], method="gradients").backward(losses(True))
    expected = w.grad.clone()
    w.grad = b.grad = None
    gs.Surgery("upgrad", [w, b]).backward(losses(True))
    assert torch.allclose(w.grad, expected, rtol=1e-4)
    w.grad = b.grad = None
    with pytest.raises(
        gs.InputError, match="method='gradients'"
    ):  # seen when the other loss's graph is gone
        gs.Surgery("upgrad", [w, b]).backward(losses(False))
    assert w.grad is None


def test_a_bad_gradient_of_an_input_alone_stops_nothing():
    model = nn.Linear(2, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for strategy in ("mgda", "sum"):
        surgery = gs.Surgery(strategy, model)
        for given in (scaler, None):
            x = torch.zeros(4, 2, requires_grad=True)
            u = model(x)[:, 0] * (1 + x.pow(2).sum(1).sqrt())
            model.zero_grad()
            record = surgery.backward({"a": (u - 1).pow(2).mean(), "b": u.mean()}, scaler=given)
            assert not record.overflow
            assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())
            assert bool(torch.isnan(x.grad).any())


def test_an_input_of_another_layout_gets_none_and_is_named_once():
    a, model, x = torch.eye(4).to_sparse().requires_grad_(), nn.Linear(4, 2), torch.randn(4, 4)
    surgery = gs.Surgery("mgda", model)
    for step in range(2):
        y = torch.sparse.mm(a, model(x))
        if step == 0:
            with pytest.warns(UserWarning, match="sparse_coo: it gets no gradient here"):
                surgery.backward({"a": y[:, 0].mean(), "b": y[:, 1].mean()})
        else:
            surgery.backward({"a": y[:, 0].mean(), "b": y[:, 1].mean()})
    assert model.weight.grad is not None


def test_observed_losses_that_have_a_graph_are_taken_as_numbers():
    model = nn.Linear(3, 2)
    surgery = gs.Surgery("famo", model)
    for _ in range(2):
        first, second = model(torch.ones(4, 3)).pow(2).mean(0)
        surgery.backward({"a": first, "b": second})
        first, second = model(torch.ones(4, 3)).pow(2).mean(0)
        surgery.observe({"a": first, "b": second})  # warnings are errors here


def test_independent_batches_as_lists_are_told_to_be_dicts():
    model = nn.Linear(3, 2)
    batches = [list(model(torch.ones(3)).pow(2)) for _ in range(3)]
    with pytest.raises(gs.InputError, match="give one dict of losses per batch"):
        gs.Surgery("sdmgrad", model).backward(batches)
