"""Training loops as people write them, each on a model whose gradients are known by hand: `LOOPS` x every strategy is the table of docs/loops.rst.

A loop takes a strategy and checks `.grad` (or the parameters) itself. `note` says for which strategies it works with a note, `error` for which
it is a clear error, and what that error says.
"""

import contextlib
import copy
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import gradsurgery as gs
from tests.support.shipped import direction, plain, ready

NAMES = ("a", "b", "c")
# everything is a small multiple of a power of two, so that products are exact in half precision too
OUT = torch.tensor([[1.0, 0.5, 0.0], [-0.5, 1.0, 0.25], [0.25, -1.0, 1.0]])
INPUT = torch.tensor(
    [[1.0, 0.5, -0.5, 0.25], [0.5, 1.0, 0.5, -0.25], [1.5, -0.5, 0.25, 0.5], [1.0, 1.0, -0.25, 0.5]]
)
SCORES = {"a+b+c": 2.0, "other": 1.0}
LOSS_BASE = torch.tensor([4.0, 5.0, 6.0])


class Linear(nn.Module):
    """Three losses Lᵢ = baseᵢ + mean over the batch of ⟨oᵢ, Wx + b⟩: dLᵢ/dW = oᵢ x̄ᵀ and dLᵢ/db = oᵢ, whatever W and b are."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        with torch.no_grad():
            self.layer.weight.copy_(
                torch.tensor(
                    [[0.5, -0.25, 0.25, 1.0], [0.25, 0.5, -0.5, 0.5], [-0.5, 0.25, 0.5, -0.25]]
                )
            )
            self.layer.bias.copy_(torch.tensor([0.5, -0.25, 0.25]))
        self.to(dtype)

    def forward(self, x):
        return self.layer(x)

    def losses(self, x=INPUT, share=1.0, hidden=None):
        hidden = self(x.to(self.layer.weight.dtype)) if hidden is None else hidden
        return {
            name: share * base + share * (hidden @ out.to(hidden)).mean()
            for name, out, base in zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
        }


def by_hand(x=INPUT, share=1.0):
    """J [3, 15] in float64, the tensors in the order of the parameters."""
    mean = x.double().mean(0)
    return share * torch.stack(
        [torch.cat([torch.outer(o, mean).reshape(-1), o]) for o in OUT.double()]
    )


def values(losses):
    return [float(loss.detach()) for loss in losses.values()]


def decided(strategy, rows, losses, splits=(12, 3), step=0, **given):
    """The direction by the strategy alone, called on rows."""
    return direction(
        strategy,
        rows,
        losses=losses,
        objectives=NAMES,
        group="a+b+c",
        splits=splits,
        step=step,
        scores=SCORES,
        **given,
    )


def backward(surgery, losses, again=None, **arguments):
    """One step; strategies that take several batches get the same one three times."""
    if "cross" in surgery.strategy.inputs:
        fresh = again or (lambda: losses)
        retained = again is None and not arguments.get("retain_graph")
        return surgery.backward(
            [losses, fresh(), fresh()], **arguments, **({"retain_graph": True} if retained else {})
        )
    return surgery.backward(losses, scores=SCORES, **arguments)


def flat(parameters):
    return torch.cat([p.grad.double().reshape(-1) for p in parameters])


def close(found, expected, tolerance=2e-5):
    expected = expected.double()
    assert torch.isfinite(found).all()
    assert float((found - expected).norm()) <= tolerance * float(expected.norm()) + 1e-12, (
        found,
        expected,
    )


def reference(losses, parameters, scale=1.0):
    """J [n, d] from one torch.autograd.grad per loss, the graph kept."""
    rows = []
    for loss in losses.values():
        found = torch.autograd.grad(
            loss, parameters, torch.full_like(loss, scale), retain_graph=True, allow_unused=True
        )
        rows.append(
            torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).double().reshape(-1)
                    for p, g in zip(parameters, found, strict=True)
                ]
            )
        )
    return torch.stack(rows) / scale


def whole(model, losses, strategy, tolerance=2e-5, **arguments):
    """One step of a model all of whose parameters all losses reach, against the strategy on per-loss gradients of the same graph."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = reference(losses, parameters)
    backward(gs.Surgery(strategy, model), losses, **arguments)
    close(
        flat(parameters),
        decided(strategy, rows, values(losses), tuple(p.numel() for p in parameters)),
        tolerance,
    )


