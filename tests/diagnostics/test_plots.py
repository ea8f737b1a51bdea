"""The pictures of a Recorder have what it kept; a run's mean weights train as they say."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.diagnostics import Recorder, distil, plots
from gradsurgery.diagnostics.samples import Sample

NAMES = ("joint", "uni")


def recorded(control=True, steps=40, weights=True):
    """Samples with a cosine that rises from −0.5 to 0.5 and a ratio of norms of 2."""
    recorder = Recorder()
    kept = recorder.groups["joint+uni"] = []
    for step in range(steps):
        c = -0.5 + step / (steps - 1)
        gram = np.array([[1.0, 2 * c], [2 * c, 4.0]])
        more = {"control": np.array([1.0, -1.0])} if control else {}
        w = np.array([1.0, step / steps]) if weights else None
        kept.append(Sample(step, "joint+uni", NAMES, np.ones(2), gram, w, 3.0, **more))
    return recorder


@pytest.fixture
def axes():
    figure = pytest.importorskip("matplotlib.figure", reason="plots need matplotlib")
    return figure.Figure().subplots()


def lines(axes):
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def test_the_band_of_cosines_rises(axes):
    plots.cosine_band(recorded(), "joint+uni", axes)
    drawn = lines(axes)["joint and uni"]
    assert len(drawn) == 10
    assert drawn[0] < -0.4
    assert drawn[-1] > 0.4
    assert len(axes.collections) == 1


def test_the_conflict_rate_has_its_control(axes):
    plots.conflict_rate(recorded(), "joint+uni", axes)
    drawn = lines(axes)
    assert (drawn["joint and uni"][0], drawn["joint and uni"][-1]) == (100, 0)
    assert set(drawn["two batches of joint"]) == {0}
    assert set(drawn["two batches of uni"]) == {100}


def test_ratios_stand_beside_the_root_of_m(axes):
    plots.norm_ratios(recorded(), "joint+uni", axes, joint="joint", modalities=4)
    drawn = lines(axes)
    assert set(drawn["uni/joint"]) == {2.0}
    assert set(drawn["√M = 2.00"]) == {2.0}
    assert axes.get_yscale() == "log"


def test_what_was_not_measured_is_said(axes):
    plots.weights(recorded(weights=False), "joint+uni", axes)
    assert [text.get_text() for text in axes.texts] == ["not measured"]


def test_all_of_it_in_one_figure(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    figure = plots.plot(recorded(), joint="joint", modalities=2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["joint+uni"] * 5 + ["mean cosine", ""]  # the last is the bar of colours
    image = figure.axes[5].images[0].get_array()
    assert image[0, 0] < -0.4
    assert image[0, -1] > 0.4
    assert lines(figure.axes[4])["‖d‖/‖Σg‖"][0] == pytest.approx(3 / 3**0.5)
    with pytest.raises(gs.InputError, match="no samples"):
        plots.plot(Recorder())


@pytest.mark.exhaustive
def test_the_figure_is_saved(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need matplotlib")
    plots.plot(recorded(), tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_matplotlib_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(gs.MissingExtraError, match=r"pip install 'gradsurgery\[diagnostics\]'"):
        plots.plot(recorded())


def test_distilled_weights_are_means_and_train_as_they_say():
    weights = distil(recorded())
    assert weights == {"joint+uni": {"joint": 1.0, "uni": pytest.approx(19.5 / 40)}}
    later = distil(recorded(), skip=0.5)["joint+uni"]["uni"]
    assert later == pytest.approx(np.mean(np.arange(20, 40)) / 40)
    trunk, head = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1))
    surgery = gs.Surgery("by-group", preference=weights)
    surgery.backward({"joint": trunk.sum(), "uni": (trunk * head).sum()})
    torch.testing.assert_close(trunk.grad, torch.full((2,), 1 + 19.5 / 40))
    assert head.grad.item() == 2.0  # a head keeps its plain gradient
    with pytest.raises(gs.InputError, match="the group 'joint\\+uni'; given: 'x'"):
        gs.get_strategy("by-group", preference={"x": {}}).weights(
            np.eye(2), objectives=NAMES, group="joint+uni"
        )
    with pytest.raises(gs.InputError, match="nothing given for the group 'g'; given: 2"):
        gs.get_strategy("by-group", preference=2).weights(np.eye(2), objectives=NAMES, group="g")


def test_what_cannot_be_distilled_is_said():
    with pytest.raises(gs.InputError, match="no weights"):
        distil(Recorder())
    with pytest.raises(gs.InputError, match="from 0 to below 1"):
        distil(recorded(), skip=1.0)
