"""metric="optimizer" on ranks: the weights that one process finds on the joined batch."""

import pytest
import torch
import torch.distributed as dist

import gradsurgery as gs
from tests.engine.parallel.test_fsdp2 import sharded
from tests.support.joined import EXAMPLES, Tasks, part
from tests.support.ranks import launch, on_ranks
from tests.support.sharded import Model, batch

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
    own = part(rank, 2)
    return [trained(*case, own, process_group=dist.group.WORLD) for case in cases]


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


def spread(rank):
    model = sharded(Model(9))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    gs.Surgery("mgda", model).step(model(batch(0)), optimizer, metric="optimizer")


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("function", "said"),
    [
        (differing, "metric='optimizer'"),
        (failing, "'a+b+c'"),  # the other rank sees products with NaN
        (spread, "not for sharded parameters"),
    ],
)
def test_what_cannot_be_is_an_error_on_every_rank(function, said):
    for found in launch(2, function, limit=20):
        assert said in found.said, found