@dataclass(frozen=True)
class Loop:
    """One loop of the table."""

    title: str
    run: Callable[[gs.Strategy], None]
    note: Callable[[gs.Strategy], str | None]
    error: Callable[[gs.Strategy], str | None]

    def outcome(self, name):
        """ "yes", or what the note or the error says."""
        strategy = ready(name, "a")
        if found := self.error(strategy):
            return "error", found
        found = self.note(strategy)
        return ("note", found) if found else ("yes", "")


LOOPS: dict[str, Loop] = {}


def loop(title, note=None, error=None):
    """Register a loop; note and error are a text or a function of the strategy."""

    def always(text):
        return text if callable(text) else lambda strategy: text

    def put(run):
        LOOPS[run.__name__] = Loop(title, run, always(note), always(error))
        return run

    return put


def takes(*inputs):
    """Whether a strategy takes one of these inputs."""
    return lambda strategy: bool(set(inputs) & strategy.inputs)


# ---- precision


@loop("float32")
def float32(strategy):
    model = Linear()
    losses = model.losses()
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("float64")
def float64(strategy):
    model = Linear(torch.float64)
    losses = model.losses()
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)), 1e-9)


def rounding(strategy, half):
    """Weights of losses go through the half precision pass, as those of a weighted sum do; weights of gradients come after it."""
    return half if strategy.acts_on == "losses" else 2e-5


@loop("autocast, bfloat16")
def autocast_bfloat16(strategy):
    model = Linear()
    with torch.autocast("cpu", torch.bfloat16):
        losses = {name: loss.float() for name, loss in model.losses().items()}
    backward(gs.Surgery(strategy, model), losses)
    close(
        flat(model.parameters()),
        decided(strategy, by_hand(), values(losses)),
        rounding(strategy, 1e-2),
    )


@loop("autocast, float16, with a GradScaler")
def autocast_float16(strategy):
    model = Linear()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer, scaler = (
        torch.optim.SGD(model.parameters(), lr=0.5),
        torch.amp.GradScaler("cpu", init_scale=2.0**10),
    )
    with torch.autocast("cpu", torch.float16):
        losses = model.losses()
    assert losses["a"].dtype == torch.float16
    record = backward(gs.Surgery(strategy, model), losses, scaler=scaler)
    assert not record.overflow
    expected = decided(strategy, by_hand(), values(losses))
    close(flat(model.parameters()) / 2**10, expected, rounding(strategy, 1e-3))
    scaler.step(optimizer)
    scaler.update()
    moved = torch.cat(
        [
            (b - p.detach()).double().reshape(-1)
            for b, p in zip(before, model.parameters(), strict=True)
        ]
    )
    close(moved, 0.5 * expected, rounding(strategy, 1e-3))


@loop("an overflow under a GradScaler: the step is skipped and the scale halved")
def overflow(strategy):
    model = Linear()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer, scaler = (
        torch.optim.SGD(model.parameters(), lr=0.5),
        torch.amp.GradScaler("cpu", init_scale=2.0**10),
    )
    surgery = gs.Surgery(strategy, model)

    def step(factor):
        optimizer.zero_grad()
        losses = model.losses()
        losses["b"] = losses["b"] * factor
        record = backward(surgery, losses, scaler=scaler)
        scaler.step(optimizer)
        scaler.update()
        return record

    state = plain(surgery.state_dict())
    assert step(torch.inf).overflow
    assert all(torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))
    assert scaler.get_scale() == 2**9
    assert plain(surgery.state_dict()) == state
    assert not step(1.0).overflow
    moved = torch.cat(
        [
            (b - p.detach()).double().reshape(-1)
            for b, p in zip(before, model.parameters(), strict=True)
        ]
    )
    expected = decided(
        strategy, by_hand(), (LOSS_BASE.double() + reference_values(before)).tolist()
    )
    close(moved, 0.5 * expected, 1e-4)


