"""Every form of a step over ranks: settings, micro-batches, features, scalers, odd parameters."""

import copy

import pytest
import torch
from torch import nn

import gradsurgery as gs
from tests.engine.parallel.test_parts import ROWS, compared, steps
from tests.support.joined import SCORES, Encoders, Tasks

pytestmark = pytest.mark.exhaustive


def every(run):
    return steps(run, "mgda", every=3)


def every_without_checks(run):
    return steps(run, "cagrad", every=2, nonfinite="ignore")


def sum_without_checks(run):
    return steps(run, "sum", nonfinite="ignore")


def protected(run):
    return steps(run, "nash-mtl", protect="a")


def protected_sum(run):
    return steps(run, "sum", protect="a")


def protected_rows(run):
    return steps(run, "graddrop", protect="a")


def measured(run):
    return steps(run, "sum", measure=2)


def low_memory(run):
    return steps(run, "mgda", memory="low")


def batched(run):
    return steps(run, "upgrad", method="batched")


def tapped(run):
    return steps(run, "mgda", method="taps")


def least(run):
    return steps(run, "mgda", min_objectives=3, kind=Encoders)


def per_tensor(run):
    return steps(run, gs.get_strategy("mmpareto", rescale="tensor"), kind=Encoders)


def absent(run):
    """Loss b is zero everywhere; in double precision its gradient is read to tell."""

    def losses(run, model, step):
        found = model.double().losses(step, run.rows)
        return {**found, "b": 0 * found["b"]}

    return steps(run, "mgda", losses, zero="absent")


def weighted(run):
    model = Tasks()
    surgery = run.surgery(model, "mgda")
    surgery.backward(
        model.losses(0, run.rows), weights={"a": 2.0, "b": 0.5, "c": 1.0}, count=run.count
    )
    return gradients(run, model)


def explicit(run):
    model = Tasks()
    given = {"first": model.trunk[0], "rest": nn.ModuleList([model.trunk[2], model.heads])}
    surgery = run.surgery(given, "upgrad")
    record = surgery.backward(model.losses(0, run.rows), count=run.count)
    return gradients(run, model, list(record))


def added(run):
    """What is in `.grad` before stays, and is added to."""
    model = Tasks()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    run.surgery(model, "mgda").backward(model.losses(0, run.rows), count=run.count)
    return gradients(run, model)


def accumulated(run, strategy="mgda", scaler=None):
    """Two micro-batches; the second is larger on the second rank, and lacks loss c."""
    model = Tasks()
    surgery = run.surgery(model, strategy)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        for part in (0, 1):
            rows = [row for own in ROWS for row in halves(own)[part]] if run.alone else []
            rows = rows or halves(run.rows)[part]
            losses = {name: loss / 2 for name, loss in model.losses(step, rows).items()}
            if part:
                del losses["c"]
            surgery.accumulate(losses, count=len(rows), scaler=scaler)
        record = surgery.combine()
        optimizer.step()
    return run.found(model, record.losses)


def halves(rows):
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


def accumulated_rows(run):
    return accumulated(run, "trimmed-mean")


def accumulated_and_scaled(run):
    return accumulated(run, scaler=torch.amp.GradScaler("cpu", init_scale=8.0))


def features(run, strategy="mgda"):
    model = Tasks()
    surgery = run.surgery(model, strategy)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        seen = Seen(model.trunk)
        losses = model.losses(step, run.rows)
        record = surgery.backward(losses, features=seen.taken(), count=run.count)
        optimizer.step()
    return run.found(model, record.losses)


