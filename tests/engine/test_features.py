"""The modes of a step beyond one plain backward: features, every, accumulate, scalers, compiled regions; on models with trunks, encoders and heads."""

import gc
import math
import warnings
import weakref

import pytest
import torch
from models import Tree, TwoEncoders, both, by_loss, grads, same
from torch import nn
from zoo import plain

import gradsurgery as gs
from gradsurgery.solvers import min_norm

F64 = torch.float64


def flat_grads(parameters):
    return torch.cat([p.grad.reshape(-1) for p in parameters])


def close(found, expected, tolerance=1e-9):
    assert float((found - expected).norm()) <= tolerance * float(expected.norm()), (found, expected)


class SharedTrunk(nn.Module):
    """A trunk, and a head for each of three losses."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.heads = nn.ModuleDict({name: nn.Linear(5, 1) for name in "abc"})
        self.double()

    def losses(self, seed=0, z=None):
        torch.manual_seed(seed)
        x, targets = torch.randn(7, 4, dtype=F64), torch.randn(3, 7, 1, dtype=F64)
        z = self.trunk(x) if z is None else z(self.trunk(x))
        return {
            name: (self.heads[name](z.tanh()) - t).pow(2).mean()
            for name, t in zip("abc", targets, strict=True)
        }, z


# ---- features


def test_features_weigh_at_the_features_and_pass_once_through_the_trunk():
    model = SharedTrunk()
    losses, z = model.losses()
    at_z = by_loss(losses, [z])
    heads = {
        name: by_loss({name: losses[name]}, list(model.heads[name].parameters()))[0]
        for name in "abc"
    }
    weights = torch.as_tensor(min_norm((at_z @ at_z.T).numpy()).value)
    trunk = weights @ by_loss(losses, list(model.trunk.parameters()))
    record = gs.backward(losses, model, "mgda", features=z)
    assert torch.allclose(torch.as_tensor(record["a+b+c"].weights), weights)
    close(flat_grads(model.trunk.parameters()), trunk)
    for name in "abc":
        close(flat_grads(model.heads[name].parameters()), heads[name])
    assert set(record) == {"a+b+c", "a", "b", "c"}


def test_features_of_two_encoders_are_two_groups():
    model = TwoEncoders()
    torch.manual_seed(0)
    a, v = (
        model.frozen(model.audio(torch.randn(8, 4, dtype=F64))),
        model.visual(torch.randn(8, 5, dtype=F64)),
    )
    losses = {
        "fused": model.fusion(torch.cat([a, v], 1)).exp().mean(),
        "audio": -2 * model.audio_head(a).exp().mean(),
        "visual": model.visual_head(v).pow(2).mean(),
    }
    expected = {}
    for z, encoder, names in (
        (a, model.audio, ("fused", "audio")),
        (v, model.visual, ("fused", "visual")),
    ):
        own = {n: losses[n] for n in names}
        rows = by_loss(own, [z])
        expected[encoder] = torch.as_tensor(min_norm((rows @ rows.T).numpy()).value) @ by_loss(
            own, list(encoder.parameters())
        )
    record = gs.backward(losses, model, "mgda", features={"a": a, "v": v})
    for encoder, found in expected.items():
        close(flat_grads(encoder.parameters()), found)
    assert {"audio+fused", "fused+visual"} <= set(record)
    assert model.frozen.weight.grad is None


@pytest.mark.parametrize("strategy", ["sum", "uw", "mgda", "graddrop", "cagrad", "mmpareto"])
def test_features_with_any_kind_of_strategy_and_existing_grads(strategy):
    model = SharedTrunk()
    losses, z = model.losses()
    surgery = gs.Surgery(strategy, model)
    surgery.backward(losses, features=[z])
    once = grads(model)
    other = SharedTrunk()
    sum(other.losses()[0].values()).backward()
    held = grads(other)
    losses, z = other.losses()
    gs.Surgery(strategy, other).backward(losses, features=[z])
    assert all(
        torch.allclose(a - b, c, atol=1e-12)
        for a, b, c in ((grads(other)[n], held[n], once[n]) for n in once)
    )


def test_features_leave_what_was_not_given_its_plain_sum():
    model, plainly = SharedTrunk(), SharedTrunk()
    losses, z = model.losses()
    gs.backward(losses, [model.trunk[2].weight], "mgda", features=z)
    sum(plainly.losses()[0].values()).backward()
    for name, parameter in model.named_parameters():
        equal = torch.allclose(parameter.grad, plainly.get_parameter(name).grad)
        assert equal == (name != "trunk.2.weight"), name
    model = SharedTrunk()
    losses, z = model.losses()
    gs.backward(losses, [model.trunk[2].weight], "mgda", features=z, others="ignore")
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "trunk.2.weight"
    ]


def test_features_that_cannot_be_used():
    model = SharedTrunk()
    losses, z = model.losses()
    hidden = model.trunk[0](torch.ones(1, 4, dtype=F64))
    both = model.trunk[2](hidden.tanh())
    twice = {"a": both.sum(), "b": (both * hidden[:, :5]).sum()}
    mixed = {"a": both.sum(), "b": both.sum() + model.trunk[2].weight.sum()}
    for given, features, message in (
        (losses, z.detach(), "no graph behind it"),
        (losses, 3.0, "expected a tensor, or a sequence"),
        (losses, [z, 1.0], r"features\[1\]: expected a tensor"),
        (losses, [], "at least one"),
        (losses, [z, z], "the same tensor"),
        (losses, {"h": hidden}, r"features\['h'\] reaches no loss"),
        (twice, [both, hidden], r"features\[0\] depends on features\[1\]"),
        (mixed, both, "through the features and around them"),
    ):
        with pytest.raises(gs.InputError, match=message):
            gs.backward(given, model, "mgda", features=features, retain_graph=True)
    assert all(p.grad is None for p in model.parameters())


def test_features_keep_the_graph_when_asked_to():
    model = SharedTrunk()
    losses, z = model.losses()
    gs.backward(losses, model, "mgda", features=z, retain_graph=True)
    once = grads(model)
    gs.backward(losses, model, "mgda", features=z)
    assert all(torch.allclose(2 * a, b) for a, b in ((once[n], grads(model)[n]) for n in once))


def test_a_gradient_behind_the_features_that_is_not_finite():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * math.nan

    model = SharedTrunk()
    z = model.trunk[2](Broken.apply(model.trunk[0](torch.ones(2, 4, dtype=F64))))
    losses = {"a": z.sum(), "b": -z.pow(2).sum()}
    with pytest.raises(gs.NonFiniteError, match="behind the features"):
        gs.backward(losses, model, "mgda", features=z)
    assert all(p.grad is None for p in model.parameters())


# ---- every


@pytest.mark.parametrize("strategy", ["mgda", "uw", "cr-mogm(base='mgda')", "cagrad", "random"])
def test_every_replays_each_groups_weights(strategy):
    model = TwoEncoders()
    surgery = gs.Surgery(strategy, model, every=3)
    kept = {}
    for step in range(7):
        model.zero_grad()
        losses = model.losses(step)
        rows = {
            group: by_loss({n: losses[n] for n in group.split("+")}, list(part.parameters()))
            for group, part in (("audio+fused", model.audio), ("fused+visual", model.visual))
        }
        record = surgery.backward({n: losses[n] for n in sorted(losses)})
        for group, part in (("audio+fused", model.audio), ("fused+visual", model.visual)):
            assert record[group].replayed == (step % 3 != 0)
            if step % 3 == 0:
                kept[group] = torch.as_tensor(record[group].weights)
                assert strategy in ("uw", "random") or record[group].gram is not None
            else:
                assert record[group].gram is None
            close(flat_grads(part.parameters()), kept[group] @ rows[group])
        head = by_loss({"fused": model.losses(step)["fused"]}, list(model.fusion.parameters()))[0]
        close(flat_grads(model.fusion.parameters()), head * (record["fused"].weights[0]))
    assert record.step == 6


def test_every_solves_when_a_groups_objectives_change_and_resumes(tmp_path):
    model = Tree()
    surgery = gs.Surgery("mgda", model, every=5)
    replayed = []

    def step(surgery, names, seed):
        losses = model.losses(seed)
        record = surgery.backward({n: losses[n] for n in names})
        return max(g.replayed for g in record.groups.values() if len(g.objectives) > 1)

    for names in ("abcd", "abcd", "abc", "abc", "abcd", "abcd"):
        replayed.append(step(surgery, names, len(replayed)))
    assert replayed == [False, True, False, True, False, True]
    torch.save(surgery.state_dict(), tmp_path / "state.pt")
    resumed = gs.Surgery("mgda", model, every=5)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for seed in range(6):
        model.zero_grad()
        first = step(surgery, "abcd", seed), grads(model)
        model.zero_grad()
        second = step(resumed, "abcd", seed), grads(model)
        assert first[0] == second[0]
        assert same(first[1], second[1])


def test_every_rejects_what_has_no_weights_to_replay():
    for name in ("graddrop", "trimmed-mean", "modo", "mmpareto(rescale='tensor')"):
        with pytest.raises(gs.InputError, match=r"every: strategy .* leave every=1"):
            gs.Surgery(name, every=2)
    for every in (0, -1, 1.5, True, "2"):
        with pytest.raises(gs.InputError, match="every: expected an integer >= 1"):
            gs.Surgery("mgda", every=every)


def test_replayed_steps_look_at_nan_too():
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model, every=2)
    surgery.backward(model.losses())
    before, state = grads(model), plain(surgery.state_dict())
    losses = model.losses(1)
    losses["audio"] = losses["audio"] * math.nan
    with pytest.raises(gs.NonFiniteError, match="'audio'"):
        surgery.backward(losses)
    assert same(grads(model), before)
    assert plain(surgery.state_dict()) == state


@pytest.mark.parametrize("strategy", ["mgda", "uw"])
def test_every_and_features_and_a_scaler_together(strategy):
    model, other = SharedTrunk(), SharedTrunk()
    surgery, plainly = gs.Surgery(strategy, model, every=2), gs.Surgery(strategy, other, every=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for seed in range(3):
        model.zero_grad()
        other.zero_grad()
        losses, z = model.losses(seed)
        record = surgery.backward(losses, features=z, scaler=scaler)
        losses, z = other.losses(seed)
        plainly.backward(losses, features=z)
        assert all(torch.allclose(a, 4 * b, rtol=1e-9) for a, b in both(model, other))
        assert record["a+b+c"].replayed == (seed == 1)


# ---- accumulate and combine


@pytest.mark.parametrize("strategy", ["sum", "mgda", "uw", "graddrop", "moco", "mmpareto"])
def test_micro_batches_equal_their_sum(strategy):
    model, large = TwoEncoders(), TwoEncoders()
    surgery, plainly = gs.Surgery(strategy, model), gs.Surgery(strategy, large)
    for step in range(3):
        model.zero_grad()
        large.zero_grad()
        for part in range(4):
            surgery.accumulate(model.losses(10 * step + part))
            assert all(p.grad is None for p in model.parameters())
        record = surgery.combine()
        parts = [large.losses(10 * step + part) for part in range(4)]
        wanted = plainly.backward({name: sum(part[name] for part in parts) for name in parts[0]})
        assert record.step == step
        assert all(record.losses[n] == pytest.approx(wanted.losses[n]) for n in wanted.losses)
        for a, b in both(model, large):
            assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)


def test_losses_may_be_missing_from_some_micro_batches():
    model, large = Tree(), Tree()
    surgery = gs.Surgery("mgda", model)
    for part, names in enumerate(("ab", "bcd", "a")):
        losses = model.losses(part)
        surgery.accumulate({n: losses[n] for n in names})
    record = surgery.combine()
    parts = [large.losses(part) for part in range(3)]
    sums = {
        n: sum(parts[i][n] for i, names in enumerate(("ab", "bcd", "a")) if n in names)
        for n in "abcd"
    }
    gs.backward(sums, large, "mgda")
    assert all(torch.allclose(a, b, rtol=1e-8) for a, b in both(model, large))
    assert record.objectives == ("a", "b", "c", "d")


def test_what_accumulate_and_combine_refuse_leaves_everything():
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model)
    with pytest.raises(gs.InputError, match="nothing was gathered"):
        surgery.combine()
    surgery.accumulate(model.losses(0), weights={"fused": 1.0, "audio": 2.0, "visual": 1.0})
    with pytest.raises(gs.InputError, match="weight of loss 'audio' was 2.0 and is 1.0"):
        surgery.accumulate(model.losses(1))
    with pytest.raises(gs.InputError, match="the scaler for all micro-batches"):
        surgery.accumulate(
            model.losses(1),
            weights={"fused": 1.0, "audio": 2.0, "visual": 1.0},
            scaler=torch.amp.GradScaler("cpu"),
        )
    bad = model.losses(1)
    bad["visual"] = bad["visual"] * math.nan
    with pytest.raises(gs.NonFiniteError, match=r"loss 'visual' is nan. Nothing was added"):
        surgery.accumulate(bad)
    with pytest.raises(gs.InputError, match="combine"):
        surgery.backward(model.losses(1))
    with pytest.warns(UserWarning, match="not saved"):
        surgery.state_dict()
    surgery.combine()
    other = TwoEncoders()
    gs.Surgery("mgda", other).backward(
        other.losses(0), weights={"fused": 1.0, "audio": 2.0, "visual": 1.0}
    )
    assert same(grads(model), grads(other))
    surgery.accumulate(model.losses(1))
    surgery.discard()
    surgery.backward(model.losses(1))


def test_a_combine_that_fails_can_be_called_again():
    model = TwoEncoders()
    surgery = gs.Surgery(
        "ogm-ge(modality={'audio+fused': 'audio', 'fused+visual': 'visual'})", model
    )
    surgery.accumulate(model.losses(0))
    with pytest.raises(gs.GradSurgeryError, match="scores"):
        surgery.combine()
    assert all(p.grad is None for p in model.parameters())
    surgery.combine(scores={"audio": 2.0, "visual": 1.0})
    assert model.audio[0].weight.grad is not None


def test_gathered_gradients_hold_no_graph_and_are_nobody_elses():
    weight = nn.Parameter(torch.ones(3, dtype=F64))
    surgery = gs.Surgery("sum", [weight])
    shared = torch.ones(3, dtype=F64)

    class Given(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            return w.sum()

        @staticmethod
        def backward(ctx, gradient):
            return shared  # a tensor that somebody keeps

    for _ in range(2):
        loss = Given.apply(weight)
        watched = weakref.ref(loss)
        surgery.accumulate([loss])
        del loss
        gc.collect()
        assert watched() is None
    surgery.combine()
    assert weight.grad.tolist() == [2.0, 2.0, 2.0]
    assert shared.tolist() == [1.0, 1.0, 1.0]


# ---- scalers


@pytest.mark.parametrize(
    "strategy",
    [
        "sum",
        "scaled-sum",
        "mgda",
        "imtl-g",
        "config",
        "nash-mtl",
        "fairgrad",
        "uw",
        "famo",
        "graddrop",
        "moco",
        "db-mtl",
    ],
)
def test_a_scaler_multiplies_and_the_strategy_does_not_see_it(strategy):
    """Strategies that are not homogeneous too, and with an accumulation."""
    model, other, third = TwoEncoders(), TwoEncoders(), TwoEncoders()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    surgery, plainly, gathered = (gs.Surgery(strategy, m) for m in (model, other, third))
    for seed in range(3):
        for m in (model, other, third):
            m.zero_grad()
        record = surgery.backward(model.losses(seed), scaler=scaler)
        wanted = plainly.backward(other.losses(seed))
        gathered.accumulate(third.losses(seed), scaler=scaler)
        gathered.combine()
        assert record.losses == wanted.losses
        for a, b in both(model, other):
            assert torch.allclose(a, 2**12 * b, rtol=1e-7)
        for a, b in both(model, third):
            assert torch.allclose(a, b, rtol=1e-7)
        for group in wanted:
            if wanted[group].gram is not None:
                assert record[group].gram == pytest.approx(wanted[group].gram, rel=1e-9)


@pytest.mark.parametrize("where", ["loss", "one head", "accumulate"])
@pytest.mark.parametrize("strategy", ["sum", "mgda", "uw", "moco", "cagrad", "imtl-g", "nash-mtl"])
def test_an_overflow_anywhere_skips_every_optimizer(strategy, where):
    model = TwoEncoders()
    surgery = gs.Surgery(strategy, model)
    surgery.backward(model.losses(1))
    model.zero_grad()
    state, scaler = plain(surgery.state_dict()), torch.amp.GradScaler("cpu", init_scale=8.0)
    losses = model.losses()
    if where == "one head":
        hidden = model.audio_head(model.audio(torch.ones(2, 4, dtype=F64)).detach())
        losses["audio"] = losses["audio"] + (hidden.sum() - hidden.sum().detach()) * math.inf
    else:
        losses["audio"] = losses["audio"] * math.inf
    if where == "accumulate":
        surgery.accumulate(model.losses(2), scaler=scaler)
        surgery.accumulate(losses, scaler=scaler)
        record = surgery.combine()
    else:
        record = surgery.backward(losses, scaler=scaler)
    assert record.overflow
    assert "overflow" in str(record)
    assert {"audio+fused", "fused+visual"} <= set(record)
    assert (
        record["audio+fused"].gram
        is record["audio+fused"].weights
        is record["audio+fused"].conflicts
        is None
    )
    assert plain(surgery.state_dict()) == state
    optimizers = [
        torch.optim.SGD(part.parameters(), lr=1.0)
        for part in (model.audio, model.visual, model.fusion, model.audio_head, model.visual_head)
    ]
    before = [p.detach().clone() for p in model.parameters()]
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_scaler_that_is_off_is_no_scaler_and_what_is_none_is_said_to_be():
    model, other = TwoEncoders(), TwoEncoders()
    gs.backward(model.losses(), model, "mgda", scaler=torch.amp.GradScaler("cpu", enabled=False))
    gs.backward(other.losses(), other, "mgda")
    assert same(grads(model), grads(other))
    losses = model.losses()
    losses["audio"] = losses["audio"] * math.nan
    with pytest.raises(gs.NonFiniteError):
        gs.backward(losses, model, "mgda", scaler=torch.amp.GradScaler("cpu", enabled=False))
    with pytest.raises(gs.InputError, match=r"expected a torch.amp.GradScaler; got float"):
        gs.backward(model.losses(), model, "mgda", scaler=65536.0)


def test_a_scale_that_changes_between_micro_batches_is_an_error():
    model = TwoEncoders()
    surgery, scaler = gs.Surgery("mgda", model), torch.amp.GradScaler("cpu", init_scale=8.0)
    surgery.accumulate(model.losses(0), scaler=scaler)
    scaler.update(4.0)
    surgery.accumulate(model.losses(1), scaler=scaler)
    with pytest.raises(gs.InputError, match=r"changed between micro-batches \(8, 4\)"):
        surgery.combine()
    assert all(p.grad is None for p in model.parameters())


# ---- compiled regions


@pytest.mark.parametrize("given", ["module", "none", "explicit"])
@pytest.mark.parametrize("strategy", ["sum", "mgda", "uw", "scaled-sum", "dgl(joint='fused')"])
def test_groups_of_a_compiled_multimodal_model(strategy, given):
    """One region for model and losses: every loss gives every parameter a gradient, and still each encoder is a group of its own two losses."""
    models = TwoEncoders(), TwoEncoders()
    x, y = torch.randn(8, 4, dtype=F64), torch.randn(8, 5, dtype=F64)

    def losses(model):
        a, v = model.frozen(model.audio(x)), model.visual(y)
        return (
            model.fusion(torch.cat([a, v], 1)).exp().mean(),
            model.audio_head(a).pow(2).mean(),
            model.visual_head(v).pow(2).mean(),
        )

    def parts(model):
        if given == "explicit":
            return {
                "A": model.audio,
                "V": model.visual,
                "H": nn.ModuleList([model.fusion, model.audio_head, model.visual_head]),
            }
        return model if given == "module" else None

    surgeries = [gs.Surgery(strategy, parts(model)) for model in models]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call = torch.compile(lambda: losses(models[0]), backend="aot_eager", fullgraph=True)
        for _ in range(2):
            for model, made, surgery in zip(
                models, (call, lambda: losses(models[1])), surgeries, strict=True
            ):
                model.zero_grad()
                record = surgery.backward(
                    dict(zip(("fused", "audio", "visual"), made(), strict=True))
                )
                if model is models[0]:
                    first = record
            for (name, a), b in zip(
                models[0].named_parameters(), models[1].parameters(), strict=True
            ):
                assert (a.grad is None and b.grad is None) or torch.allclose(
                    a.grad, b.grad, rtol=1e-9, atol=1e-12
                ), name
            if surgery.strategy.needs_gradients:
                assert set(first) == set(record)


def test_a_gradient_that_is_zero_at_first_joins_the_group_when_it_comes():
    """LoRA's B starts at zero: behind a compiled region A's gradient is then zero from every loss, and nobody is said to reach it."""
    torch.manual_seed(0)
    low, high = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(3, 2))
    x = torch.randn(6, 4)

    def losses():
        out = x @ low.T @ high.T
        return {"a": (out - 1).pow(2).mean(), "b": (out[:, 1:] + 2).pow(2).mean()}

    call = torch.compile(losses, backend="aot_eager", fullgraph=True)
    surgery = gs.Surgery("mgda", [low, high])
    optimizer = torch.optim.SGD([low, high], lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            record = surgery.backward(call())
        assert low.grad is not None
        assert (float(low.grad.abs().max()) == 0) == (step == 0)
        assert record["a+b"].parameters == (1 if step == 0 else 2)
        optimizer.step()


def test_a_region_compiled_for_one_pass_only_says_what_to_do():
    config = pytest.importorskip("torch._functorch.config")
    assert not config.donated_buffer  # set when the package was imported
    model, x = SharedTrunk(), torch.randn(7, 4, dtype=F64)

    def losses_of(x):
        z = model.trunk(x).tanh()
        return model.heads["a"](z).exp().mean(), model.heads["b"](z).pow(2).mean()

    call = torch.compile(losses_of, backend="aot_eager")
    config.donated_buffer = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            losses = dict(zip("ab", call(x), strict=True))
            for allowed in (True, False):  # what counts is how it was compiled
                config.donated_buffer = allowed
                with pytest.raises(
                    gs.InputError, match=r"allows one backward pass only.*donated_buffer = False"
                ):
                    gs.backward(losses, model, "mgda")
                assert all(p.grad is None for p in model.parameters())
            gs.backward(losses, model, "sum")  # one pass
            assert model.trunk[0].weight.grad is not None
    finally:
        config.donated_buffer = False


# ---- what is kept


def test_nothing_of_the_graph_is_kept_after_a_step():
    model = TwoEncoders()
    surgery = gs.Surgery("mgda", model, every=2)
    kept = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            big = x.new_zeros(1000)
            kept.append(weakref.ref(big))
            ctx.save_for_backward(big)
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            assert len(ctx.saved_tensors) == 1
            return gradient

    records = []
    for seed in range(3):
        losses = {name: Watched.apply(loss) for name, loss in model.losses(seed).items()}
        records.append(surgery.backward(losses))
        # what the last pass went through is freed with the call, as torch frees it; what only earlier losses used, with the losses
        assert kept[-1]() is None
        del losses
        assert all(reference() is None for reference in kept)
    gc.collect()
    tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.grad_fn is not None]
    assert not tensors
    assert len(records) == 3
