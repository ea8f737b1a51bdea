"""What a group's strategy is given in a step, and what it keeps between steps."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from tests.support.models import TwoEncoders
from tests.support.shipped import plain

pytestmark = pytest.mark.quick


@pytest.mark.usefixtures("temporary")
def test_a_group_strategy_sees_tensor_sizes_and_a_generator_that_follows_the_step():
    seen = []

    @gs.strategy("test-generator", paper="a test", scale="own")
    def look(rows, splits, generator):
        seen.append((splits, torch.rand(3, generator=generator).tolist()))
        return rows.sum(0)

    model = TwoEncoders()
    for _ in range(2):
        surgery = gs.Surgery("test-generator", {"audio": model.audio}, others="ignore", seed=3)
        surgery.backward(model.losses())
        surgery.backward(model.losses())
    assert seen[0][0] == tuple(p.numel() for p in model.audio.parameters())
    assert seen[0] == seen[2] != seen[1] == seen[3]
    assert plain(surgery.state_dict())["step"] == 2


def test_copies_of_a_surgery_without_given_parameters_keep_their_rows():
    import copy
    import pickle

    for name in ("moco", "db-mtl", "excess-mtl"):
        weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

        def losses(w):
            return {"a": (w * w).sum() + 1, "b": (w - 3).pow(2).sum() + 1}

        surgery = gs.Surgery(name)
        for _ in range(3):
            surgery.backward(losses(weight))
        for made in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
            other, copied = made((weight, surgery))
            gradients = []
            for w, s in ((other, copied), (weight, copy.deepcopy((weight, surgery))[1])):
                if w is weight:
                    w, s = copy.deepcopy((weight, surgery))
                w.grad = None
                s.backward(losses(w))
                gradients.append(w.grad)
            assert torch.equal(*gradients)
            twin = gs.Surgery(name)
            twin.load_state_dict(surgery.state_dict())
            weight.grad = None
            twin.backward(losses(weight))
            assert torch.equal(gradients[0], weight.grad)


@pytest.mark.parametrize("name", ["excess-mtl", "gradnorm"])
def test_one_step_without_an_objective_keeps_its_balance(name):
    """Steps without c do not rewrite how much c weighs beside the others."""
    chosen, state, weights = gs.get_strategy(name), gs.State(), []
    for k in range(40):
        names = ("a", "b") if k in (30, 31) else ("a", "b", "c")
        lengths = torch.tensor([1.0, 1.0, 1.0 + 0.05 * k])
        losses = [1.0, 1.0, 1.0 / (1 + 0.1 * k)][: len(names)]
        d = chosen(
            torch.diag(lengths)[: len(names)], losses=losses, objectives=names, state=state
        )  # orthogonal: d has the weights in it
        weights.append((d / lengths).tolist())
    assert max(abs(x - 1) for x in weights[29]) > 0.05  # there is a balance to keep
    assert weights[32] == pytest.approx(weights[29], abs=0.15)


def test_excess_mtl_does_not_depend_on_the_size_of_the_gradients():
    found = []
    for dtype, scale in (
        (torch.float64, 1.0),
        (torch.float32, 1.0),
        (torch.float32, 1e-25),
        (torch.float32, 1e20),
    ):
        state, chosen = gs.State(), gs.get_strategy("excess-mtl")
        for k in range(3):
            rows = torch.tensor([[1.0, 0.0], [0.0, 1 / (k + 1)]], dtype=dtype) * scale
            d = chosen(rows, state=state)
        found.append([float(d[0]) / scale, float(d[1]) / scale])
    assert all(np.allclose(found[0], other, rtol=1e-5) for other in found[1:])


def test_infinities_that_are_let_through_touch_no_state():
    for name in ("moco", "gradnorm", "famo", "dwa", "gls"):
        for protect in (None, "fused"):
            model = TwoEncoders()
            surgery = gs.Surgery(name, model, nonfinite="ignore", protect=protect)
            surgery.backward(model.losses())
            losses = model.losses()
            losses["audio"] = losses["audio"] + float("inf")  # the gradient is finite
            surgery.backward(losses)
            model.zero_grad()
            surgery.backward(model.losses())
            assert all(torch.isfinite(p.grad).all() for p in model.audio.parameters())


def test_numbers_of_other_libraries_are_numbers():
    model = torch.nn.Linear(2, 2)
    for number in (np.float32(0.0), np.int64(0), torch.tensor(0.0)):
        for name, option in (("famo", "minimum"), ("pbi", "ideal"), ("graddrop", "leak")):
            gs.Surgery(name, model, seed=np.int64(3), **{option: number}).backward(
                list(model(torch.ones(2)).pow(2) + 1)
            )
