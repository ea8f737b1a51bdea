"""Taps over ranks: factors of linear layers are exchanged in place of their gradients, exactly."""

import gc
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import gradsurgery as gs
from gradsurgery.gradients.factored import Layer, Tap
from tests.engine.parallel import test_forms as forms
from tests.engine.parallel.test_parts import CLOSE, PARTS, Run
from tests.support.joined import EXAMPLES, Encoders, Tasks, apart, on_world, part, trained
from tests.support.ranks import on_ranks, said
from tests.support.traffic import Traffic

GRAM = ("mgda", "mmpareto", "pcgrad", "upgrad", "imtl-g")


@pytest.mark.parametrize(("world", "count"), [(2, len(GRAM)), (3, 2), (4, 1)])
def test_five_steps_are_those_of_one_process_on_the_joined_batch(world, count):
    for kind in (Tasks, Encoders):
        ranks = on_ranks(world, on_world, kind, GRAM[:count], {"method": "taps"}, limit=60)
        for i, strategy in enumerate(GRAM[:count]):
            one = trained(kind, strategy, list(range(EXAMPLES)), process_group=None)
            assert apart([own[i] for own in ranks], one) < CLOSE, strategy


class Tapped(Run):
    """A part of a batch, or the joined one, with all layers tapped that can be."""

    def surgery(self, model, strategy, **settings):
        return super().surgery(model, strategy, **{"method": "taps", **settings})


def once(run):
    """Without a Surgery, where nothing is compared but what hooks may act on."""
    model = Tasks()
    given = {"process_group": run.group, "count": run.count}
    gs.backward(model.losses(0, run.rows), model, "upgrad", method="taps", **given)
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()]), None


FORMS = (forms.every, forms.measured, forms.protected, forms.per_tensor, forms.absent)
FORMS += (forms.weighted, forms.explicit, forms.accumulated, forms.scaled, forms.half)
CASES = (*PARTS, *FORMS, once)


def all_tapped(rank):
    return [case(Tapped(rank)) for case in CASES]


def test_parts_of_a_batch_and_forms_of_a_step():
    ranks = on_ranks(3, all_tapped, limit=60)
    for i, case in enumerate(CASES):
        expected, _ = case(Run())
        for own in ranks:
            assert torch.equal(own[i][0], ranks[0][i][0]), case
            assert own[i][1] == ranks[0][i][1], case
        assert (ranks[0][i][0] - expected).abs().max() < CLOSE, case


def under_ddp(rank):
    rows, found = part(rank, dist.get_world_size()), []
    for unused in (False, True):
        wrapped = partial(DistributedDataParallel, find_unused_parameters=unused)
        with Traffic() as traffic:
            found.append(trained(Encoders, "mgda", rows, forward=wrapped, method="taps"))
        assert traffic.names.count("all_gather_single") > 5 * 2  # more than five steps without taps
    return found


@pytest.mark.filterwarnings("ignore")
def test_layers_of_a_model_under_ddp():
    ranks = on_ranks(2, under_ddp, limit=60)
    one = trained(Encoders, "mgda", list(range(EXAMPLES)), process_group=None)
    for own in zip(*ranks, strict=True):
        assert apart(own, one) < CLOSE


class Hooked(nn.Module):
    """Two layers and three heads; `hook` acts on the transpose of the middle weight, unlisted."""

    def __init__(self, hook=None, listed=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(6, 8), nn.Linear(8, 8)
        self.heads = nn.ModuleDict({name: nn.Linear(8, 1) for name in "abc"})
        self.hook = hook
        if listed is not None:
            self.middle.weight.register_hook(listed)

    def losses(self, seed, names="abc"):
        x = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
        h = self.first(x).tanh().detach()  # torch then saves no transposed weight, nor its hooks
        transposed = self.middle.weight.t()
        if self.hook is not None:
            transposed.register_hook(self.hook)
        z = torch.addmm(self.middle.bias, h, transposed).tanh() + self.first(x)
        return {n: (self.heads[n](z) - i).pow(2).mean() for i, n in enumerate(names)}


class Second:
    """A hook that cuts a gradient the second time that it is called in a step."""

    def __init__(self):
        self.calls = 0

    def __call__(self, gradient):
        self.calls += 1
        return gradient / 10 if self.calls == 2 else gradient


def tenth(gradient):
    return gradient / 10


def with_hooks(rank, method):
    """Per kind of hook, which one rank alone has: what it leaves, and what is exchanged when."""
    found = []
    for hook, listed in ((None, None), (tenth, None), (Second, None), (None, tenth)):
        hook = hook() if hook is Second and rank else hook if rank else None
        model = Hooked(hook, listed if rank else None)
        surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD, method=method)
        sizes, names = [], []
        for step in range(3):
            model.zero_grad()
            losses = model.losses(10 * step + rank)
            if isinstance(hook, Second):
                hook.calls = 0
            with Traffic() as traffic:
                surgery.backward(losses)
            names.append(traffic.names)
            sizes.append(sorted(surgery._communicator._weights))
        found.append((torch.cat([p.grad.flatten() for p in model.parameters()]), sizes, names))
    return found


