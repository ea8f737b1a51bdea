"""What a Record says of conflicts where the strategy needs no gradients."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.engine import step as one_step
from tests.support.models import TwoEncoders, both, grads, same
from tests.support.shipped import SHIPPED, plain, ready, step
from tests.support.three_tasks import F64, Tasks

GRADIENT_FREE = [name for name in SHIPPED if not ready(name, "fused").needs_gradients]


@pytest.mark.parametrize("name", GRADIENT_FREE)
def test_measured_steps_have_conflicts_and_the_same_direction(name):
    plainly, measuring = TwoEncoders(), TwoEncoders()
    first, second = (
        gs.Surgery(ready(name, "fused"), plainly),
        gs.Surgery(ready(name, "fused"), measuring, measure=2),
    )
    for i in range(3):
        expected = gs.inspect(measuring.losses(i), measuring)
        a, b = step(first, plainly.losses(i)), step(second, measuring.losses(i))
        assert all(torch.equal(x, y) for x, y in both(plainly, measuring))
        assert a.losses == b.losses
        assert list(a) == list(b)
        for group in b:
            assert np.array_equal(a[group].weights, b[group].weights)
            if i % 2 == 0:
                assert np.array_equal(b[group].gram, expected[group].gram)
                assert b[group].conflicts == expected[group].conflicts
                assert b[group].stationary is expected[group].stationary
            else:
                assert b[group].gram is a[group].gram is None
        assert ("conflicts not measured" in str(b)) == (i % 2 == 1)
    assert plain(first.state_dict()) == plain(second.state_dict())
    assert pickle.loads(pickle.dumps(b.losses)) == b.losses


def test_nothing_is_measured_unless_asked_for(monkeypatch):
    model = TwoEncoders()
    monkeypatch.setattr(one_step, "with_grams", None)
    record = gs.Surgery("sum", model).backward(model.losses())
    assert record["audio+fused"].conflicts is None
    assert (
        str(record).count("conflicts not measured") == 2
    )  # the two encoders: heads have one objective each
    assert "no conflict" in str(
        gs.backward(
            {"a": model.audio[0].weight.sum(), "b": model.audio[0].weight.sum()}, model, "mgda"
        )
    )


@pytest.mark.parametrize(
    "settings",
    [{"memory": "low"}, {"nonfinite": "ignore"}, {"method": "batched"}, {"method": "taps"}],
    ids=str,
)
@pytest.mark.parametrize("name", ["sum", "mgda"])
def test_measured_with_replays_and_other_settings(name, settings):
    plainly, measuring = TwoEncoders(), TwoEncoders()
    first, second = (
        gs.Surgery(name, plainly, every=3, **settings),
        gs.Surgery(name, measuring, every=3, measure=2, **settings),
    )
    replayed = []
    for i in range(6):
        expected = gs.inspect(measuring.losses(i), measuring)["audio+fused"]
        first.backward(plainly.losses(i))
        group = second.backward(measuring.losses(i))["audio+fused"]
        replayed.append(group.replayed)
        if i % 2 == 0:
            assert np.allclose(group.gram, expected.gram, rtol=1e-10)
        assert all(torch.equal(x, y) for x, y in both(plainly, measuring))
    assert replayed == 2 * [False, True, True]


def test_measured_at_features_under_a_scaler_and_gathered():
    model = Tasks()
    kept = []
    z = lambda z: kept.append(z) or z  # noqa: E731
    record = gs.Surgery("sum", model, measure=1).backward(model.losses(1.0, z=z), features=kept[-1])
    losses = model.losses(1.0, z=z)
    at_z = torch.stack(
        [
            torch.autograd.grad(loss, kept[-1], retain_graph=True)[0].reshape(-1)
            for loss in losses.values()
        ]
    )
    assert np.allclose(record["a+b+c"].gram, (at_z @ at_z.T).numpy())
    expected = gs.inspect(model.losses(1.0), model)["a+b+c"].gram
    surgery = gs.Surgery("uw", model, measure=1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    assert np.allclose(surgery.backward(model.losses(1.0), scaler=scaler)["a+b+c"].gram, expected)
    overflow = surgery.backward(
        {k: v * torch.inf for k, v in model.losses(1.0).items()}, scaler=scaler
    )
    assert overflow.overflow
    assert overflow["a+b+c"].gram is None
    surgery.accumulate(model.losses(1.0))
    assert np.allclose(surgery.combine()["a+b+c"].gram, expected)


@pytest.mark.slow
def test_measured_behind_a_compiled_region_shows_the_groups_of_the_plain_model():
    model = Tasks(torch.float32)
    expected = gs.inspect(model.losses(1.0), model)
    losses = torch.compile(lambda: model.losses(1.0), backend="aot_eager")
    record = gs.Surgery("sum", model, measure=2).backward(losses())
    assert record.strategy == "sum"
    for name, group in expected.items():
        assert np.allclose(record[name].gram, group.gram, rtol=1e-4)
        assert record[name].weights.tolist() == [1.0] * len(group.objectives)


def test_a_failing_step_measures_nothing_and_frees_no_more_than_asked():
    model = Tasks()
    surgery = gs.Surgery("sum", model, measure=1)
    with pytest.raises(gs.NonFiniteError, match="'b'"):
        surgery.backward(model.losses(torch.nan))
    assert all(p.grad is None for p in model.parameters())
    losses = model.losses(1.0)
    surgery.backward(losses, retain_graph=True)
    once = grads(model)
    model.zero_grad()
    surgery.backward(losses)
    assert same(once, grads(model))
    with pytest.raises(gs.InputError, match="retain_graph"):
        surgery.backward(losses)


def test_the_mean_cosine_stands_beside_conflicts():
    weight = nn.Parameter(torch.zeros(2, dtype=F64))
    losses = {"up": weight[0] + weight[1], "down": -weight[0], "side": weight[1] - 0.1 * weight[0]}
    group = gs.inspect(losses, [weight])["down+side+up"]
    cosines = [group.cosines[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
    assert group.mean_cosine == pytest.approx(np.mean(cosines))
    assert f"mean cosine {group.mean_cosine:.3g}, conflicts up/down" in str(
        gs.inspect(losses, [weight])
    )
    assert gs.inspect({"up": weight.sum()}, [weight])["up"].mean_cosine is None
    spoilt = str(gs.inspect({"up": weight.sum(), "nan": torch.nan * weight.sum()}, [weight]))
    assert "no conflict" not in spoilt


def test_a_comparison_prints_the_mean_cosine_beside_the_conflict_rate(tmp_path):
    from rich.console import Console

    from gradsurgery.compare import BASELINE, Plan, compare, remarks, summarise, table
    from gradsurgery.tasks import Problem, task

    x = torch.ones(8, 1)

    def losses(model, batch):
        out = model(batch[0]).mean()
        return {"one": out, "other": -out}

    def load(data_root=None):
        return Problem(
            (x,), (x,), (x,), lambda: nn.Linear(1, 1), lambda p, lr: torch.optim.SGD(p, lr=lr),
            losses, lambda model, examples: {"one": 50.0, "other": 50.0}, 10.0,
        )  # fmt: skip

    task("opposed-for-records", epochs=1, batch=4, lr=0.1, paper="a toy")(load)
    plan = Plan.of(["opposed-for-records"], ["sum"], [0])
    results = compare(plan, tmp_path)
    assert results.runs[0]["mean_cosine"] == pytest.approx({"one+other": -1.0})
    rows = summarise(results.lines, BASELINE)["opposed-for-records"]
    assert rows[0].mean_cosine == pytest.approx(-1.0)
    console = Console(width=100, record=True, file=open(tmp_path / "table", "w"))  # noqa: SIM115
    console.print(table("opposed", rows))
    console.file.close()
    assert "mean cosine" in (text := console.export_text())
    assert "-1.00" in text
    assert any("mean cosine" in note for note in remarks({"opposed": rows}, plan))
    for line in results.lines:
        line.pop("mean_cosine", None)  # results of before
    assert summarise(results.lines, BASELINE)["opposed-for-records"][0].mean_cosine is None
