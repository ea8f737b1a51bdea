"""Recorder: what it keeps, when it inspects, how it stays small, where its numbers go."""

import csv

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.diagnostics import Recorder, tensorboard, to_csv
from tests.support.two_heads import Two, losses_of

GROUP = "left+right"


def losses(model, x):
    return dict(zip(("left", "right"), model(x).pow(2).mean(0), strict=True))


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def trained(recorder, strategy="sum", steps=6, control=False, **settings):
    """A run of a network with two outputs; the Records."""
    model = net()
    surgery = gs.Surgery(strategy, model, **settings)
    records = []
    for _ in range(steps):
        x, other = torch.randn(2, 5, 3)
        more = {"control": lambda y=other: losses(model, y)} if control else {}
        records.append(recorder.backward(surgery, losses(model, x), **more))
    return records


@pytest.mark.parametrize(("strategy", "own"), [("sum", False), ("mgda", True)])
def test_it_inspects_where_the_strategy_forms_no_gradient(monkeypatch, strategy, own):
    from gradsurgery.diagnostics import recorder as module

    calls = []
    monkeypatch.setattr(module, "inspect", lambda *a: calls.append(1) or gs.inspect(*a))
    recorder = Recorder(every=2)
    records = trained(recorder, strategy)
    assert [sample.step for sample in recorder[GROUP]] == [0, 2, 4]
    assert len(calls) == (1 if own else 3)
    for sample, record in zip(recorder[GROUP], records[::2], strict=True):
        group = record[GROUP]
        assert sample.losses.tolist() == list(record.losses.values())
        assert sample.gram.shape == (2, 2)
        np.testing.assert_array_equal(sample.weights, group.weights)
        if own:
            np.testing.assert_array_equal(sample.gram, group.gram)
            np.testing.assert_allclose(sample.cosines, group.cosines)
        d = group.weights @ sample.gram @ group.weights
        assert sample.length == pytest.approx(d**0.5)
    assert all(record[GROUP].gram is None for record in records) is not own


def test_the_training_is_that_without_a_recorder():
    def weights(train):
        torch.manual_seed(1)
        model = Two()
        surgery = gs.Surgery("sum", model)
        for _ in range(3):
            train(surgery, losses_of(model, torch.randn(6, 4)))
        return [p.grad for p in model.parameters()]

    recorder = Recorder(every=1)
    plain = weights(lambda surgery, found: surgery.backward(found))
    kept = weights(lambda surgery, found: recorder.backward(surgery, found))
    assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))
    assert {name: len(samples) for name, samples in recorder.groups.items()} == {"a+b": 3}


@pytest.mark.parametrize("guard", ["report", "correct"])
def test_a_step_is_that_of_the_surgery_and_is_kept(guard):
    def run(recorder, seen):
        torch.manual_seed(2)
        model = net()
        surgery = gs.Surgery("sum", model)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            output = model(torch.randn(5, 3))[:, 0]  # one loss pulls it to -2, the other to 2
            found = {"left": (output + 2).pow(2).mean(), "right": (output - 2).pow(2).mean()}
            if recorder is None:
                seen.append(surgery.step(found, optimizer, guard=guard))
            else:
                seen.append(recorder.step(surgery, found, optimizer, guard=guard))
        return [p.detach() for p in model.parameters()]

    given, plain, kept = {}, [], []
    recorder = Recorder(every=2, sink=lambda step, tags: given.update({step: tags}))
    for one, other in zip(run(None, plain), run(recorder, kept), strict=True):
        assert torch.equal(one, other)
    assert [str(record) for record in kept] == [str(record) for record in plain]
    assert [sample.step for sample in recorder[GROUP]] == [*given] == [0, 2]
    assert all(sample.gram is not None for sample in recorder[GROUP])
    last, tags = kept[2], given[2]
    assert (last[GROUP].corrected is not None) is (guard == "correct")
    expected = {name: value for name, value in last.scalars().items() if "change/" in name}
    assert expected == {name: value for name, value in tags.items() if "change/" in name}
    assert tags.get(f"{GROUP}/corrected") == last[GROUP].corrected


