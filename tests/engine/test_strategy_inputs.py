"""What a step takes beside the losses: several batches, scores, observed losses, a protected objective."""

import numpy as np
import pytest
import torch
from models import Tree, TwoEncoders, grads
from zoo import LEAST, SHIPPED, plain, ready, step

import gradsurgery as gs


def cosine_of(gradient, direction):
    dot = sum(float((a * b).sum()) for a, b in zip(gradient, direction, strict=True))
    size = np.sqrt(
        sum(float((a * a).sum()) for a in gradient) * sum(float((b * b).sum()) for b in direction)
    )
    return dot / size if size else 0.0


# ---- independent batches


def test_cross_grams_are_those_between_the_batches():
    seen = {}

    @gs.strategy("test-cross", paper="a test", scale="own")
    def look(cross, objectives, group):
        seen[group] = (objectives, cross)
        return (
            np.arange(1.0, 7.0).reshape(3, 2) if cross.shape[-1] == 2 else np.ones(cross.shape[1:3])
        )

    try:
        model = TwoEncoders()
        batches = [model.losses(seed) for seed in range(3)]
        batches[1] = dict(reversed(batches[1].items()))  # the order within a batch does not matter
        expected = [
            [
                torch.cat(
                    [
                        g.reshape(-1)
                        for g in torch.autograd.grad(
                            batch[o], model.audio.parameters(), retain_graph=True
                        )
                    ]
                )
                for o in ("fused", "audio")
            ]
            for batch in batches
        ]
        heads = [
            torch.autograd.grad(batch["audio"], model.audio_head.weight, retain_graph=True)[0]
            for batch in batches
        ]
        record = gs.backward(batches, model, "test-cross")
        objectives, cross = seen["audio+fused"]
        assert objectives == ("fused", "audio")
        for a in range(3):
            for b in range(3):
                assert np.allclose(
                    cross[a, b], [[float(x @ y) for y in expected[b]] for x in expected[a]]
                )
        found = torch.cat([p.grad.reshape(-1) for p in model.audio.parameters()])
        assert torch.allclose(
            found,
            sum(
                w * g
                for w, g in zip(range(1, 7), [g for batch in expected for g in batch], strict=True)
            ),
        )
        assert torch.allclose(
            model.audio_head.weight.grad, sum(heads) / 3
        )  # one objective: the mean over the batches
        mean = [sum(batch[i] for batch in expected) / 3 for i in range(2)]
        assert np.allclose(record["audio+fused"].gram, [[float(x @ y) for y in mean] for x in mean])
        assert record.losses["fused"] == pytest.approx(
            np.mean([float(batch["fused"].detach()) for batch in batches])
        )
    finally:
        gs.contract.registry._registry.pop("test-cross")


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_the_definitions_of_modo_and_sdmgrad(name):
    model = Tree()
    surgery = gs.Surgery(name, {"root": model.root}, others="ignore")
    n, weights = 4, np.full(4, 0.25)
    for k in range(3):
        model.zero_grad()
        batches = [model.losses(3 * k + i) for i in range(3)]
        rows = [
            np.stack(
                [
                    torch.cat(
                        [
                            g.reshape(-1)
                            for g in torch.autograd.grad(
                                loss, model.root.parameters(), retain_graph=True
                            )
                        ]
                    ).numpy()
                    for loss in b.values()
                ]
            )
            for b in batches
        ]
        record = surgery.backward(batches)
        between = rows[0] @ rows[1].T
        if name == "modo":
            weights = gs.solvers.project_simplex(
                weights - 1e-3 * (between @ weights + 0.1 * weights)
            )
            expected = weights
        else:
            between = between / np.mean(
                np.linalg.norm(rows[0], axis=1) * np.linalg.norm(rows[1], axis=1)
            )
            velocity = np.zeros(n)
            for _ in range(20):
                velocity = 0.5 * velocity + between @ (weights + 0.3 / n)
                weights = gs.solvers.project_simplex(weights - 10 * velocity)
            expected = (weights + 0.3 / n) / 1.3
        assert record["root"].weights[:2].tolist() == [[0.0] * n] * 2
        assert record["root"].weights[2] == pytest.approx(expected, abs=1e-9)
        found = torch.cat([p.grad.reshape(-1) for p in model.root.parameters()]).numpy()
        assert found == pytest.approx(rows[2].T @ expected, abs=1e-9)


