"""A run watched from outside: flat numbers, plain data, trackers."""

import json
import math
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.diagnostics import Recorder, mean_scalars, tracker
from tests.support.changing import Changing

pytestmark = pytest.mark.quick


def step(strategy="mgda", **settings):
    model = Changing()
    surgery = gs.Surgery(strategy, model, **settings)
    losses = model.losses("abc", torch.randn(5, 3))
    if settings:
        return surgery.backward(losses)
    return surgery.step(losses, torch.optim.SGD(model.parameters(), lr=0.1))


def same(one, two):
    """Whether two Records have the same fields, with NaN equal to NaN."""
    assert (list(one), one.losses, one.step) == (list(two), two.losses, two.step)
    assert (one.overflow, one.method, one.change) == (two.overflow, two.method, two.change)
    for first, second in zip(one.values(), two.values(), strict=True):
        for field in fields(gs.GroupRecord):
            mine, theirs = getattr(first, field.name), getattr(second, field.name)
            assert type(mine) is type(theirs), field.name
            if isinstance(mine, np.ndarray):
                np.testing.assert_array_equal(mine, theirs)
                assert mine.dtype == theirs.dtype == np.float64
            else:
                assert mine == theirs


@pytest.mark.parametrize(
    "strategy", ["mgda", "sum", "uw", "graddrop", "mmpareto(rescale='tensor')"]
)
def test_a_record_goes_through_json_and_back(strategy):
    record = step(strategy)
    again = gs.Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False)))
    same(record, again)
    assert str(again) == str(record)
    assert again.scalars() == record.scalars()
    assert [g.stationary for g in again.values()] == [g.stationary for g in record.values()]