def test_a_step_of_what_was_accumulated_is_kept():
    model, recorder = net(), Recorder(every=1)
    surgery = gs.Surgery("mgda", model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in torch.randn(4, 3).split(2):
        surgery.accumulate(losses(model, batch))
    record = recorder.step(surgery, None, optimizer)
    (sample,) = recorder[GROUP]
    np.testing.assert_array_equal(sample.gram, record[GROUP].gram)
    assert sample.gap == record[GROUP].gap


def test_the_control_is_the_cosine_of_one_loss_on_two_batches():
    recorder = Recorder(every=1)
    model = net()
    x, other = torch.randn(2, 5, 3)
    surgery = gs.Surgery("sum", model)
    recorder.backward(surgery, losses(model, x), control=losses(model, other))
    (sample,) = recorder[GROUP]
    flat = []
    for batch in (x, other):
        for loss in losses(model, batch).values():
            grads = torch.autograd.grad(loss, [*model.parameters()], retain_graph=True)
            flat.append(torch.cat([g.flatten() for g in grads]))
    cosine = torch.nn.functional.cosine_similarity
    for i in range(2):
        assert sample.control[i] == pytest.approx(cosine(flat[i], flat[2 + i], 0).item(), abs=1e-5)
    assert abs(sample.cosines[0, 1]) > 0.01
    assert sample.gram[0, 1] == pytest.approx((flat[0] @ flat[1]).item(), abs=1e-5)
    assert sample.objectives == ("left", "right")


def test_it_thins_itself():
    recorder = Recorder(every=1, keep=8)
    trained(recorder, "mgda", steps=40)
    assert recorder.every == 8
    assert [sample.step for sample in recorder[GROUP]] == [0, 8, 16, 24, 32]
    assert "left+right: 5; every 8" in repr(recorder)


def test_what_is_saved_comes_back_and_goes_on(tmp_path):
    recorder = Recorder(every=2)
    trained(recorder, "sum", steps=5, control=True)
    recorder.add(gs.Record("x", {"left": 1.0}, {}))
    group = gs.GroupRecord(GROUP, ("right", "left"), "graddrop", 2)
    recorder.add(gs.Record("graddrop", {"left": 1.0, "right": 2.0}, {GROUP: group}, step=6))
    path = tmp_path / "run.npz"
    recorder.save(path)
    again = Recorder.load(path)
    assert (again.every, again.keep, again.seen) == (2, 1000, 7)
    assert repr(again.rows()) == repr(recorder.rows())  # with NaN, which is not equal to itself
    assert again[GROUP][-1].gram is None
    assert again[GROUP][-1].weights is None
    assert again[GROUP][-1].losses.tolist() == [2.0, 1.0]
    assert again[GROUP][-1].objectives == ("right", "left")
    again.add(gs.Record("mgda", {"left": 1.0, "right": 2.0}, {GROUP: group}, step=7))
    assert len(again[GROUP]) == len(recorder[GROUP])  # between
    (tmp_path / "other.npz").write_text("nothing")
    with pytest.raises(gs.InputError, match="not a file that Recorder.save wrote"):
        Recorder.load(tmp_path / "other.npz")


def test_numbers_go_to_a_sink_a_table_and_a_frame(tmp_path):
    seen, logged = [], []

    class Writer:
        def add_scalar(self, tag, value, step):
            logged.append((tag, value, step))

    recorder = Recorder(every=2, sink=lambda step, tags: seen.append((step, tags)))
    trained(recorder, "sum", steps=4, control=True)
    assert [step for step, _ in seen] == [0, 2]
    sample = recorder[GROUP][1]
    tags = seen[1][1]
    assert tags["left+right/cosine/left, right"] == sample.cosines[0, 1]
    assert tags["left+right/weight/left"] == 1.0
    assert tags["left+right/control/right"] == sample.control[1]
    assert tags["loss/left"] == sample.losses[0]
    recorder.replay(tensorboard(Writer()))
    assert logged == [(tag, value, step) for step, one in seen for tag, value in one.items()]
    to_csv(recorder, tmp_path / "run.csv")
    with (tmp_path / "run.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "2"]
    assert float(rows[1]["cosine"]) == sample.cosines[0, 1]
    assert float(rows[1]["ratio"]) == pytest.approx(sample.norms[0] / sample.norms[1])
    assert float(rows[1]["length"]) == pytest.approx(float(rows[1]["sum_length"]))
    pytest.importorskip(
        "pandas", reason="frame needs pandas: pip install 'gradsurgery[diagnostics]'"
    )
    assert recorder.frame()["cosine"].tolist() == [row["cosine"] for row in recorder.rows()]


@pytest.mark.parametrize(("options", "message"), [({"every": 0}, "1 or more"), ({"keep": 1}, "2")])
def test_numbers_that_cannot_be_used(options, message):
    with pytest.raises(gs.InputError, match=message):
        Recorder(**options)


def test_an_unknown_group_is_named():
    with pytest.raises(KeyError, match="the groups are none"):
        Recorder()["trunk"]


def test_groups_with_names_keep_them_beside_a_control():
    model = net()
    parts = {"body": model[0], "top": model[2]}
    surgery, recorder = gs.Surgery("sum", parts), Recorder(parts, every=1)
    x, other = torch.randn(2, 5, 3)
    recorder.backward(surgery, losses(model, x), control=losses(model, other))
    assert list(recorder.groups) == ["body", "top"]
    for (sample,) in recorder.groups.values():
        assert sample.gram is not None
        assert np.abs(sample.control).max() < 1
