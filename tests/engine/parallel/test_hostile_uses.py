"""Uses of every kind on ranks are as one process on the joined batch, and ranks are alike."""

import copy
import gc
import weakref

import pytest
import torch
import torch.distributed as dist

from gradsurgery.engine.parallel.layout import Parcel
from tests.support.hostile import ALL, REST, WORLD, Fresh, compared
from tests.support.joined import numbers
from tests.support.ranks import on_ranks

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore"),
]


def overflows(strategy, where):
    """On one rank a loss or a gradient is infinite in the second step, which all scalers skip."""

    def use(run):
        surgery, scaler = run.make(strategy), torch.amp.GradScaler("cpu", init_scale=4.0)
        optimizer = torch.optim.SGD(run.model.parameters(), 0.1)
        said = []
        for step in range(3):
            optimizer.zero_grad()
            losses = run.losses(step)
            if step == 1 and (run.bad or run.alone):
                if where == "loss":
                    losses["b"] = losses["b"] * torch.inf
                else:
                    losses["b"].register_hook(lambda gradient: gradient * torch.inf)
            record = surgery.backward(losses, scaler=scaler)
            said.append((record.overflow, repr(surgery)))
            scaler.step(optimizer)
            scaler.update()
            said.append(scaler.get_scale())
        return said

    return use


def overflows_in_a_micro_batch(run):
    surgery, scaler = run.make(), torch.amp.GradScaler("cpu", init_scale=4.0)
    losses = run.losses()
    if run.bad or run.alone:
        losses["a"].register_hook(lambda gradient: gradient * torch.inf)
    surgery.accumulate(losses, scaler=scaler)
    surgery.accumulate(run.losses(1), scaler=scaler)
    return surgery.combine().overflow


def where_gradients_are_off(run):
    losses = run.losses()
    with torch.no_grad():
        run.make().backward(losses)


def under_detect_anomaly(run):
    with torch.autograd.set_detect_anomaly(True):
        run.make("upgrad").backward(run.losses())


def with_the_graph_kept(run):
    losses, surgery = run.losses(), run.make("upgrad")
    surgery.backward(losses, retain_graph=True)
    surgery.backward(losses)


def in_a_tensor(run):
    losses = torch.stack(list(run.losses().values()))
    run.make().backward(losses.view(1, 3), weights=[[1.0, 2.0, 3.0]])


def copied(run):
    """After a step at features; the copy of both goes on."""
    surgery = run.make()
    features(run, surgery, 0)
    run.model, surgery = copy.deepcopy((run.model, surgery))
    surgery.backward(run.losses(1))


def features(run, surgery, step):
    x, y = numbers(step, 4, 3, dtype=torch.float32)
    z = run.model.trunk(x[run.rows])
    out = {name: head(z)[:, 0] for name, head in run.model.heads.items()}
    losses = {n: (out[n] - y[run.rows, i]).pow(2).mean() for i, n in enumerate(out)}
    surgery.backward(losses, features=z)
    return weakref.ref(z)


def features_are_released(run):
    surgery = run.make()
    kept = [features(run, surgery, step) for step in range(2)]
    gc.collect()
    return [ref() is None for ref in kept]


def missing_in_micro_batches(run):
    surgery = run.make()
    surgery.accumulate(run.without("a"))
    surgery.accumulate({} if run.bad else run.model.losses(1, REST if run.alone else run.rows))
    surgery.combine()


def other_losses_between_solved_steps(run):
    surgery = run.make(every=3)
    for step in range(4):
        surgery.backward(run.without("a", step) if step == 2 else run.losses(step))


def observed_by_some(run):
    surgery = run.make("famo")
    for step in range(3):
        surgery.backward(run.without("a", step))
        with torch.no_grad():
            surgery.observe(run.without("a", 10 + step))


def zero_on_all_but_one(run):
    """A gradient that is zero on some ranks is none that is absent."""
    losses = run.losses()
    losses["b"] = losses["b"] * 0
    if run.alone:
        losses["c"] = run.model.losses(0, ALL[1::WORLD])["c"] / WORLD
    elif not run.bad:
        losses["c"] = losses["c"] * 0
    record = run.make(zero="absent").backward(losses)
    return record["a+b+c"].objectives


def collectives_of_the_user(run):
    """Begun before a step, and waited for after it."""
    surgery, said = run.make(), []
    for step in range(3):
        losses = run.losses(step)
        values = torch.stack([loss.detach() for loss in losses.values()])
        work = None if run.alone else dist.all_reduce(values, async_op=True)
        surgery.backward(losses)
        if work is not None:
            work.wait()
            dist.barrier()
        said.append(run.alone or values.isfinite().all().item())
    return said


USES = [
    overflows(name, how) for name in ("mgda", "sum", "graddrop") for how in ("loss", "gradient")
]
USES += [overflows_in_a_micro_batch, where_gradients_are_off, under_detect_anomaly]
USES += [with_the_graph_kept, in_a_tensor, copied, features_are_released, missing_in_micro_batches]
USES += [other_losses_between_solved_steps, observed_by_some, zero_on_all_but_one]
USES += [collectives_of_the_user]


def test_uses_of_every_kind():
    compared(USES)


def freed(rank):
    """Of the gradients of each pass which are still held when the next one ends."""
    run, packed, held = Fresh(rank), Parcel.pack, []

    def pack(parcel, gradients, *more):
        refs = [weakref.ref(gradient) for own in gradients.values() for gradient in own.values()]
        rows = packed(parcel, gradients, *more)
        if held:
            held[-1] = [ref() is None for ref in held[-1]]
        held.append(refs)
        return rows

    Parcel.pack = pack
    run.make().backward(run.losses())
    return held[:-1]


def test_gradients_that_are_sent_are_freed_while_the_next_pass_runs():
    for held in on_ranks(WORLD, freed):
        assert len(held) == 2
        assert all(all(own) and own for own in held)