def test_a_hook_on_one_rank_keeps_all_from_tapping_its_layer():
    ranks, plain = (on_ranks(2, with_hooks, method) for method in ("taps", "gradients"))
    both, first = ["first.weight", "middle.weight"], ["first.weight"]
    taps = [[both] * 3, [first] * 3, [first] * 3, [first] * 3]
    for i, expected in enumerate(taps):
        assert torch.equal(ranks[0][i][0], ranks[1][i][0])
        torch.testing.assert_close(ranks[0][i][0], plain[0][i][0], rtol=1e-5, atol=1e-6)
        assert [own[i][1] for own in ranks] == [expected] * 2
        assert ranks[0][i][2] == ranks[1][i][2]
    # n = 3: agree, the inputs, two per pass, the sums, the directions; 3 more to send it after all
    counts = [[len(names) for names in own[2]] for own in ranks[0]]
    assert counts == [[10, 10, 10], [13, 10, 10], [13, 10, 10], [11, 11, 11]]


def late(rank):
    """A hook that shows in the last pass, when the graph is gone; then one that raises."""
    found = []

    def raises(gradient):
        raise KeyError("no more")

    for hook in (Second(), raises):
        model = Hooked()
        surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD, method="taps")
        model.hook = hook if rank else None
        found.append(said(partial(surgery.backward, model.losses(rank, "ab"))))
        found.append(all(p.grad is None for p in model.parameters()))
        model.hook = None
        surgery.backward(model.losses(rank))
        found.append(model.middle.weight.grad.sum().item())
    return found


def test_what_goes_wrong_on_one_rank_is_an_error_on_all():
    first, second = on_ranks(2, late)
    for i, text in ((0, "in another way for each loss"), (3, "no more")):
        assert text in second[i][1]
        assert first[i][1].startswith("rank 1: ")
        assert text in first[i][1]
        assert first[i + 1] == second[i + 1] == True  # noqa: E712
        assert first[i + 2] == second[i + 2]


def held_after(rank):
    """How many layers are held on to after steps that solve or do not, and after a failed one."""
    gc.freeze()  # what was there before is none of the steps'
    model, found = Tasks(), []
    group = dist.group.WORLD
    surgery = gs.Surgery("mgda", model, process_group=group, method="taps", every=2)
    for step in range(4):
        losses = model.losses(step, [0, 1, 2])
        if step == 3:
            losses["a"] = losses["a"] * float("nan" if rank else 1)
        kind, _ = said(partial(surgery.backward, losses))
        del losses
        gc.collect()
        held = [each for each in gc.get_objects() if issubclass(type(each), Layer | Tap)]
        found.append((kind, len(held)))
        del held
    return found


def test_nothing_of_a_layer_is_held_on_to_after_a_step():
    for found in on_ranks(2, held_after):
        assert found == [("", 0)] * 3 + [("NonFiniteError", 0)]


def not_finite(rank):
    """NaN at a layer's output, and infinity in its input where nothing comes back."""
    model = Tasks()
    surgery = gs.Surgery("mgda", model, process_group=dist.group.WORLD, method="taps")
    found = []
    for spoilt in ("output", "input"):
        x = torch.ones(4, 4)
        if spoilt == "input" and rank == 1:
            x[0] = float("inf")
        hidden = model.trunk[0](x)
        if spoilt == "output" and rank == 1:
            hidden.register_hook(lambda g: g * float("nan"))
        kept = torch.where(torch.isfinite(x).all(1, keepdim=True), hidden, 0.0)
        z = model.trunk[2](kept.tanh())
        losses = {name: (head(z) - 1).pow(2).mean() for name, head in model.heads.items()}
        found.append(said(partial(surgery.backward, losses)))
    return found


def test_the_rank_is_named_that_nan_comes_from():
    first, second = on_ranks(2, not_finite)
    assert first == second
    for kind, text in first:
        assert kind == "NonFiniteError"
        assert text.startswith("rank 1: the gradient has NaN or inf")