def test_the_form_of_the_losses_has_to_fit():
    model = TwoEncoders()
    with pytest.raises(gs.StrategyError, match=r"takes losses of independent batches.*\[losses_1"):
        gs.Surgery("modo", model).backward(model.losses())
    with pytest.raises(gs.StrategyError, match="one batch, a dict; got a list of 2"):
        gs.backward([model.losses(), model.losses(1)], model, "mgda")
    with pytest.raises(gs.InputError, match="three independent batches"):
        gs.Surgery("modo", model).backward([model.losses(), model.losses(1)])
    with pytest.raises(gs.InputError, match="batch 0 has fused, audio, visual, batch 1 fused"):
        gs.Surgery("modo", model).backward([model.losses(), {"fused": model.losses()["fused"]}])
    assert all(p.grad is None for p in model.parameters())
    assert gs.inspect([model.losses(), model.losses(1)], model)["audio+fused"].gram.shape == (2, 2)


# ---- scores


def test_ogm_ge_slows_the_dominant_encoder_only():
    model = TwoEncoders()
    groups = {"audio": model.audio, "visual": model.visual}
    plain_gradients = {}
    model.losses()["fused"].backward()
    plain_gradients.update(grads(model))
    model.zero_grad()
    surgery = gs.Surgery("ogm-ge", groups, min_objectives=1, noise=False, alpha=0.3)
    record = surgery.backward(
        {"fused": model.losses()["fused"]}, scores={"audio": 3.0, "visual": 1.5}
    )
    assert record["audio"].weights == pytest.approx([1 - np.tanh(0.3 * 2.0)])
    assert record["visual"].weights.tolist() == [1.0]
    found = grads(model)
    for name, gradient in plain_gradients.items():
        if gradient is not None:
            factor = 1 - np.tanh(0.6) if name.startswith("audio.") else 1.0
            assert torch.allclose(found[name], factor * gradient)


def test_ogm_ge_adds_noise_of_each_tensors_own_size():
    model = TwoEncoders(width=40)
    draws = []
    for seed in range(60):
        model.zero_grad()
        surgery = gs.Surgery(
            "ogm-ge", {"audio": model.audio}, min_objectives=1, others="ignore", seed=seed
        )
        surgery.backward({"fused": model.losses()["fused"]}, scores={"audio": 3.0, "visual": 1.5})
        draws.append([p.grad.clone() for p in model.audio.parameters()])
    model.zero_grad()
    gs.Surgery(
        "ogm-ge", {"audio": model.audio}, min_objectives=1, others="ignore", noise=False
    ).backward({"fused": model.losses()["fused"]}, scores={"audio": 3.0, "visual": 1.5})
    for i, parameter in enumerate(model.audio.parameters()):
        stacked = torch.stack([draw[i] for draw in draws])
        assert (stacked - parameter.grad).std() == pytest.approx(
            float(parameter.grad.std()), rel=0.1
        )
        assert (stacked.mean(0) - parameter.grad).abs().max() < 5 * parameter.grad.std() / np.sqrt(
            60
        )


def test_agm_compares_with_its_running_mean():
    model = TwoEncoders()
    surgery = gs.Surgery(
        "agm", {"audio": model.audio, "visual": model.visual}, min_objectives=1, alpha=0.5
    )
    seen = []
    for audio, visual in ((1.0, 1.2), (0.8, 1.3), (0.5, 1.1)):
        record = surgery.backward(
            {"fused": model.losses()["fused"]}, scores={"audio": audio, "visual": visual}
        )
        seen.append(np.exp(visual - audio))
        assert record["audio"].weights == pytest.approx([np.exp(0.5 * (np.mean(seen) - seen[-1]))])
    assert record["visual"].weights[0] > 1  # the modality that lags behind is sped up


def test_dgl_separates_encoders_from_fusion():
    model = TwoEncoders()
    losses = model.losses()
    expected = torch.autograd.grad(losses["audio"], model.audio[0].weight, retain_graph=True)[0]
    fusion = torch.autograd.grad(losses["fused"], model.fusion.weight, retain_graph=True)[0]
    gs.Surgery("dgl", model, joint="fused").backward(losses)
    assert torch.allclose(model.audio[0].weight.grad, expected)
    assert torch.allclose(model.fusion.weight.grad, fusion)


@pytest.mark.parametrize("name", ["ogm-ge", "agm"])
def test_scores_that_cannot_be_used(name):
    model = TwoEncoders()
    surgery = gs.Surgery(
        name, {"audio": model.audio}, min_objectives=1, modality={"audio": "sound"}
    )
    for scores, message in (
        (None, "needs a score per modality"),
        ({"sound": 1.0}, "two or more"),
        ({"sund": 1.0, "visual": 2.0}, "unknown modality 'sound'. Did you mean 'sund'"),
    ):
        with pytest.raises(gs.InputError, match=message):
            surgery.backward(model.losses(), scores=scores)
    assert all(p.grad is None for p in model.parameters())
    surgery.backward(model.losses(), scores={"sound": 1.0, "visual": 2.0})
    gs.Surgery("mgda", model).backward(model.losses(), scores={"audio": 1.0})  # others do not mind