def test_what_is_not_finite_goes_through_strict_json_and_back():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    losses = {"a": weight[0] * math.inf, "b": weight.sum(), "c": -weight[1] * math.inf}
    record = gs.Surgery("sum", [weight], nonfinite="ignore").backward(losses)
    assert record.losses == {"a": math.inf, "b": 3.0, "c": -math.inf}
    text = json.dumps(record.to_dict(), allow_nan=False)
    assert json.loads(text)["losses"] == {"a": "Infinity", "b": 3.0, "c": "-Infinity"}
    same(record, gs.Record.from_dict(json.loads(text)))
    gram = np.array([[np.nan, 1.0], [1.0, np.inf]])
    group = gs.GroupRecord("a+b", ("a", "b"), "mgda", 1, gram, gap=math.nan, risen=("b",))
    record = gs.Record("mgda", {"a": math.nan, "b": -0.0}, {"a+b": group}, change={"a": math.nan})
    again = gs.Record.from_dict(json.loads(json.dumps(record.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again["a+b"].gram, gram)
    assert math.isnan(again["a+b"].gap)
    assert math.isnan(again.losses["a"])
    assert math.copysign(1, again.losses["b"]) == -1
    assert math.isnan(again.change["a"])
    assert again["a+b"].risen == ("b",)
    assert math.isnan(record.scalars()["a+b/sum_length"])


@pytest.mark.parametrize("missing", ["losses", "groups"])
def test_other_data_are_an_error_that_names_what_is_missing(missing):
    data = step().to_dict()
    del data[missing]
    with pytest.raises(gs.InputError, match=f"it has no '{missing}'"):
        gs.Record.from_dict(data)
    data = step().to_dict()
    del data["groups"]["a+b+c"]["objectives"]
    with pytest.raises(gs.InputError, match="misses 'objectives'"):
        gs.Record.from_dict(data)


def test_the_names_of_scalars_are_these():
    record = step()
    pairs = ("a, b", "a, c", "b, c")
    expected = {f"loss/{name}" for name in "abc"} | {f"change/{name}" for name in "abc"}
    kinds = {f"{kind}/{name}" for kind in ("norm", "weight", "change") for name in "abc"}
    kinds |= {f"cosine/{pair}" for pair in pairs}
    kinds |= {"conflicts", "mean_cosine", "length", "sum_length", "gap", "risen"}
    assert record.scalars().keys() == expected | {f"a+b+c/{kind}" for kind in kinds}
    assert all(type(value) is float for value in record.scalars().values())
    group = record["a+b+c"]
    assert record.scalars()["a+b+c/conflicts"] == len(group.conflicts)
    assert record.scalars()["a+b+c/cosine/b, c"] == group.cosines[1, 2]
    direction = group.weights @ group.gram @ group.weights
    assert record.scalars()["a+b+c/length"] == pytest.approx(direction**0.5)


def test_what_is_not_known_is_left_out():
    found = step("sum", measure=2).scalars()
    assert "a+b+c/conflicts" in found  # measured in the first step
    found = step("sum").scalars()
    assert {name for name in found if "conflicts" in name or "norm" in name} == set()
    assert found["a+b+c/weight/a"] == 1.0


def test_a_recorder_gives_the_names_and_numbers_of_scalars():
    given = {}
    record = step()
    Recorder(every=1, sink=lambda step, values: given.update(values)).add(record)
    assert given == pytest.approx(record.scalars(), rel=1e-12)  # the same names, each of them


def test_an_inspection_gives_the_names_that_a_measured_step_has():
    given = {}
    recorder = Recorder(every=1, sink=lambda step, values: given.update(values))
    model = Changing()
    losses = model.losses("abc", torch.randn(5, 3))
    measured = gs.inspect(losses)["a+b+c"]
    recorder.backward(gs.Surgery("sum", model), losses)
    assert given["a+b+c/conflicts"] == len(measured.conflicts)
    assert given["a+b+c/mean_cosine"] == pytest.approx(measured.mean_cosine)
    assert "a+b+c/gap" not in given  # no solver ran


class Wandb:
    """The documented call form of W&B's run and module."""

    def __init__(self):
        self.logged = []

    def log(self, data, step=None, commit=None):
        assert all(isinstance(value, float) for value in data.values())
        self.logged.append((step, data))


class Mlflow:
    """The documented call form of MLflow's module, which refuses other names."""

    def __init__(self):
        self.logged = []

    def log_metrics(self, metrics, step=None, synchronous=None):
        for name in metrics:
            assert re.fullmatch(r"[/\w.\- ]+", name), name
        self.logged.append((step, metrics))


def test_a_tracker_is_called_as_its_documentation_has_it():
    wandb, mlflow = Wandb(), Mlflow()
    recorder = Recorder(every=1, sink=tracker(wandb))
    for _ in range(2):
        recorder.add(step())
    recorder.replay(tracker(mlflow))
    assert [at for at, _ in wandb.logged] == [at for at, _ in mlflow.logged] == [0, 1]
    (_, first), (_, other) = wandb.logged[0], mlflow.logged[0]
    kept = [name for name in first if "change/" not in name and not name.endswith("/risen")]
    assert 0 < len(kept) == len(other)  # what the optimizer's step did is not kept
    assert other["a.b.c/cosine/a-b"] == first["a+b+c/cosine/a, b"]
    assert other["loss/a"] == first["loss/a"]


def test_two_names_that_become_one_are_an_error():
    with pytest.raises(gs.InputError, match=r"'x\+y' and 'x.y' are both 'x.y' to the tracker"):
        tracker(Mlflow())(0, {"x+y": 1.0, "x.y": 2.0})


def test_what_is_no_tracker_is_refused_and_a_function_is_a_sink_already():
    with pytest.raises(gs.InputError, match=r"got object\.$"):
        tracker(object())
    with pytest.raises(gs.InputError, match=r"got function\. .*Recorder\(sink=function\)"):
        tracker(lambda step, values: None)


def test_means_are_over_the_records_that_have_a_number():
    records = [step("sum"), step("sum", measure=1), step("sum")]
    found = mean_scalars(records)
    assert found["a+b+c/conflicts"] == records[1].scalars()["a+b+c/conflicts"]
    assert found["loss/a"] == pytest.approx(np.mean([r.losses["a"] for r in records]))
    assert mean_scalars([]) == {}
