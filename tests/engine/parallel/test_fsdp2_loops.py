"""fully_shard: every form of a step, with parameters given in every form."""

import copy
from functools import partial

import pytest
import torch

import gradsurgery as gs
from tests.engine.parallel.test_fsdp2 import own, sharded
from tests.engine.parallel.test_fsdp2_payload import WIDTH, Tasks
from tests.support.ranks import on_ranks
from tests.support.sharded import ROWS, STEPS, Model, alone, batch, check, compared, train, whole

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning"),
]


def trained(model, surgery, step, part, optimizer=None):
    """Five steps; `step` gives the record."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.02)
    for k in range(STEPS):
        optimizer.zero_grad()
        record = step(surgery, model, part(batch(k)))
        optimizer.step()
    return record


def both(rank, make, step, part=None, strategy="mgda", **settings):
    """A Surgery of what `make` gives of the sharded model, and one of the whole model."""
    found = []
    for model, given, rows, more in (
        (sharded(Model(), "trunk"), make, part or own(rank, 2), {}),
        (Model(), make, lambda x: x, {"process_group": None}),
    ):
        surgery = gs.Surgery(strategy, given(model), **settings, **more)
        found.append((model, trained(model, surgery, step, rows)))
    (model, record), expected = found
    return compared(model, record, expected)


def plain(surgery, model, x):
    return surgery.backward(model(x))


def uneven(rank):
    """The first rank has 17 of 24 examples."""
    parts = (slice(0, 17), slice(17, ROWS))

    def step(surgery, model, x):
        count = len(x) if surgery._config.process_group is not None else None
        return surgery.backward(model(x), count=count)

    return both(rank, lambda model: model, step, lambda x: x[parts[rank]])


def empty(rank):
    """The second rank has none: its losses are sums times zero."""

    def step(surgery, model, x):
        if surgery._config.process_group is None or rank == 0:
            counts = None if surgery._config.process_group is None else len(x)
            return surgery.backward(model(x), count=counts)
        return surgery.backward(model(torch.zeros_like(x)), count=0)

    return both(rank, lambda model: model, step, lambda x: x)


def groups(model):
    return {
        "first": model.first,
        "rest": [*model.second.parameters(), *model.a.parameters(), *model.b.parameters()],
    }


def observed(surgery, model, x):
    """After the optimizer's step, as it is meant: FSDP2 may keep what it gathers in this pass."""
    if surgery._history.weights:
        with torch.no_grad():
            surgery.observe(model(x.flip(1)))
    return surgery.backward(model(x))


def independent(surgery, model, x):
    return surgery.backward([model(part) for part in (x[::3], x[1::3], x[2::3])])


def scored(surgery, model, x):
    return surgery.backward(model(x), scores={"first": 2.0, "rest": 1.0})


def saved(surgery, model, x):
    """A fresh Surgery goes on from the state of the one before."""
    state = copy.deepcopy(surgery.state_dict())
    more = {"process_group": None} if surgery._config.process_group is None else {}
    again = gs.Surgery("nash-mtl", model, **more)
    again.load_state_dict(state)
    record = again.backward(model(x))
    surgery.load_state_dict(copy.deepcopy(again.state_dict()))
    return record


