"""fully_shard: what cannot be right is refused on every rank, and nothing is changed."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.engine.parallel.test_fsdp2 import own, sharded
from tests.support.ranks import launch, on_ranks, said
from tests.support.sharded import STEPS, Model, alone, batch, check, compared, train

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning"),
]


def surgery(strategy="mgda", model=None, **settings):
    return gs.Surgery(strategy, sharded(Model()) if model is None else model, **settings)


def step(strategy="mgda", model=None, change=None, **call):
    model = sharded(Model()) if model is None else model
    made = gs.Surgery(strategy, model)
    if change is not None:
        change(model)
    made.backward(model(batch(0)), **call)


def made_before():
    model = Model()
    made = gs.Surgery("mgda", model, process_group=torch.distributed.group.WORLD)
    sharded(model)
    made.backward(model(batch(0)))


def discovered():
    gs.Surgery("mgda", process_group=None).backward(sharded(Model())(batch(0)))


def with_features():
    model = sharded(Model())
    z = torch.tanh(model.first(batch(0)))
    losses = {"a": model.second(z).sum(), "b": z.pow(2).sum()}
    gs.Surgery("mgda", model).backward(losses, features=z)


def beside():
    """A head that fully_shard was not given."""
    from torch.distributed.fsdp import fully_shard

    model = Model()
    fully_shard(model.first)
    fully_shard(model.second)
    step(model=model)


def unreduced():
    model = sharded(Model())
    made = gs.Surgery("mgda", model)
    model.set_requires_gradient_sync(False)
    model(batch(0))["a"].backward()
    model.set_requires_gradient_sync(True)
    made.backward(model(batch(0)))


def partly_spread(rank):
    from torch.distributed.device_mesh import DeviceMesh

    sub = DeviceMesh("cpu", [rank])
    return surgery(model=sharded(Model(), mesh=sub))


def fsdp1():
    from torch.distributed.fsdp import FullyShardedDataParallel

    gs.Surgery("mgda", FullyShardedDataParallel(Model(), device_id=torch.device("cpu")))


def partial_sum():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial

    mesh = init_device_mesh("cpu", (2,))
    gs.Surgery("sum", [nn.Parameter(DTensor.from_local(torch.ones(3), mesh, [Partial()]))])


REFUSED = {
    "rows": (partial(surgery, "graddrop"), "takes `rows`, whole gradients"),
    "kept rows": (partial(surgery, "moco"), "takes `rows`, whole gradients"),
    "low memory": (partial(surgery, memory="low"), "memory='low': not for sharded"),
    "taps": (partial(surgery, method="taps"), "method='taps': not for sharded"),
    "batched": (partial(surgery, method="batched"), "method='batched': not for sharded"),
    "alone": (partial(surgery, process_group=None), "process_group=None: no process can decide"),
    "one-shot, low": (
        lambda: gs.backward(sharded(m := Model())(batch(0)), m, "mgda", memory="low"),
        "memory='low'",
    ),
    "features": (with_features, "features: not for sharded"),
    "made before": (made_before, "after its Surgery was made"),
    "not given": (discovered, "give the model as parameters="),
    "a head beside": (beside, "that fully_shard does not manage"),
    "not synchronised": (
        partial(step, change=lambda model: model.set_requires_gradient_sync(False)),
        r"set_requires_gradient_sync\(False\)",
    ),
    "not reduced": (unreduced, "that it has not reduced"),
    "fsdp1": (fsdp1, "FSDP1"),
    "a partial sum": (partial_sum, "is a partial sum"),
}


def refusals(rank):
    warnings.simplefilter("ignore")
    found = {name: said(call) for name, (call, _) in REFUSED.items()}
    found["some ranks"] = said(partial(partly_spread, rank))
    record = train(model := sharded(Model()), "mgda", own(rank, 2))
    return found, compared(model, record, alone("mgda"))


@pytest.fixture(scope="module")
def refused():
    return on_ranks(2, refusals, limit=90)


@pytest.mark.parametrize("name", [*REFUSED, "some ranks"])
def test_what_cannot_be_right_is_refused_on_every_rank(refused, name):
    text = {**{n: t for n, (_, t) in REFUSED.items()}, "some ranks": "of 2: the others would"}
    for found, _ in refused:
        kind, message = found[name]
        assert kind == "InputError", (kind, message)
        with pytest.raises(gs.InputError, match=text[name]):
            raise gs.InputError(message)


def test_after_refusals_training_is_as_in_one_process(refused):
    check([result for _, result in refused])


def heads_together(rank):
    """Heads that are gathered together, of which each loss reaches one."""
    from torch.distributed.fsdp import fully_shard

    found = {}
    for memory, reshard in (("auto", True), ("high", True), ("auto", False)):
        model = Model()
        for part in (model.first, model.second, [model.a, model.b]):
            fully_shard(part, reshard_after_forward=reshard)
        fully_shard(model)
        settings = {"memory": memory}
        if memory == "auto" and reshard:
            made = gs.Surgery("mgda", model, **settings)
            grads = [p.grad for p in model.parameters()]
            found["refused"] = said(lambda: made.backward(model(batch(0))))  # noqa: B023
            assert [p.grad for p in model.parameters()] == grads
            continue
        record = train(model, "mgda", own(rank, 2), settings)
        found[memory, reshard] = compared(model, record, alone("mgda"))
    return found


def test_heads_gathered_together_are_right_or_refused():
    ranks = on_ranks(2, heads_together)
    for found in ranks:
        kind, message = found["refused"]
        assert kind == "InputError"
        assert "memory='high'" in message
    check([found["high", True] for found in ranks])
    check([found["auto", False] for found in ranks])


def hooked(rank):
    """Hooks after accumulation fire once per parameter and step, once all is decided."""
    model = sharded(Model(), "trunk")
    fired, grads = [], {}

    def hook(parameter):
        fired.append(id(parameter))
        grads[id(parameter)] = parameter.grad

    handles = [p.register_post_accumulate_grad_hook(hook) for p in model.parameters()]
    made = gs.Surgery("mgda", model)
    counts = []
    for k in range(STEPS):
        model.zero_grad()
        fired.clear()
        made.backward(model(own(rank, 2)(batch(k))))
        counts.append(sorted(fired) == sorted(map(id, model.parameters())))
        assert all(grads[id(p)] is p.grad for p in model.parameters())
    model.zero_grad()
    fired.clear()
    model(own(rank, 2)(batch(0)))["a"].backward()
    counts.append(len(fired) == 6)  # the hooks are there again for a plain pass
    for handle in handles:
        handle.remove()
    return counts


def test_hooks_fire_once_per_step():
    assert on_ranks(2, hooked) == [[True] * (STEPS + 1)] * 2


class OnlyHere(torch.autograd.Function):
    """Raises in backward, on one rank."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if torch.distributed.get_rank() == 1:
            raise ValueError("no backward here")
        return gradient


def one_fails(rank):
    model = sharded(Model(), "trunk")
    made = gs.Surgery("mgda", model)
    z = torch.tanh(model.first(own(rank, 2)(batch(0))))
    losses = {"b": OnlyHere.apply(model.second(z)).sum(), "c": z.pow(2).mean()}
    told = said(lambda: made.backward(losses))
    return told, all(p.grad is None for p in model.parameters()), repr(made)


def test_a_pass_that_fails_on_one_rank_ends_on_all_within_the_timeout():
    first, second = launch(2, one_fails, timeout=3, limit=30)
    (kind, text), untouched, made = second.value
    assert (kind, text) == ("ValueError", "no backward here")
    assert untouched
    assert made.endswith("step=0)")
    assert first.error is not None or first.value[0][0]  # torch's own error: its timeout or a loss
    assert first.seconds < 20