def reference_values(parameters):
    """What the losses are above their base, by hand."""
    weight, bias = (p.double() for p in parameters)
    return OUT.double() @ (weight @ INPUT.double().mean(0) + bias)


@loop("bfloat16 parameters")
def bfloat16(strategy):
    model = Linear(torch.bfloat16)
    losses = model.losses()
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)), 2e-2)


@loop("parameters of several dtypes")
def mixed_dtypes(strategy):
    model = Linear()
    model.layer.bias = nn.Parameter(model.layer.bias.detach().double())
    hidden = (INPUT @ model.layer.weight.T).double() + model.layer.bias
    losses = model.losses(hidden=hidden)
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


# ---- accumulation and the optimizer's side


@loop("surgery per micro-batch: `.grad` accumulates as in torch")
def per_micro_batch(strategy):
    model = Linear()
    expected = torch.zeros(15, dtype=torch.float64)
    for part in INPUT.split(2):
        losses = model.losses(part, 0.5)
        backward(gs.Surgery(strategy, model), losses)
        expected = expected + decided(strategy, by_hand(part, 0.5), values(losses))
    close(flat(model.parameters()), expected, 1e-4)


def several_batches(strategy):
    return "of several batches" if "cross" in strategy.inputs else None


@loop("accumulate over micro-batches, then combine: the large batch", error=several_batches)
def accumulate(strategy):
    model, large = Linear(), Linear()
    surgery = gs.Surgery(strategy, model)
    for part in INPUT.split(1):
        if "cross" in strategy.inputs:
            surgery.accumulate([model.losses(part, 0.25)] * 3)
        surgery.accumulate(model.losses(part, 0.25))
    surgery.combine(scores=SCORES)
    losses = large.losses()
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))
    backward(gs.Surgery(strategy, large), losses)
    close(flat(model.parameters()), flat(large.parameters()))