# ---- observed losses


def test_famo_is_its_official_procedure():
    """Written out with torch's own Adam and autograd."""
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 3)
    twin = torch.nn.Linear(3, 3)
    twin.load_state_dict(model.state_dict())
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.025, weight_decay=1e-3)
    surgery = gs.Surgery("famo", model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in (model, twin)]
    for k in range(6):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(k))

        def losses(which, x=x):
            return (which(x).pow(2) + 0.1).mean(0)

        optimizers[0].zero_grad()
        record = surgery.backward(losses(model))
        optimizers[0].step()
        with torch.no_grad():
            surgery.observe(losses(model))

        optimizers[1].zero_grad()
        before = losses(twin)
        shares = torch.softmax(logits, 0).detach()
        above = before.detach().double() + 1e-8
        scale = 1 / (shares / above).sum()
        assert record["0+1+2"].weights == pytest.approx((scale * shares / above).numpy(), rel=1e-5)
        (scale * (shares * torch.log(before.double() + 1e-8)).sum()).backward()
        optimizers[1].step()
        after = losses(twin).detach().double() + 1e-8
        adam.zero_grad()
        logits.grad = torch.autograd.grad(
            torch.softmax(logits, 0), logits, above.log() - after.log()
        )[0]
        adam.step()
        assert torch.allclose(model.weight, twin.weight, rtol=1e-4)
    # without observe the next step's losses serve
    surgery = gs.Surgery("famo", model)
    first = surgery.backward(losses(model))
    second = surgery.backward(2 * losses(model))
    assert first["0+1+2"].weights.tolist() == pytest.approx(
        second["0+1+2"].weights.tolist(), rel=0.05
    )


def test_observed_losses_carry_the_users_weights_and_are_saved():
    model = torch.nn.Linear(2, 2)
    outcomes = []
    for saved in (False, True):
        surgery = gs.Surgery("famo", model)
        surgery.backward(
            dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)),
            weights={"a": 2.0, "b": 1.0},
        )
        surgery.observe({"a": 1.0, "b": 0.5})
        if saved:
            other = gs.Surgery("famo", model)
            other.load_state_dict(surgery.state_dict())
            surgery = other
        record = surgery.backward(
            dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)),
            weights={"a": 2.0, "b": 1.0},
        )
        outcomes.append(record["a+b"].weights.tolist())
    assert outcomes[0] == outcomes[1]
    surgery = gs.Surgery("famo", model)
    with pytest.raises(gs.InputError, match="no step yet"):
        surgery.observe({"a": 1.0})
    surgery.backward(dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)))
    with pytest.raises(gs.InputError, match="unknown loss 'c'"):
        surgery.observe({"c": 1.0})
    with pytest.raises(gs.InputError, match="'b' of the last step's losses are missing"):
        surgery.observe({"a": 1.0})
    for wrong in (5.0, [{"a": 1.0}], {"a": "x", "b": 1.0}):
        with pytest.raises(gs.InputError, match="expected a number for each name"):
            surgery.observe(wrong)
    with pytest.raises(gs.InputError, match="scores: expected a number"):
        surgery.backward(
            dict(zip("ab", model(torch.ones(2)).pow(2) + 1, strict=True)), scores=[1, 2]
        )
    with pytest.raises(gs.InputError, match="loss 'a' is nan"):
        surgery.observe({"a": float("nan")})


# ---- a protected objective

LOUD = {"fused": 1.0, "audio": 20.0, "visual": 20.0}


@pytest.mark.parametrize("name", [n for n in SHIPPED if n not in ("modo", "sdmgrad", *LEAST)])
def test_a_protected_objective_is_never_hurt(name):
    harm = 0
    for seed in range(12):
        model = TwoEncoders(seed)
        surgery = gs.Surgery(ready(name, "audio"), model, protect="fused", seed=seed)
        losses = model.losses(seed)
        for part in (model.audio, model.visual):
            gradient = torch.autograd.grad(losses["fused"], part.parameters(), retain_graph=True)
            probe = TwoEncoders(seed)
            step(
                gs.Surgery(ready(name, "audio"), probe, seed=seed), probe.losses(seed), weights=LOUD
            )
            unprotected = cosine_of(
                gradient,
                [
                    p.grad
                    for p in (probe.audio if part is model.audio else probe.visual).parameters()
                ],
            )
            harm += unprotected < -1e-6
        step(surgery, losses, weights=LOUD)
        for part in (model.audio, model.visual):
            fresh = model.losses(seed)["fused"]
            gradient = torch.autograd.grad(fresh, part.parameters())
            assert cosine_of(gradient, [p.grad for p in part.parameters()]) >= -1e-9
    if name in (
        "sum",
        "mean",
        "random",
        "constant",
        "graddrop",
        "uw",
        "imtl-l",
        "krum",
        "trimmed-mean",
    ):
        assert harm > 0  # there was something to protect from