def columns(rank):
    """Sharded along their second dimension, where that divides."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    model = Model()
    along = {p: Shard(1) for p in model.parameters() if p.ndim > 1 and p.shape[1] % 2 == 0}
    fully_shard(model, shard_placement_fn=along.get)
    return compared(model, train(model, "mgda", own(rank, 2)), alone("mgda"))


def two_roots(rank):
    """Trunk and heads sharded apart, with no module around them that is."""
    from torch.distributed.fsdp import fully_shard

    model = Model()
    for part in (model.first, model.second, model.a, model.b):
        fully_shard(part)
    return compared(model, train(model, "mgda", own(rank, 2)), alone("mgda"))


def trunk_only(rank):
    """Heads that were not given are left alone, `.grad` included."""
    model, other = sharded(Model(), "every"), Model()
    mine = gs.Surgery("mgda", model.first, others="ignore")
    theirs = gs.Surgery("mgda", other.first, others="ignore", process_group=None)
    kept = torch.ones_like(model.a.weight)
    model.a.weight.grad = kept
    for k in range(2):
        model.first.zero_grad()
        other.first.zero_grad()
        mine.backward(model(own(rank, 2)(batch(k))))
        theirs.backward(other(batch(k)))
    assert model.a.weight.grad is kept
    assert model.b.weight.grad is None
    for p, q in zip(model.first.parameters(), other.first.parameters(), strict=True):
        torch.testing.assert_close(whole(p.grad), q.grad, rtol=1e-5, atol=1e-6)
    return


def overflow(rank):
    """What is infinite on one rank is so everywhere: all skip, and lower their scale alike."""
    model = sharded(Model(), "trunk")
    surgery = gs.Surgery("mgda", model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    before = [whole(p.detach()).clone() for p in model.parameters()]
    record = surgery.backward(model(batch(0), 1e38 if rank else 1.0), scaler=scaler)
    assert record.overflow
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**7
    assert repr(surgery).endswith("step=0)")
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(whole(parameter.detach()), value)
    return


def let_through(rank):
    """With nonfinite="ignore" NaN passes into `.grad` on all ranks, as torch lets it."""
    model = sharded(Model(), "trunk")
    surgery = gs.Surgery("mgda", model, nonfinite="ignore")
    surgery.backward(model(batch(0), float("nan") if rank else 1.0))
    assert whole(model.first.weight.grad).isnan().all()
    return


def faulty_micro_batch(rank):
    """A micro-batch that fails is in the sum on no rank: what was gathered stays, and goes on."""
    model, plain = sharded(Model(), "trunk"), Model()
    mine, theirs = gs.Surgery("mgda", model), gs.Surgery("mgda", plain, process_group=None)
    for k in range(3):
        model.zero_grad()
        plain.zero_grad()
        part = own(rank, 2)(batch(k))
        mine.accumulate(model(part))
        with pytest.raises(gs.NonFiniteError, match="'a'"):  # the loss, or its gradient here
            mine.accumulate(model(part, float("nan") if rank else 1.0))
        losses = model(part)
        with pytest.raises(gs.InputError, match="'a'"):  # said on one rank, raised on both
            mine.accumulate({**losses, "a": torch.ones(())} if rank else losses)
        mine.accumulate(model(part))
        record = mine.combine()
        for _ in range(2):
            theirs.accumulate(plain(batch(k)))
        expected = theirs.combine()
        for net in (model, plain):
            torch.optim.SGD(net.parameters(), lr=0.05).step()
    return compared(model, record, (plain, expected))


def large(rank, compiled):
    """Layers so large that Gram matrices are first formed in float32; compiled ones too."""
    from torch.distributed.fsdp import fully_shard

    model, plain = Tasks(8), Tasks(8)
    plain.load_state_dict(model.state_dict())
    for weight in plain.parameters():
        torch.distributed.broadcast(weight.detach(), 0)  # seeds differ between the ranks
    model.load_state_dict(plain.state_dict())
    for part in model.trunk:
        fully_shard(part)
        if compiled:
            part.compile(backend="aot_eager")
    fully_shard(model)
    mine, theirs = gs.Surgery("mgda", model), gs.Surgery("mgda", plain, process_group=None)
    for k in range(3):
        x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(k))
        model.zero_grad()
        plain.zero_grad()
        record, expected = mine.backward(model(x.chunk(2)[rank])), theirs.backward(plain(x))
        for net in (model, plain):
            torch.optim.SGD(net.parameters(), lr=0.1).step()
    return compared(model, record, (plain, expected))


def module(model):
    return model


CASES = {
    "uneven batches": uneven,
    "a rank without examples": empty,
    "explicit groups": partial(both, make=groups, step=plain),
    "a list": partial(both, make=lambda model: list(model.parameters()), step=plain),
    "observe": partial(both, make=module, step=observed, strategy="famo"),
    "independent batches": partial(both, make=module, step=independent, strategy="sdmgrad"),
    "scores": partial(both, make=groups, step=scored, strategy="agm"),
    "state": partial(both, make=module, step=saved, strategy="nash-mtl"),
    "columns": columns,
    "two roots": two_roots,
    "trunk only": trunk_only,
    "overflow": overflow,
    "nonfinite": let_through,
    "large layers": partial(large, compiled=False),
    "compiled layers": partial(large, compiled=True),
    "a faulty micro-batch": faulty_micro_batch,
}


def work(rank):
    return {name: case(rank) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def ran():
    return on_ranks(2, work, limit=90)


@pytest.mark.parametrize("name", CASES)
def test_a_step_in_every_form(ran, name):
    if ran[0][name] is not None:  # else it has looked itself
        check([found[name] for found in ran])
