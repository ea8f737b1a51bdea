"""Taps beside hooks and checkpoints, memory that others own, and losses that were joined into one tensor."""

import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import gradsurgery as gs
from gradsurgery.engine.config import config_of
from gradsurgery.engine.history import History
from gradsurgery.engine.losses import parse_losses
from gradsurgery.engine.proof import compared
from gradsurgery.engine.scene import look
from gradsurgery.engine.taps import Tap, find_taps


class Clamped(nn.Module):
    """Two layers and two heads; `how` says where the middle layer's gradient is cut to a tenth, and whether at every forward pass anew."""

    def __init__(self, how, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(6, 8), nn.Linear(8, 8, bias=bias)
        self.heads = nn.ModuleDict({name: nn.Linear(8, 1) for name in "ab"})
        self.how = how
        tenth = lambda *args: tuple(None if g is None else g / 10 for g in args[-2])  # noqa: E731
        if how == "register_backward_hook":
            self.middle.register_backward_hook(
                lambda module, inputs, outputs: tenth(inputs, outputs)
            )
        elif how == "register_full_backward_hook":
            self.middle.register_full_backward_hook(
                lambda module, inputs, outputs: tenth(inputs, outputs)
            )
        elif how == "hook on the weight":
            self.middle.weight.register_hook(lambda g: g / 10)
        elif how == "parametrized":
            parametrizations.weight_norm(self.middle)
        elif how == "a parametrization with a hook":
            parametrize.register_parametrization(self.middle, "weight", Through())

    def forward(self, x):
        h = self.first(x).tanh()
        weight, bias, how = self.middle.weight, self.middle.bias, self.how
        if how.startswith("hook on W.t()"):
            transposed = weight.t()
            transposed.register_hook(lambda g: g / 10)
            h = h.detach() if how.endswith("first layer") else h
            return torch.addmm(bias, h, transposed) if bias is not None else h @ transposed
        y = self.middle(h)
        node = y.grad_fn
        transposed = node.next_functions[-1][0]
        if how == "hook on the layer's node":
            node.register_hook(lambda given, _: tuple(None if g is None else g / 10 for g in given))
        elif how == "prehook on the layer's node":
            node.register_prehook(lambda given: tuple(g / 10 for g in given))
        elif how == "hook on the node of W.t()":
            transposed.register_hook(lambda given, _: tuple(g / 10 for g in given))
        elif how == "prehook on the node of W.t()":
            transposed.register_prehook(lambda given: tuple(g / 10 for g in given))
        elif how == "hook on the output":
            y.register_hook(lambda g: g / 10)
        return y

    def losses(self, names="ab"):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
        z = self(x).tanh()
        return {name: (self.heads[name](z) - i).pow(2).mean() for i, name in enumerate(names)}


class Through(nn.Module):
    def forward(self, weight):
        weight = weight.view_as(weight)
        weight.register_hook(lambda g: g / 10)
        return weight


HOOKS = [
    "register_backward_hook", "register_full_backward_hook", "hook on the weight", "parametrized", "a parametrization with a hook", "hook on W.t()",
    "hook on W.t(), first layer", "hook on the layer's node", "prehook on the layer's node", "hook on the node of W.t()", "prehook on the node of W.t()",
    "hook on the output",
]  # fmt: skip


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", HOOKS)
def test_a_hook_anywhere_is_in_the_tapped_gradient(how, bias):
    found = []
    for method in ("taps", "gradients"):
        model = Clamped(how, bias)
        surgery = gs.Surgery("mgda", model, method=method)
        for _ in range(3):
            model.zero_grad()
            record = surgery.backward(model.losses())
        found.append((gradients(model), record["a+b"].gram))
        model = Clamped(how, bias)
        gs.backward(model.losses(), model, "mgda", method=method)
        for name, gradient in found[0][0].items():
            torch.testing.assert_close(
                gradients(model)[name],
                gradient,
                rtol=1e-4,
                atol=1e-7,
                msg=f"one step, {how}: {name}",
            )
    for name, gradient in found[1][0].items():
        torch.testing.assert_close(
            found[0][0][name], gradient, rtol=1e-4, atol=1e-7, msg=f"{how}: {name}"
        )
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4)


def tapped(model, losses, method="taps"):
    parsed = parse_losses(losses)
    scene, _, graph = look(config_of("mgda", model), parsed, History())
    return set(find_taps(graph, parsed, scene, method))


def test_hooks_that_come_and_go_between_steps_are_seen():
    models = Clamped("none"), Clamped("none")
    surgeries = [
        gs.Surgery("mgda", model, method=method)
        for model, method in zip(models, ("taps", "gradients"), strict=True)
    ]
    for how, taken in (
        ("none", True),
        ("hook on the node of W.t()", False),
        ("none", True),
        ("hook on the layer's node", False),
        ("hook on W.t()", False),
    ):
        for model, surgery in zip(models, surgeries, strict=True):
            model.zero_grad()
            model.how = how
            surgery.backward(model.losses())
        assert ("middle.weight" in tapped(models[0], models[0].losses())) == taken
        for name, gradient in gradients(models[1]).items():
            torch.testing.assert_close(gradients(models[0])[name], gradient, msg=f"{how}: {name}")


