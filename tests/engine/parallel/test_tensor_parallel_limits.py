"""Tensor parallel: shares of gradients that lie otherwise, errors, and what is sent."""

import warnings

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.parallel.dtensor import as_gradient, form_of, share_of
from tests.engine.parallel.test_fsdp2_payload import Sent
from tests.engine.parallel.test_tensor_parallel import WIDTH, made
from tests.support.ranks import on_ranks, said
from tests.support.sharded import Model, alone, batch, check, compared, train, whole

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning"),
]


def lying_otherwise(rank):
    """A gradient comes back whole from its shares, however it lay."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    value = torch.arange(15.0).reshape(5, 3)
    ways = {
        "sharded": distribute_tensor(value, mesh, [Shard(0)]),
        "along the other": distribute_tensor(value, mesh, [Shard(1)]),
        "whole": distribute_tensor(value, mesh, [Replicate()]),
        "partial": DTensor.from_local(value / 2, mesh, [Partial()]),
    }
    for place in (Shard(0), Shard(1), Replicate()):
        parameter = distribute_tensor(torch.zeros(5, 3), mesh, [place])
        form = form_of(parameter)
        for name, gradient in ways.items():
            share = share_of(gradient, parameter, form)
            assert share.shape == form.shape
            back = as_gradient(share, parameter)
            assert back.placements == parameter.placements
            assert back.to_local().shape == parameter.to_local().shape
            assert torch.equal(back.full_tensor(), value), (name, place)
    return list(form_of(distribute_tensor(torch.zeros(5, 3), mesh, [Shard(0)])).shape)


def test_gradients_that_lie_otherwise_are_redistributed():
    assert on_ranks(2, lying_otherwise) == [[3, 3]] * 2


def outside(rank):
    """Ranks outside of the parameters' mesh train apart, unless that is asked for."""
    from torch.distributed.device_mesh import init_device_mesh

    warnings.simplefilter("ignore")
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    from tests.engine.parallel.test_tensor_parallel import colwise

    model = colwise(Model(WIDTH), mesh["tensor"], heads=False)
    told = said(lambda: gs.Surgery("mgda", model))
    other = said(lambda: gs.Surgery("mgda", model, process_group=mesh["data"].get_group()))
    settings = {"process_group": mesh["tensor"].get_group()}
    record = train(model, "mgda", settings=settings)  # each pair on the whole batch
    return told, other, compared(model, record, alone("mgda", WIDTH))


def test_a_mesh_of_some_ranks_is_asked_about():
    ranks = on_ranks(4, outside)
    for told, other, _ in ranks:
        assert told[0] == other[0] == "InputError"
        assert "of 4: the others would train apart" in told[1]
        assert "process_group: its ranks are" in other[1]
    check([result for _, _, result in ranks])


def added(rank):
    """`.grad` is added to in place, and lies as it did, on two meshes beside each other."""
    from torch.distributed.tensor import Replicate

    for way in ("2x2, DTensors", "2x2, with fully_shard"):
        model, part = made(way, rank)
        surgery = gs.Surgery("mgda", model)
        surgery.backward(model(part(batch(0))))
        first = [whole(p.grad).clone() for p in model.parameters()]
        grads = [p.grad for p in model.parameters()]
        surgery.backward(model(part(batch(0))))
        assert all(p.grad is grad for p, grad in zip(model.parameters(), grads, strict=True))
        for grad, one in zip(grads, first, strict=True):
            torch.testing.assert_close(whole(grad), 2 * one)
        weight = model.second.weight
        mesh = weight.device_mesh
        weight.grad = weight.grad.redistribute(mesh, [Replicate()] * mesh.ndim)
        surgery.backward(model(part(batch(0))))
        assert all(place.is_replicate() for place in weight.grad.placements)
        torch.testing.assert_close(weight.grad.to_local(), 3 * first[2])
    return True


def test_grad_is_added_to_as_it_lies():
    assert on_ranks(4, added) == [True] * 4


def mixed_meshes():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    sub = torch.distributed.device_mesh.DeviceMesh("cpu", [torch.distributed.get_rank()])
    spread = [nn.Parameter(distribute_tensor(torch.ones(4), m, [Shard(0)])) for m in (mesh, sub)]
    gs.Surgery("sum", spread)


def faults(rank):
    model, _ = made("1x2", rank)
    surgery = gs.Surgery("mgda", model)
    before = [p.grad for p in model.parameters()]
    told = [said(lambda: surgery.backward(model(batch(0), float("nan"))))]
    losses = model(batch(0))
    told.append(said(lambda: surgery.backward(losses if rank else {})))
    told.append(said(mixed_meshes))
    told.append(said(lambda: gs.Surgery("graddrop", model)))
    told.append(said(lambda: gs.Surgery("mgda", model, process_group=None)))
    assert [p.grad for p in model.parameters()] == before
    assert repr(surgery).endswith("step=0)")
    record = train(model, "mgda")
    return told, compared(model, record, alone("mgda", WIDTH))


def test_faults_are_one_error_on_all_ranks():
    ranks = on_ranks(2, faults)
    for told, _ in ranks:
        kinds, texts = zip(*told, strict=True)
        assert kinds == ("NonFiniteError", "InputError", "InputError", "InputError", "InputError")
        assert "loss 'a' is nan" in texts[0]
        assert "differ in their losses" in texts[1]
        assert "Spread all over one mesh" in texts[2]
        assert "takes `rows`" in texts[3]
        assert "process_group=None" in texts[4]
    check([result for _, result in ranks])


def sent(rank):
    """The library's own calls in a step, beside those of the passes."""
    model, _ = made("1x2", rank)
    surgery = gs.Surgery("mgda", model)
    surgery.backward(model(batch(0)))
    with Sent() as counted:
        surgery.backward(model(batch(1)))
    return [name for name, _ in counted.ours]


def test_a_step_exchanges_few_numbers():
    for names in on_ranks(2, sent):
        assert len(names) == 3
        assert names.count("all_reduce") == 1