@loop("gradient clipping, a scheduler, zero_grad(set_to_none=False)")
def clipping(strategy):
    model = Linear(torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for factor in (0.5, 0.25):
        optimizer.zero_grad(set_to_none=False)
        before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
        losses = model.losses()
        backward(gs.Surgery(strategy, model), losses)
        expected = decided(strategy, by_hand(), values(losses))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert (
            float(norm) == torch.as_tensor(expected.norm()).item()
            or abs(float(norm) / float(expected.norm()) - 1) < 1e-6
        )
        optimizer.step()
        schedule.step()
        moved = before - torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        close(moved, factor * expected * min(1.0, 0.1 / (float(norm) + 1e-6)), 1e-6)


OPTIMIZERS = {
    name: kind
    for name in dir(torch.optim)
    if isinstance(kind := getattr(torch.optim, name), type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind is not torch.optim.Optimizer
}
SPECIAL = {
    "SparseAdam": "sparse gradients only",
    "LBFGS": "a loop of its own",
    "Muon": "matrices only",
}


@loop("every optimizer of torch.optim, with parameter groups")
def optimizers(strategy):
    for name, kind in OPTIMIZERS.items():
        if name in ("SparseAdam", "LBFGS"):
            continue
        mine, theirs = Linear(), Linear()
        if name == "Muon":  # for matrices
            made = [kind([m.layer.weight], lr=0.1) for m in (mine, theirs)]
        else:
            made = [
                kind([{"params": [m.layer.weight]}, {"params": [m.layer.bias], "lr": 0.01}], lr=0.1)
                for m in (mine, theirs)
            ]
        losses = mine.losses()
        backward(gs.Surgery(strategy, mine), losses)
        found = decided(strategy, by_hand(), values(losses)).float()
        theirs.layer.weight.grad, theirs.layer.bias.grad = (
            found[:12].reshape(3, 4),
            found[12:].clone(),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for optimizer in made:
                optimizer.step()
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


@loop(
    "closures (LBFGS)",
    note="the line search sees a value of the losses whose gradient is another one: leave `line_search_fn=None`",
)
def closures(strategy):
    model = Linear(torch.float64)
    before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
    surgery = gs.Surgery(strategy, model)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=1)
    first = values(model.losses())
    calls = []

    def closure():
        optimizer.zero_grad()
        losses = model.losses()
        calls.append(backward(surgery, losses))
        return sum(losses.values())

    optimizer.step(closure)
    assert calls
    expected = decided(strategy, by_hand(), first)
    moved = before - torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    close(
        moved, 0.5 * min(1.0, 1.0 / float(expected.abs().sum())) * expected, 1e-6
    )  # the first step of LBFGS


@loop(
    "every=3: solved once, its weights used twice more",
    error=lambda s: (
        "leave every=1" if takes("rows", "block_grams", "cross", "observed")(s) else None
    ),
)
def every(strategy):
    model = Linear(torch.float64)
    surgery = gs.Surgery(strategy, model, every=3)
    kept = None
    for step, x in enumerate((INPUT, 2 * INPUT, INPUT.flip(1), INPUT)):
        for p in model.parameters():
            p.grad = None
        losses = model.losses(x)
        record = backward(surgery, losses)
        (group,) = record.groups.values()
        assert group.replayed == (step in (1, 2))
        if step == 0:
            close(flat(model.parameters()), decided(strategy, by_hand(x), values(losses)), 1e-9)
            kept = torch.as_tensor(group.weights)
        elif step < 3:
            close(flat(model.parameters()), by_hand(x).T @ kept, 1e-9)
    assert record.step == 3


def not_at_features(strategy):
    state = gs.State()
    if "state" in strategy.inputs and "cross" not in strategy.inputs:
        decided(strategy, by_hand(), LOSS_BASE.tolist(), state=state)
    return "keeps gradients between steps" if state.has_rows else several_batches(strategy)


@loop("weights at the features, one pass through the trunk", error=not_at_features)
def features(strategy):
    trunk, x = nn.Linear(4, 3, dtype=torch.float64), INPUT.double()
    z = trunk(x)
    losses = {
        name: base + (z @ out.double()).mean()
        for name, out, base in zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
    }
    at_features = torch.stack(
        [out.double().repeat(4, 1).reshape(-1) / 4 for out in OUT]
    )  # dLᵢ/dz by hand, [3, 4 * 3]
    backward(gs.Surgery(strategy, trunk), losses, features=z)
    decision = decided(strategy, at_features, values(losses), (12,)).reshape(4, 3)
    close(
        flat(trunk.parameters()), torch.cat([(decision.T @ x).reshape(-1), decision.sum(0)]), 1e-9
    )


# ---- graphs as people write them

_compiled = {}


def compiled(backend, what, fullgraph):
    """A compiled model, or model and losses; one for all strategies, since compiling takes seconds."""
    key = backend, what, fullgraph
    if key not in _compiled:
        model = Linear()
        if what == "model":
            call = torch.compile(model, backend=backend, fullgraph=fullgraph)
            made = lambda: model.losses(hidden=call(INPUT))  # noqa: E731
        else:

            def all_of_it(x):
                hidden = model(x)
                return [
                    base + (hidden @ out).mean()
                    for out, base in ((OUT[0], 4.0), (OUT[1], 5.0), (OUT[2], 6.0))
                ]

            call = torch.compile(all_of_it, backend=backend, fullgraph=fullgraph)
            made = lambda: dict(zip(NAMES, call(INPUT), strict=True))  # noqa: E731
        _compiled[key] = model, made
    return _compiled[key]


def with_compiled(strategy, backend):
    for what in ("model", "model and losses"):
        for fullgraph in (False, True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's compiler about its own parts
                model, made = compiled(backend, what, fullgraph)
                model.zero_grad()
                losses = made()
                backward(gs.Surgery(strategy, model), losses, made)
            close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("torch.compile, aot_eager: the model, and model and losses, also with fullgraph=True")
def compile_aot_eager(strategy):
    with_compiled(strategy, "aot_eager")


@loop("torch.compile, inductor: the same")
def compile_inductor(strategy):
    with_compiled(strategy, "inductor")


@loop("torch.compile of the whole step, `surgery.backward` inside")
def compile_step(strategy):
    model = Linear()
    surgery = gs.Surgery(strategy, model)

    def step(x):
        hidden = model(x)
        losses = {
            name: base + (hidden @ out).mean()
            for name, out, base in (("a", OUT[0], 4.0), ("b", OUT[1], 5.0), ("c", OUT[2], 6.0))
        }
        backward(surgery, losses)
        return losses

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = torch.compile(step, backend="aot_eager")(INPUT)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("activation checkpointing, use_reentrant=False")
def checkpointing(strategy):
    model = Linear()
    losses = model.losses(hidden=checkpoint(model, INPUT, use_reentrant=False))
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand(), values(losses)))


@loop("activation checkpointing, use_reentrant=True", error="use_reentrant=False")
def checkpointing_reentrant(strategy):
    model = Linear()
    losses = model.losses(
        hidden=checkpoint(model, INPUT.clone().requires_grad_(), use_reentrant=True)
    )
    backward(gs.Surgery(strategy, model), losses)


class Net(nn.Module):
    """A body, and three losses of its output."""

    def __init__(self, body, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.body = body()

    def losses(self, x):
        out = self.body(x)
        out = out[0] if isinstance(out, tuple) else out
        return {
            n: base + (out[..., :3] * weights).tanh().mean()
            for n, weights, base in zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
        }


@loop("LSTM")
def lstm(strategy):
    model = Net(lambda: nn.LSTM(4, 5, batch_first=True))
    whole(model, model.losses(INPUT[None].repeat(2, 1, 1)), strategy)


@loop("BatchNorm and dropout: the solve and the update see one mask")
def batch_norm_and_dropout(strategy):
    model = Net(
        lambda: nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 5)
        )
    )
    whole(model, model.losses(INPUT), strategy)
    assert int(model.body[1].num_batches_tracked) == 1  # one forward pass, no more


