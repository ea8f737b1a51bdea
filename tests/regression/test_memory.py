"""Memory that others read stays as it is."""

import gc
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.support.two_heads import Two


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
storage = lambda t: t.untyped_storage()
for holder in (lambda t: t, lambda t: t._base, lambda t: t.view(4, 3), storage):
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


def test_gradients_that_lie_in_one_storage():
    def losses(p, q):
        s = p.view(6) + q.view(6)
        return {"a": s.pow(2).sum(), "b": (s - 1).pow(2).sum()}

    def fresh():
        return nn.Parameter(torch.arange(6.0).view(2, 3)), nn.Parameter(torch.ones(3, 2))

    p, q = fresh()
    expected = torch.autograd.grad(sum(losses(p, q).values()), [p, q])
    gs.backward(losses(p, q), [p, q], "scaled-sum")
    assert torch.allclose(p.grad, 1.5 * expected[0])
    assert torch.allclose(q.grad, 1.5 * expected[1])
    p, q = fresh()
    surgery = gs.Surgery("sum", [p, q])
    for _ in range(3):
        surgery.accumulate(losses(p, q))
    surgery.combine()
    assert torch.allclose(p.grad, 3 * expected[0])
    assert torch.allclose(q.grad, 3 * expected[1])


def test_an_expanded_grad_is_an_error_before_anything_is_written():
    p, q = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    p.grad, q.grad = torch.zeros(3), torch.zeros(1).expand(3)
    surgery = gs.Surgery("mgda", [p, q])
    with pytest.raises(gs.InputError, match="expanded"):
        surgery.backward({"a": (p * q).sum(), "b": -(p + q).sum()})
    assert p.grad.tolist() == [0, 0, 0]
    assert surgery.state_dict()["step"] == 0


def test_a_direction_has_the_layout_of_its_parameter():
    convolution = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    out = convolution(torch.randn(2, 3, 8, 8))
    gs.backward({"a": out.sum(), "b": -out.pow(2).sum()}, convolution, "graddrop")
    assert convolution.weight.grad.stride() == convolution.weight.stride()