def compiled(run):
    """One region for model and losses: every loss gives every parameter a gradient or zeros."""
    model = Encoders()
    surgery = run.surgery(model, "mgda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    @torch.compile(backend="aot_eager", fullgraph=True)
    def losses(x):
        return tuple(out.pow(2).mean() for out in model(x).values())

    for step in range(3):
        optimizer.zero_grad()
        x = torch.randn(12, 7, generator=torch.Generator().manual_seed(step))[run.rows]
        given = dict(zip(model.names, losses(x), strict=True))
        record = surgery.backward(given, count=run.count)
        optimizer.step()
    assert surgery._history.reach["audio.0.weight"] == {"fused", "audio"}
    return run.found(model, record.losses, list(record))


def copied(run):
    """A copy decides over the same group."""
    model = Tasks()
    surgery = run.surgery(model, "moco")
    surgery.backward(model.losses(0, run.rows), count=run.count)
    surgery, model = copy.deepcopy((surgery, model))
    surgery.backward(model.losses(1, run.rows), count=run.count)
    return gradients(run, model)


class Seen:
    """The output of a module's next forward pass."""

    def __init__(self, module):
        self.hook = module.register_forward_hook(self.see)

    def see(self, module, given, out):
        self.out = out

    def taken(self):
        self.hook.remove()
        return self.out


def features_of_losses(run):
    return features(run, "uw")


def observed(run):
    model = Tasks()
    surgery = run.surgery(model, "famo")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(4):
        optimizer.zero_grad()
        surgery.backward(model.losses(step, run.rows), count=run.count)
        optimizer.step()
        surgery.observe({n: loss.item() for n, loss in model.losses(step, run.rows).items()})
    return run.found(model)


def scored(run):
    """The ranks' scores differ, and one has none: the mean counts."""
    model = Encoders()
    rank_scores = [{**SCORES, "audio+fused": 1.0}, None, {**SCORES, "audio+fused": 4.0}]
    counts = [len(ROWS[0]), len(ROWS[2])]
    mean = (counts[0] * 1.0 + counts[1] * 4.0) / sum(counts)
    scores = {**SCORES, "audio+fused": mean} if run.alone else rank_scores[run.rank]
    surgery = run.surgery(model, "ogm-ge")
    surgery.backward(model.losses(0, run.rows), scores=scores, count=run.count)
    return gradients(run, model)


def scaled(run):
    """Under a GradScaler: a step that overflows on one rank is none on all."""
    model = Tasks()
    surgery = run.surgery(model, "mgda")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(4):
        optimizer.zero_grad()
        losses = model.losses(step, run.rows)
        if step == 1 and (run.alone or run.rank == 1):
            losses["b"] = losses["b"] * torch.inf
        surgery.backward(losses, scaler=scaler, count=run.count)
        scaler.step(optimizer)
        scaler.update()
    return run.found(model, scaler.get_scale(), repr(surgery))


def scaled_sum(run):
    """The same where no gradient of a single loss is asked for."""
    model = Tasks()
    surgery = run.surgery(model, "sum")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    losses = model.losses(0, run.rows)
    if run.alone or run.rank == 2:
        model.heads["a"].weight.register_hook(lambda gradient: gradient * torch.inf)
        losses = model.losses(0, run.rows)
    record = surgery.backward(losses, scaler=scaler, count=run.count)
    assert all(torch.isinf(p.grad).all() for p in model.parameters())
    return torch.zeros(1), (record.overflow, repr(surgery))


def odd(run, strategy="mgda", wide=torch.float64):
    """A complex parameter, one in another precision, one without entries, one of another layout."""
    torch.manual_seed(3)
    plain, weight = torch.randn(4, 3).t(), torch.randn(5, 3).to(wide)
    given = {"plain": plain, "waves": torch.randn(3, dtype=torch.complex64), "weight": weight}
    model = nn.ParameterDict({**given, "none": torch.zeros(0), "one": torch.ones(())})
    x = torch.randn(12, 4)[run.rows]
    seen = x @ model["plain"].t() + (x[:, :3] * model["waves"]).abs() + model["one"]
    out = (seen @ model["weight"].float().t()).tanh() + model["none"].sum()
    losses = {"a": out.pow(2).mean(), "b": (out[:, 1:] - 1).abs().mean()}
    run.surgery(model, strategy).backward(losses, count=run.count)
    for parameter in model.values():
        assert parameter.grad.dtype == parameter.dtype
        assert parameter.grad.stride() == parameter.stride()
    flat = [p.grad for p in model.values()]
    flat = [torch.view_as_real(g) if g.is_complex() else g for g in flat]
    return torch.cat([f.reshape(-1).double() for f in flat]), len(losses)


def half(run):
    """In bfloat16 each rank's gradient is rounded, and then their sum."""
    found, more = odd(run, "sum", torch.bfloat16)
    return found * (CLOSE / 2**-7), more


CLOSE = 1e-5


def gradients(run, model, *more):
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()]), more


SETTINGS = [every, every_without_checks, sum_without_checks, protected, protected_sum]
SETTINGS += [protected_rows, measured, low_memory, batched, tapped, least, per_tensor, absent]
CALLS = [weighted, explicit, added, accumulated, accumulated_rows, accumulated_and_scaled]
CALLS += [
    features,
    features_of_losses,
    observed,
    scored,
    scaled,
    scaled_sum,
    odd,
    half,
    compiled,
    copied,
]


@pytest.mark.parametrize("cases", [SETTINGS, CALLS], ids=["settings", "calls"])
def test_every_form_of_a_step(cases):
    compared(cases)
