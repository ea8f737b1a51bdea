"""Surgery.step on gradients of any scale, with duplicates, zeros, and rates of zero."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradsurgery as gs
from gradsurgery.engine.metric import metric_of

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.02),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.02, weight_decay=0.3, amsgrad=True),
    "nadam": lambda groups: torch.optim.NAdam(groups, lr=0.02),
    "radam": lambda groups: torch.optim.RAdam(groups, lr=0.02, betas=(0.9, 0.99)),
    "adamax": lambda groups: torch.optim.Adamax(groups, lr=0.02),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.02, centered=True, momentum=0.5),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.05, lr_decay=0.1),
}


@st.composite
def problems(draw):
    """Rows per step [steps, n, d], where the parameters start, and the rates of both parts."""
    n, d = draw(st.integers(2, 5)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(draw(st.integers(1, 3)), n, d))
    kind = draw(st.sampled_from(["any", "duplicate", "zero", "unseen", "cancel", "stationary"]))
    if kind == "duplicate":
        rows[:, 1] = rows[:, 0]
    elif kind == "zero":
        rows[:, 0] = 0
    elif kind == "unseen":  # a coordinate of which the optimizer knows nothing
        rows[:, :, 0] = 0
    elif kind == "cancel":
        rows[:, 1] = -draw(st.sampled_from([1.0, 3.0, 1e-4])) * rows[:, 0]
    elif kind == "stationary":
        rows[:, 0] = -rows[:, 1:].sum(1)
    rows *= 10.0 ** draw(st.sampled_from([-20, -6, 0, 6, 20]))
    if draw(st.booleans()):
        rows[:, -1] *= 1e-6
    start = draw(st.sampled_from([0.0, 1.0, -30.0]))
    return rows, start, draw(st.sampled_from([None, 0.0, 1e-3]))


def built(problem, name, dtype, strategy):
    rows, start, rate = problem
    half = rows.shape[2] // 2
    parts = [
        nn.Parameter(torch.full((size,), start, dtype=dtype))
        for size in (half, rows.shape[2] - half)
    ]
    first = {"params": parts[:1]} if rate is None else {"params": parts[:1], "lr": rate}
    optimizer = OPTIMIZERS[name]([first, {"params": parts[1:]}])
    return parts, optimizer, gs.Surgery(strategy, parts)


def losses(parts, rows):
    """Of value zero, since their own sizes are of no interest here."""
    sizes = [len(part) for part in parts]
    wide = torch.as_tensor(rows, dtype=parts[0].dtype)
    return [
        sum((g * (p - p.detach())).sum() for g, p in zip(row.split(sizes), parts, strict=True))
        for row in wide
    ]


def flat(parts):
    return torch.cat([part.detach() for part in parts]).double()


def rounding(parts):
    """The distance of neighbouring numbers at each coordinate."""
    where = torch.cat([part.detach() for part in parts])
    return (torch.nextafter(where.abs(), torch.full_like(where, torch.inf)) - where.abs()).double()


def length(step, scale):
    """‖·‖ in P⁻¹, over what moves at all."""
    moves = scale > 0
    largest = step.abs().max().clamp_min(1e-300)  # whose square leaves float64 else
    return float(largest * (step[moves] / largest / scale[moves].sqrt()).norm())


def check(problem, name, dtype, strategy):
    parts, optimizer, surgery = built(problem, name, dtype, strategy)
    for rows in problem[0]:
        given_to = torch.as_tensor(rows, dtype=dtype).double()
        before = flat(parts)
        others, plain, off = copy.deepcopy((parts, optimizer, surgery.state_dict()))
        twin = gs.Surgery(strategy, others)
        twin.load_state_dict(off)
        for o in (optimizer, plain):
            o.zero_grad()
        twin.step(losses(others, rows), plain, guard="off")
        record = surgery.step(losses(parts, rows), optimizer, guard="correct")
        (group,) = record.values()
        wanted, made = flat(others) - before, flat(parts) - before
        relative = 1e-6 if dtype == torch.float32 else 1e-12
        sizes = given_to.norm(dim=1)
        floor = torch.maximum(relative * sizes * made.norm(), given_to.abs() @ rounding(parts))
        assert group.risen == ()
        assert (given_to @ made <= 1.01 * floor).all()
        for p, q in zip(parts, others, strict=True):
            assert torch.equal(p.grad, q.grad)
            for key, value in optimizer.state[p].items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(plain.state[q][key]))
        if (given_to @ wanted <= 0.99 * relative * sizes * wanted.norm()).all():
            assert group.corrected is None
        if group.corrected is None:
            assert torch.equal(made, wanted)
            continue
        if group.corrected == 0:
            assert torch.equal(flat(parts), before)
            continue
        scales = metric_of(optimizer, parts).scales
        scale = torch.cat([torch.as_tensor(scales[id(p)]).double().expand(p.shape) for p in parts])
        alone = group.metric.startswith("identity")
        known = [(scale > 0).double()] if alone else []
        if not alone or name in ("sgd", "momentum", "radam"):
            known.append(scale)
        assert any(
            length(made - wanted, p) <= 1.001 * length(wanted, p) + length(rounding(parts), p)
            for p in known
        )


@given(
    problem=problems(),
    name=st.sampled_from(sorted(OPTIMIZERS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    strategy=st.sampled_from(["sum", "upgrad"]),
)
@settings(max_examples=25, deadline=None)
def test_a_corrected_step_raises_nothing_and_is_near(problem, name, dtype, strategy):
    check(problem, name, dtype, strategy)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:the gradient of objective:UserWarning")
@pytest.mark.parametrize("strategy", ["sum", "mgda"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@given(problem=problems(), dtype=st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=25, deadline=None)
def test_the_same_of_many(name, strategy, problem, dtype):
    check(problem, name, dtype, strategy)