@loop(
    "a sparse embedding among the parameters given",
    error=lambda s: "sparse" if s.needs_gradients else None,
)
def sparse_embedding(strategy):
    model = Net(lambda: nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Linear(4, 3)))
    table, places = model.body[0].weight, torch.tensor([1, 2, 4])
    losses = model.losses(places)
    model.body[0].sparse = False
    rows = reference(model.losses(places), list(model.parameters()))
    model.body[0].sparse = True
    backward(gs.Surgery(strategy, model), losses)
    table.grad = table.grad.to_dense()
    sizes = tuple(p.numel() for p in model.parameters())
    close(flat(model.parameters()), decided(strategy, rows, values(losses), sizes))


@loop("complex parameters, as pairs of reals")
def complex_parameters(strategy):
    weight = nn.Parameter(torch.tensor([1 + 0.5j, 0.5 - 1j, 0.25 + 0j]))
    parts = zip(NAMES, OUT, LOSS_BASE.tolist(), strict=True)
    losses = {
        name: base + (weight * out).real.sum() + (weight * out.flip(0)).imag.sum()
        for name, out, base in parts
    }
    rows = torch.stack([torch.stack([out, out.flip(0)], 1).reshape(-1) for out in OUT.double()])
    backward(gs.Surgery(strategy, [weight]), losses)
    found = torch.view_as_real(weight.grad).reshape(-1).double()
    close(found, decided(strategy, rows, values(losses), (6,)))


