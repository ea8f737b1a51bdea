"""fully_shard: what a step sends, counted where torch.distributed is called.

A unit is the model, gathered or reduced once. A plain step is 3 units with resharding after the
forward pass (two gathers and a reduction), 2 without. A step with n losses makes n reductions, and
with `memory="high"` no more gathers than a plain step; else one per loss.
"""

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.engine.parallel.test_fsdp2 import own
from tests.support.ranks import on_ranks

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning"),
]

WIDTH = 256
OURS = (torch.int64, torch.float64)  # a model's numbers are in float32, and never so few as a word
COUNTED = ("all_gather", "reduce_scatter", "all_reduce", "all_to_all", "broadcast", "gather")


class Tasks(nn.Module):
    """A trunk that all n losses share, with heads too small to count."""

    def __init__(self, n):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        )
        self.heads = nn.ModuleList(nn.Linear(WIDTH, 1, bias=False) for _ in range(n))

    def forward(self, x):
        z = self.trunk(x)
        return {str(i): head(z).pow(2).mean() for i, head in enumerate(self.heads)}


class Sent:
    """Counts numbers and calls, where the functions of torch.distributed are looked up."""

    def __init__(self):
        self.ours, self.numbers = [], 0
        self.before = {
            name: getattr(torch.distributed, name)
            for name in dir(torch.distributed)
            if name.startswith(COUNTED) and callable(getattr(torch.distributed, name))
        }

    def __enter__(self):
        for name, call in self.before.items():
            setattr(torch.distributed, name, self.counting(name, call))
        return self

    def __exit__(self, *_):
        for name, call in self.before.items():
            setattr(torch.distributed, name, call)

    def counting(self, name, call):
        def counted(*args, **kwargs):
            tensors = [t for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor)]
            size = max((t.numel() for t in tensors), default=0)  # the whole of a gather or scatter
            if size < WIDTH or any(t.dtype in OURS for t in tensors):
                self.ours.append((name, size))
            else:
                self.numbers += size
            return call(*args, **kwargs)

        return counted


def made(n, reshard):
    from torch.distributed.fsdp import fully_shard

    model = Tasks(n)
    for part in model.trunk:
        fully_shard(part, reshard_after_forward=reshard)
    return fully_shard(model, reshard_after_forward=reshard)


def step(rank, n, reshard, memory, strategy, settings):
    """The units and the library's own calls of a third step; memory None is a plain one."""
    model, unit = made(n, reshard), 2 * WIDTH * WIDTH
    surgery = gs.Surgery(strategy, model, memory=memory or "auto", **settings)
    for k in range(3):
        model.zero_grad()
        x = own(rank, 2)(torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(k)))
        with Sent() as sent:
            losses = model(x)
            if memory is None:
                sum(losses.values()).backward()
            else:
                surgery.backward(losses)
    return sent.numbers / unit, sent.ours


CASES = {
    ("plain", n, reshard): (n, reshard, None, "sum", {})
    for n in (2, 4)
    for reshard in (True, False)
}
CASES |= {
    (memory, n, reshard): (n, reshard, memory, "mgda", {})
    for memory in ("auto", "high")
    for n in (2, 4, 8)
    for reshard in (True, False)
}
CASES |= {("sum", n, True): (n, True, "auto", "sum", {}) for n in (2, 4)}
CASES |= {("replayed", 4, True): (4, True, "auto", "mgda", {"every": 3})}


def units(case):
    """What a step sends, in models."""
    kind, n, reshard = case
    if kind == "replayed":  # a pass of the trunk's weights, and one of the heads' sum
        return 2 * 2 + 1
    if kind == "high":
        return n + 2 if reshard else n + 1
    if kind == "auto":
        return 2 * n + 1 if reshard else 2 * n
    return 3 if reshard else 2


def work(rank):
    return {case: step(rank, *given) for case, given in CASES.items()}


@pytest.fixture(scope="module")
def sent():
    return on_ranks(2, work)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_step_sends_its_reductions_and_gathers_and_nothing_large_beside(sent, case):
    for found in sent:
        numbers, _ = found[case]
        assert numbers == pytest.approx(units(case), rel=0.02)


@pytest.mark.parametrize("case", [c for c in CASES if c[0] != "plain"], ids=str)
def test_a_step_exchanges_few_numbers_beside(sent, case):
    """It agrees, sums the numbers of all groups once, and says at the end that all went well."""
    for found in sent:
        _, ours = found[case]
        assert len(ours) == 3
        assert sum(name == "all_reduce" for name, _ in ours) == 1
        assert sum(size for _, size in ours) < 1000
