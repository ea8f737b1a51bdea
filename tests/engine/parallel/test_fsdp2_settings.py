"""fully_shard under its own settings and ours: each as one process, or as one that is given the
gradients that FSDP2 reduced.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradsurgery as gs
from tests.engine.parallel.test_fsdp2 import case, own, sharded
from tests.support.ranks import on_ranks
from tests.support.sharded import Model, alone, check, compared, train, whole

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning"),
]


class Checkpointed(Model):
    """Whose second layer is computed again in each backward pass."""

    def forward(self, x):
        z = torch.tanh(self.first(x))
        h = checkpoint(lambda t: torch.tanh(self.second(t)), z, use_reentrant=False)
        return {
            "a": (self.a(h) - x[:, :2]).pow(2).mean(),
            "b": (self.b(h) + x[:, 1:3]).pow(2).mean(),
            "c": (z.mean(1) - 0.1).pow(2).mean(),
        }


class Heads(nn.Module):
    """Two heads in one module, each of its own input: the other's gets zeros past fully_shard."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 1), nn.Linear(5, 1)

    def forward(self, left, right):
        return self.a(left), self.b(right)


class Encoders(nn.Module):
    """Two encoders, each of one loss's own, and a head module that takes both."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.heads = nn.Linear(6, 5), nn.Linear(6, 5), Heads()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))

    def forward(self, x):
        first, second = self.heads(self.left(x).tanh(), self.right(x).tanh())
        return {"a": (first - 1).pow(2).mean(), "b": (second + 1).pow(2).mean()}


def freeze(model):
    model.first.weight.requires_grad_(False)
    model.b.bias.requires_grad_(False)


def frozen(rank, world):
    model = Model()
    freeze(model)
    sharded(model, "trunk")
    record = train(model, "mgda", own(rank, world))
    return compared(model, record, alone("mgda", change=freeze))


def checkpointed(rank, world):
    model = sharded(Checkpointed(), "every", reshard_after_forward=True)
    return compared(model, train(model, "mgda", own(rank, world)), alone("mgda"))


def unused(rank, world):
    """Zeros come for what a loss does not reach; a group is made of those that it does."""
    model = sharded(Model(), "every")
    model.set_reduce_scatter_unused_params(True)
    return compared(model, train(model, "mgda", own(rank, world)), alone("mgda"))


def separate(rank, world):
    """Inputs of one sharded module become one node: zeros tell which loss reaches which."""
    from torch.distributed.fsdp import fully_shard

    model = Encoders()
    for part in (model.left, model.right, model.heads, model):
        fully_shard(part)
    record = train(model, "mgda", own(rank, world))
    plain = Encoders()
    return compared(model, record, (plain, train(plain, "mgda", settings={"process_group": None})))


def twice(surgery, model, x):
    surgery.backward(model(x))
    return surgery.backward(model(x.flip(0)))


def micro_batches(surgery, model, x):
    for half in (x[::2], x[1::2]):
        surgery.accumulate({name: loss / 2 for name, loss in model(half).items()})
    return surgery.combine()


def inspected(surgery, model, x):
    losses = model(x)
    if surgery._config.process_group is None:
        seen = gs.inspect(losses, model, process_group=None)
    else:
        seen = gs.inspect(losses, model)
    record = surgery.backward(losses)
    for name, group in record.items():
        assert abs(seen[name].gram - group.gram).max() <= 1e-6 * abs(group.gram).max()
    return record


def weighted(surgery, model, x):
    return surgery.backward(model(x), weights={"a": 2.0, "b": 0.5, "c": 1.0})


def scaled(surgery, model, x):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    record = surgery.backward(model(x), scaler=scaler)
    for parameter in model.parameters():
        parameter.grad.div_(2.0**10)
    return record


LOOPS = {
    "twice": ({}, twice),
    "accumulate": ({}, micro_batches),
    "inspect": ({}, inspected),
    "weights": ({}, weighted),
    "scaler": ({}, scaled),
    "every": ({"every": 2}, None),
    "protect": ({"protect": "a"}, None),
    "length": ({"length": "sum"}, None),
    "zero": ({"zero": "absent"}, None),
    "high": ({"memory": "high"}, None),
    "others ignored": ({"others": "ignore"}, None),
}


def loop(rank, world, name):
    settings, step = LOOPS[name]
    model = sharded(Model(), "trunk")
    record = train(model, "mgda", own(rank, world), settings, step)
    return compared(model, record, alone("mgda", settings=settings, step=step))


def measured(rank, world):
    settings = {"measure": 2}
    model = sharded(Model(), "every")
    record = train(model, "uw", own(rank, world), settings)
    return compared(model, record, alone("uw", settings=settings))


def reduced(rank, world, strategy, **settings):
    """As one process on the gradients that FSDP2 gives loss by loss, under the same settings.

    For those under which no single process has the same numbers, such as bfloat16.
    """
    model, reference = (sharded(Model(), "trunk", **settings) for _ in range(2))
    plain, part = Model(), own(rank, world)
    record = train(model, strategy, part)

    def from_reference(surgery, plain, x):
        with torch.no_grad():
            for mine, theirs in zip(reference.parameters(), plain.parameters(), strict=True):
                mine.copy_(distribute_tensor(theirs.detach(), mine.device_mesh, mine.placements))
        surrogates = {}
        for name, gradients in reduced_by_loss(reference, x).items():
            pairs = zip(gradients, plain.parameters(), strict=True)
            surrogates[name] = sum((g * p).sum() for g, p in pairs if g is not None)
        return surgery.backward(surrogates)

    from torch.distributed.tensor import distribute_tensor

    alone = {"process_group": None, "others": "ignore"}
    expected = train(plain, strategy, part, alone, from_reference)
    found = compared(model, record, (plain, expected))
    return {**found, "losses": 0.0}  # those of the surrogates mean nothing


def reduced_by_loss(model, x):
    """Per loss the whole gradients that FSDP2's own backward gives."""
    parameters, losses, found = list(model.parameters()), model(x), {}
    for i, (name, loss) in enumerate(losses.items()):
        loss.backward(retain_graph=i < len(losses) - 1)
        found[name] = [None if p.grad is None else whole(p.grad) for p in parameters]
        model.zero_grad()
    return found