@loop("tied weights")
def tied_weights(strategy):
    model = Net(lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))
    model.body[2].weight = model.body[0].weight
    whole(model, model.losses(INPUT), strategy)


@loop("a module used twice")
def used_twice(strategy):
    model = Net(lambda: nn.Sequential(*[nn.Linear(4, 4), nn.Tanh()]))
    model.body = nn.Sequential(*model.body, *model.body)
    whole(model, model.losses(INPUT), strategy)


@loop("a penalty on the weights as one of the losses")
def penalty(strategy):
    model = Linear(torch.float64)
    losses = model.losses()
    losses["c"] = sum(p.pow(2).sum() for p in model.parameters())
    rows = by_hand()
    rows[2] = 2 * torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, rows, values(losses)), 1e-9)


@loop("frozen and unused parameters")
def frozen_and_unused(strategy):
    model = Linear()
    model.before, model.unused = nn.Linear(4, 4).requires_grad_(False), nn.Linear(2, 2)
    with torch.no_grad():
        model.before.weight.copy_(torch.eye(4))
        model.before.bias.zero_()
    losses = model.losses(model.before(INPUT))
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.layer.parameters()), decided(strategy, by_hand(), values(losses)))
    assert all(p.grad is None for part in (model.before, model.unused) for p in part.parameters())


@loop("a loss that does not require grad", error="does not require grad")
def detached_loss(strategy):
    model = Linear()
    losses = model.losses()
    losses["b"] = losses["b"].detach()
    backward(gs.Surgery(strategy, model), losses)


@loop("the same tensor as two losses")
def one_tensor_twice(strategy):
    model = Linear()
    losses = model.losses()
    losses["c"] = losses["a"]
    backward(gs.Surgery(strategy, model), losses)
    close(flat(model.parameters()), decided(strategy, by_hand()[[0, 1, 0]], values(losses)), 1e-4)


@loop("losses on several devices", error="move them to one device")
def several_devices(strategy):
    model = Linear()
    losses = model.losses()
    losses["b"] = losses["b"].to("meta")
    backward(gs.Surgery(strategy, model), losses)


@loop("create_graph=True", error="not differentiable")
def create_graph(strategy):
    model = Linear()
    backward(gs.Surgery(strategy, model), model.losses(), create_graph=True)


# ---- several at once


@loop("two Surgery objects, one inside a hook of the other")
def nested(strategy):
    outer, inner = Linear(), Linear()
    surgeries = gs.Surgery(strategy, outer), gs.Surgery(strategy, inner)
    seen = []
    outer.layer.bias.register_post_accumulate_grad_hook(
        lambda p: seen.append(backward(surgeries[1], inner.losses()))
    )
    losses = outer.losses()
    backward(surgeries[0], losses)
    assert len(seen) == 1
    expected = decided(strategy, by_hand(), values(losses))
    close(flat(outer.parameters()), expected)
    close(flat(inner.parameters()), expected)


@loop("two threads with a Surgery each")
def threads(strategy):
    found = {}

    def train(which):
        model = Linear(torch.float64)
        surgery = gs.Surgery(copy.deepcopy(strategy), model)
        with contextlib.suppress(gs.GradSurgeryError):
            for _ in range(3):
                model.zero_grad()
                losses = model.losses((1 + which) * INPUT)
                record = backward(surgery, losses)
                found.setdefault(which, []).append(
                    (flat(model.parameters()), values(losses), record.step)
                )

    workers = [threading.Thread(target=train, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for which in range(2):
        assert [step for _, _, step in found[which]] == [0, 1, 2]
        gradient, losses, _ = found[which][0]
        close(gradient, decided(strategy, by_hand((1 + which) * INPUT), losses), 1e-9)