def test_protection_is_a_projection_and_leaves_other_groups_alone():
    moved_somewhere = 0
    for seed in range(8):
        model, probe = TwoEncoders(seed), TwoEncoders(seed)
        gs.backward(
            model.losses(seed),
            model,
            "sum",
            protect="visual",
            weights={"fused": 50.0, "audio": 1.0, "visual": 1.0},
        )
        gs.backward(
            probe.losses(seed), probe, "sum", weights={"fused": 50.0, "audio": 1.0, "visual": 1.0}
        )
        found, before = grads(model), grads(probe)
        for name, gradient in before.items():
            if gradient is not None and not name.startswith("visual."):
                assert torch.allclose(found[name], gradient, rtol=1e-12)
        names = [n for n in before if n.startswith("visual.")]
        protected = torch.autograd.grad(model.losses(seed)["visual"], model.visual.parameters())
        hurt = cosine_of(protected, [before[n] for n in names])
        if hurt < 0:
            moved_somewhere += 1
            assert cosine_of(protected, [found[n] - before[n] for n in names]) == pytest.approx(1)
            assert cosine_of(protected, [found[n] for n in names]) == pytest.approx(0, abs=1e-9)
        else:
            assert all(torch.allclose(found[n], before[n], rtol=1e-12) for n in names)
    assert moved_somewhere


def test_a_wrong_protect_is_an_error():
    model = TwoEncoders()
    for misspelt in (
        gs.Surgery("sum", model, protect="audi"),
        gs.Surgery("dgl", model, joint="audoi"),
        gs.Surgery("a-gem", model, objective="adio"),
    ):
        with pytest.raises(gs.InputError, match="Did you mean 'audio'"):
            misspelt.backward(model.losses())
    late = gs.Surgery("sum", model, protect="memory")
    with pytest.warns(UserWarning, match="protect: no loss is named 'memory' yet"):
        late.backward(model.losses())
    model.zero_grad()
    late.backward({**model.losses(), "memory": model.losses(1)["fused"]})
    model.zero_grad(set_to_none=True)
    with pytest.raises(gs.InputError, match="expected the name of an objective"):
        gs.Surgery("sum", model, protect=0)
    with pytest.raises(gs.InputError, match="several batches"):
        gs.Surgery("modo", model, protect="audio")
    assert all(p.grad is None for p in model.parameters())
    surgery = gs.Surgery("sum", model, protect="audio")
    surgery.backward(model.losses())
    surgery.backward(
        {"fused": model.losses()["fused"]}
    )  # losses may come and go, the protected one too


def test_a_group_strategy_sees_tensor_sizes_and_a_generator_that_follows_the_step():
    seen = []

    @gs.strategy("test-generator", paper="a test", scale="own")
    def look(rows, splits, generator):
        seen.append((splits, torch.rand(3, generator=generator).tolist()))
        return rows.sum(0)

    try:
        model = TwoEncoders()
        for _ in range(2):
            surgery = gs.Surgery("test-generator", {"audio": model.audio}, others="ignore", seed=3)
            surgery.backward(model.losses())
            surgery.backward(model.losses())
        assert seen[0][0] == tuple(p.numel() for p in model.audio.parameters())
        assert seen[0] == seen[2] != seen[1] == seen[3]
        assert plain(surgery.state_dict())["step"] == 2
    finally:
        gs.contract.registry._registry.pop("test-generator")


def test_a_protected_objective_below_min_objectives():
    weight = torch.nn.Parameter(torch.ones(2))
    gs.Surgery("upgrad", [weight], protect="a", min_objectives=3).backward(
        {"a": weight.sum(), "b": -2 * weight.sum()}
    )
    assert weight.grad.tolist() == [0.0, 0.0]


def test_an_observation_serves_those_it_has_when_a_loss_comes():
    model = torch.nn.Linear(2, 3)

    def losses(names):
        return dict(zip(names, model(torch.ones(2)).pow(2) + 1, strict=False))

    outcomes = []
    for observed in ({"a": 5.0, "b": 0.1}, {"a": 0.1, "b": 5.0}):
        surgery = gs.Surgery("famo", model)
        surgery.backward(losses("ab"))
        surgery.observe(observed)
        outcomes.append(surgery.backward(losses("abc"))["a+b+c"].weights)
    assert not np.allclose(*outcomes)


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