def half(rank, world):
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return reduced(rank, world, "mgda", mp_policy=policy)


def half_reduced(rank, world):
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    return reduced(rank, world, "upgrad", mp_policy=policy)


def hybrid(rank, world, strategy="mgda"):
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    return case(rank, world, strategy, "trunk", mesh=mesh)


TWO = {
    **{f"loop: {name}": partial(loop, name=name) for name in LOOPS},
    "measure": measured,
    "frozen": frozen,
    "checkpointing": checkpointed,
    "unused parameters": unused,
    "two inputs": separate,
    "bfloat16": half,
    "bfloat16, reduced in it": half_reduced,
}
FOUR = {
    "mgda": partial(case, strategy="mgda", wrap="trunk"),
    "sum": partial(case, strategy="sum"),
    "hybrid": hybrid,
    "hybrid, sum": partial(hybrid, strategy="sum"),
}
WORLDS = {
    1: {"mgda": FOUR["mgda"]},
    2: TWO,
    3: {name: FOUR[name] for name in ("mgda", "sum")},
    4: FOUR,
}


def work(rank, world):
    return {name: make(rank, world) for name, make in WORLDS[world].items()}


@pytest.fixture(scope="module")
def ran():
    found = {}

    def results(world):
        if world not in found:
            found[world] = on_ranks(world, work, world, limit=90)
        return found[world]

    return results


CASES = [(world, name) for world, cases in WORLDS.items() for name in cases]


@pytest.mark.parametrize(("world", "name"), CASES, ids=lambda x: str(x))
def test_ranks_train_what_one_process_would(ran, world, name):
    check([found[name] for found in ran(world)])