def test_a_tapped_layer_is_compared_with_autograd_once(monkeypatch):
    """In the passes of the first step, each loss by itself; no later step forms its gradient."""
    model = Clamped("none")
    asked = []
    grad = torch.autograd.grad

    def watched(outputs, inputs, *args, **kwargs):
        asked.append(any(t is model.middle.weight for t in inputs))
        return grad(outputs, inputs, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    surgery = gs.Surgery("mgda", model, method="taps")
    for _ in range(3):
        surgery.backward(model.losses())
    assert asked == [True] * 2 + [False] * 4
    asked.clear()
    gs.backward(model.losses(), model, "mgda", method="taps")  # all its hooks can be listed
    assert asked == [False] * 2


@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_agrees_with_autograd_is_found_to_agree(dtype, scale):
    generator = torch.Generator().manual_seed(0)
    x, delta = (
        torch.randn(32, 96, generator=generator).to(dtype),
        (scale * torch.randn(32, 64, generator=generator)).to(dtype),
    )
    right = (delta.double().T @ x.double()).to(dtype)
    for gradient, agrees in (
        (right, True),
        (right / 10, False),
        (right.clamp(-scale, scale), False),
        (torch.zeros_like(right), False),
    ):
        taps = {"w": Tap(None, x, None)}
        assert compared({"w": delta}, {"w": gradient}, taps) == (
            ([], ["w"]) if agrees else (["w"], [])
        )
        assert taps["w"].proved == (
            {} if agrees else {"w": False}
        )  # the last pass of the step decides
    taps = {"w": Tap(None, x, None)}
    assert compared({"w": delta * float("nan")}, {"w": right}, taps) == ([], [])
    assert compared({"w": 0 * delta}, {"w": 0 * right}, taps) == ([], [])  # zeros tell nothing
    assert taps["w"].proved == {}


class Recomputed(nn.Module):
    """Wide layers in one checkpointed region, or none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(160, 160) for _ in range(4)])
        self.heads = nn.ModuleDict({name: nn.Linear(160, 1) for name in "ab"})
        self.norm = nn.BatchNorm1d(160)
        self.calls = 0

    def region(self, h):
        self.calls += 1
        for layer in self.layers:
            h = layer(h).tanh()
        return self.norm(h)

    def losses(self, **options):
        x = torch.randn(8, 160, generator=torch.Generator().manual_seed(3))
        z = checkpoint(self.region, x, use_reentrant=False, **options)
        return {
            name: (head(z) - i).pow(2).mean() for i, (name, head) in enumerate(self.heads.items())
        }


@pytest.mark.parametrize(
    "settings", [{"method": "gradients"}, {"method": "auto"}, {"memory": "low"}]
)
def test_a_checkpointed_region_is_recomputed_once_per_pass(settings):
    model = Recomputed()
    expected = Recomputed()
    gs.backward(expected.losses(), expected, "mgda", method="gradients")
    losses = model.losses()
    model.calls = 0
    gs.backward(losses, model, "mgda", **settings)
    if "memory" not in settings:  # there a portion takes passes of its own
        assert model.calls == 2
    for name, gradient in gradients(expected).items():
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-6)


def test_what_was_offloaded_is_read_by_the_passes_only():
    found = []
    for method in ("gradients", "auto", "taps"):
        model, reads = Recomputed(), []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: t.clone(), lambda t, reads=reads: reads.append(1) or t
        ):
            z = model.region(torch.ones(8, 160) * torch.arange(8.0)[:, None])
            losses = {name: head(z).pow(2).mean() for name, head in model.heads.items()}
        gs.backward(losses, model, "mgda", method=method)
        found.append((len(reads), gradients(model)))
    assert found[0][0] == found[1][0]
    for other in found[1:]:
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(other[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_wide_layers_are_tapped_where_nothing_is_recomputed():
    """Otherwise the tests above would hold for a library that never taps."""
    model = Recomputed()
    z = model.region(torch.randn(8, 160))
    losses = {name: head(z).pow(2).mean() for name, head in model.heads.items()}
    assert tapped(model, losses, "auto") == {f"layers.{i}.weight" for i in range(4)}
    assert tapped(model, model.losses(), "auto") == set()
    assert tapped(model, model.losses(), "taps") == {f"layers.{i}.weight" for i in range(4)}


def selective():
    return create_selective_checkpoint_contexts([torch.ops.aten.addmm.default])


def test_a_selective_checkpoint_says_what_works():
    expected = Recomputed()
    gs.backward(expected.losses(), expected, "mgda", method="gradients")
    for options in ({"context_fn": selective}, {"debug": True}):
        for method in ("auto", "gradients", "taps"):
            model = Recomputed()
            with pytest.raises(
                gs.InputError, match="one backward pass only: give method='batched'"
            ):
                gs.backward(model.losses(**options), model, "mgda", method=method)
            assert not gradients(model)
        model = Recomputed()
        gs.backward(model.losses(**options), model, "mgda", method="batched")
        for name, gradient in gradients(expected).items():
            torch.testing.assert_close(gradients(model)[name], gradient, rtol=1e-4, atol=1e-6)


class Lends(torch.autograd.Function):
    """Gives a gradient in memory that has another owner, who goes on reading it."""

    @staticmethod
    def forward(ctx, x, value, how):
        ctx.value, ctx.how = value, how
        return (x * value).sum()

    @staticmethod
    def backward(ctx, gradient):
        owner = OWNERS[ctx.how](torch.full((4, 3), ctx.value))
        OWNED.append((owner[1], ctx.value))
        return owner[0], None, None


def numpy_owner(tensor):
    array = np.array(tensor.numpy())
    return torch.from_numpy(array), lambda: array.ravel()[0]


def dlpack_owner(tensor):
    array = np.array(tensor.numpy())
    return torch.from_dlpack(array), lambda: array.ravel()[0]


def another_of_the_same_storage(tensor):
    other = torch.empty(0).set_(tensor.untyped_storage())
    return tensor, lambda: other[0]


def the_storage(tensor):
    storage = tensor.untyped_storage()
    return tensor, lambda: torch.empty(0).set_(storage)[0]


def a_buffer(tensor):
    buffer = bytearray(tensor.numpy().tobytes())
    return torch.frombuffer(buffer, dtype=torch.float32).view(4, 3), lambda: np.frombuffer(
        buffer, np.float32
    )[0]


def a_file(tensor):
    path = tempfile.NamedTemporaryFile()  # noqa: SIM115  # it lives as long as who reads it
    path.write(tensor.numpy().tobytes())
    path.flush()
    return torch.from_file(path.name, shared=True, size=12).view(4, 3), lambda: np.fromfile(
        path.name, np.float32
    )[0]


OWNERS = {
    "numpy": numpy_owner,
    "dlpack": dlpack_owner,
    "a storage": the_storage,
    "another tensor": another_of_the_same_storage,
    "a buffer": a_buffer,
    "a file": a_file,
}
OWNED = []


@pytest.mark.parametrize("how", OWNERS)
@pytest.mark.parametrize("values", [(1.0,), (1.0, -3.0)])
def test_memory_that_others_read_stays_as_it_is(how, values):
    OWNED.clear()
    x = nn.Parameter(torch.ones(4, 3))
    optimizer = torch.optim.SGD([x], lr=1.0)
    for _ in range(2):
        gs.backward([Lends.apply(x, value, how) for value in values], [x], "mgda")
        optimizer.step()
        x.grad.zero_()
        optimizer.zero_grad()
    assert sorted(value for _, value in OWNED) == sorted(values * 2)
    assert [float(read()) for read, _ in OWNED] == [value for _, value in OWNED]


DEBUGGED = """
import importlib, sys
from gradsurgery.gradients import donation
kept = []
def trace(frame, event, argument):
    kept.append(dict(frame.f_locals))
    return trace
sys.settrace(trace)
importlib.reload(donation)
sys.settrace(None)
del kept
import torch
held = [torch.ones(3, 4).t()]
like = torch.zeros(3, 4).t()
assert donation.owned(held, [like])[0] is not None
for holder in (lambda t: t, lambda t: t._base, lambda t: t.view(4, 3), lambda t: t.untyped_storage()):
    other = holder(held[0])
    assert donation.owned(held, [like])[0] is None
    del other
held = [torch.ones(4)]
other = held[0]
assert donation.owned(held, [torch.zeros(4)])[0] is None
"""


def test_a_debugger_that_reads_variables_during_the_import_changes_nothing():
    done = subprocess.run(
        [sys.executable, "-c", DEBUGGED], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


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
    "times constants": lambda v: torch.stack(v) * torch.tensor([2.0, 0.5]) / torch.tensor([2.0, 0.5]),
    "times constants, then indexed": lambda v: (lambda s: {"0": s[0], "1": s[1]})(torch.cat(ones(v)) * 1.0),
    "indexed, then times": lambda v: (lambda s: [2 * s[0] / 2, s[1] + 0.0])(torch.cat(ones(v))),
    "a mask": lambda v: torch.cat([*ones(v), torch.zeros(1)])[torch.tensor([True, True, False])],
    "a list of indices": lambda v: torch.cat([torch.zeros(1), *ones(v)])[[1, 2]],
    "index_select": lambda v: torch.cat([torch.zeros(1), *ones(v)]).index_select(0, torch.tensor([1, 2])),
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
    "a matrix, then a dict": lambda v: dict(zip("ab", torch.tensor([[1.0, 0.5], [0.5, 1.0]]) @ torch.cat(ones(v)), strict=True)),
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
