"""metric="optimizer" on ranks: the weights that one process finds on the joined batch."""

import pytest
import torch
import torch.distributed as dist

import gradsurgery as gs
from gradsurgery.engine.parallel.dtensor import local_of
from tests.engine.parallel.test_fsdp2 import own, sharded
from tests.engine.parallel.test_tensor_parallel import made
from tests.support.joined import EXAMPLES, Tasks, part
from tests.support.ranks import launch, on_ranks
from tests.support.sharded import Model, batch, whole

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = [
    ("mgda", {}),
    ("mgda", {"method": "taps"}),
    ("graddrop", {}),
    ("mgda", {"protect": "a", "zero": "absent"}),
    ("metabalance", {"main": "a"}),
]


def trained(strategy, settings, rows, **group):
    """The parameters after some steps, and where each was solved."""
    model = Tasks(torch.float64)
    options = {k: v for k, v in settings.items() if k == "main"}
    settings = {k: v for k, v in settings.items() if k != "main"}
    surgery = gs.Surgery(gs.get_strategy(strategy, **options), model, **settings, **group)
    optimizer, said, products = torch.optim.Adam(model.parameters(), lr=0.01), [], []
    for step in range(4):
        optimizer.zero_grad()
        losses = model.losses(step, rows)
        own = surgery.step(losses, optimizer, guard="correct", metric="optimizer")["a+b+c"]
        said.append(own.solved_in)
        products.append(torch.as_tensor(own.solved_gram))
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]), products, said


def on_two(rank, cases):
    rows = part(rank, 2)
    return [trained(*case, rows, process_group=dist.group.WORLD) for case in cases]


def compare(cases):
    first, second = on_ranks(2, on_two, cases)
    for case, a, b in zip(cases, first, second, strict=True):
        alone = trained(*case, list(range(EXAMPLES)))
        assert a[2] == b[2] == alone[2] == ["identity", "adam", "adam", "adam"]
        assert torch.equal(a[0], b[0]), case
        torch.testing.assert_close(a[0], alone[0], rtol=1e-7, atol=1e-9)
        for mine, wanted in zip(a[1], alone[1], strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.exhaustive
def test_ranks_solve_what_one_process_solves_on_the_joined_batch():
    compare(CASES)


def differing(rank):
    model = Tasks()
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    metric = "optimizer" if rank else "euclidean"
    surgery.step(model.losses(0, part(rank, 2)), optimizer, metric=metric)


def failing(rank):
    """The state of one rank's optimizer has NaN, which no other can see."""
    model = Tasks()
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(2):
        optimizer.zero_grad()
        surgery.step(model.losses(step, part(rank, 2)), optimizer, metric="optimizer")
        if rank:
            optimizer.state[model.trunk[0].weight]["exp_avg_sq"].fill_(torch.nan)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (differing, "metric='optimizer'"),
        (failing, "'a+b+c'"),  # the other rank sees products with NaN
    ],
)
def test_what_cannot_be_is_an_error_on_every_rank(function, said):
    for found in launch(2, function, limit=20):
        assert said in found.said, found


SPREAD = [(way, s) for way in ("fsdp", "tensor") for s in ("mgda", "upgrad")]


def spread(way, strategy, rank=None):
    """The parameters after some steps of a sharded model, or of a whole one, and its records."""
    model, cut = Model(8 if way == "tensor" else 9), lambda x: x
    if rank is not None and way == "fsdp":
        model, cut = sharded(model), own(rank, 2)
    elif rank is not None:
        model, cut = made("1x2", rank)
    settings = {"process_group": None} if rank is None else {}
    surgery, said, products = gs.Surgery(strategy, model, **settings), [], []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(4):
        optimizer.zero_grad()
        # ranks bound by the mean of their shards' medians, which is not the median of all
        given = {"guard": "correct", "metric": "optimizer", "bound": 1e9}
        record = surgery.step(model(cut(batch(step))), optimizer, **given)
        found = [group for group in record.values() if group.solved_gram is not None]
        said.append([group.solved_in for group in found])
        products.append([torch.as_tensor(group.solved_gram) for group in found])
    return torch.cat([whole(p.detach()).reshape(-1) for p in model.parameters()]), products, said


def shards_on_two(rank):
    return [spread(*case, rank) for case in SPREAD]


@pytest.mark.exhaustive
def test_shards_solve_what_one_process_solves_on_the_joined_batch():
    first, second = on_ranks(2, shards_on_two)
    for case, a, b in zip(SPREAD, first, second, strict=True):
        alone = spread(*case)
        assert len(alone[2][0]) == 2
        assert a[2] == b[2] == alone[2] == [["identity"] * 2, *[["adam"] * 2] * 3]
        torch.testing.assert_close(a[0], alone[0], rtol=1e-4, atol=1e-5)
        for mine, theirs, wanted in zip(a[1], b[1], alone[1], strict=True):
            for x, y, z in zip(mine, theirs, wanted, strict=True):
                assert torch.equal(x, y)
                torch.testing.assert_close(x, z, rtol=2e-3, atol=1e-6)


def broken_shards(rank):
    model = sharded(Model(9))
    surgery = gs.Surgery("mgda", model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(2):
        optimizer.zero_grad()
        surgery.step(model(batch(step).chunk(2)[rank]), optimizer, metric="optimizer")
        if rank:
            local_of(optimizer.state[model.first.weight]["exp_avg_sq"]).fill_(torch.nan)


@pytest.mark.exhaustive
def test_nan_in_the_state_of_one_shard_is_an_error_on_every_rank():
    for found in launch(2, broken_shards, limit=20):
        assert "metric='optimizer': the optimizer's state for group" in found.said, found
