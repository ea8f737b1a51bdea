"""yeast: fourteen labels on one trunk, areas under the curve, splits that have all classes."""

import gzip
from importlib import metadata

import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare import Plan
from gradsurgery.compare.checking import check_task
from gradsurgery.tasks import get_task
from gradsurgery.tasks.splits import standardised
from gradsurgery.tasks.yeast import LABELS, auc, load_genes, split_genes
from tests.support.tasks import apart, batch_of, learned, loaded


def test_splits_share_no_gene_and_all_have_each_class():
    loaded("yeast")
    data = split_genes(None, 2)
    sizes = [len(part[0]) for part in (data.train, data.validation, data.test)]
    assert sizes == pytest.approx([1208, 314, 894], abs=4)
    assert sum(sizes) == 2417
    apart(data)
    for _, classes in (data.train, data.validation, data.test):
        assert (classes.sum(0) >= 4).all()
        assert (classes.mean(0) < 1).all()


def test_a_seed_changes_the_split_and_not_the_test_genes():
    loaded("yeast")
    first, same, other = (split_genes(None, seed) for seed in (0, 0, 1))
    assert torch.equal(first.train[0], same.train[0])
    assert not torch.equal(first.train[1], other.train[1])
    assert torch.equal(first.test[1], other.test[1])
    everything = torch.arange(len(first.test[0]))
    ready = [standardised(part[0], everything) for part in (first.test, other.test)]
    assert torch.allclose(*ready, atol=1e-3)


def test_the_genes_are_those_of_the_literature():
    """2,417 genes, 4.237 labels on average, 198 distinct sets of labels; the rarest has 34."""
    loaded("yeast")
    genes, classes = load_genes()
    assert genes.shape == (2417, 103)
    assert classes.sum(1).mean().item() == pytest.approx(4.237, abs=5e-4)
    assert len(classes.unique(dim=0)) == 198
    assert classes.sum(0).min() == 34
    assert genes[0, :3].tolist() == pytest.approx([0.004168, -0.170975, -0.156748])


def test_all_losses_reach_the_trunk_and_a_few_steps_learn():
    problem = loaded("yeast")
    model = problem.model()
    record = gs.inspect(problem.losses(model, batch_of(problem)), model)
    assert sorted(len(group.objectives) for group in record.values()) == [1] * 14 + [14]
    assert (get_task("yeast").primary, get_task("yeast").delta) == ("mean", 1.0)
    assert problem.alone == {name: [name] for name in LABELS}
    figures = learned("yeast", 20)
    assert set(figures) == {"mean", *LABELS}
    assert figures["mean"] == pytest.approx(sum(figures[name] for name in LABELS) / 14)
    assert figures["mean"] > 57


@pytest.mark.exhaustive
def test_the_check_finds_nothing_wrong():
    loaded("yeast")
    plan = Plan.of(["yeast"], ["sum", "mmpareto", "modo", "famo"], [0])
    found = check_task(plan, plan.tasks[0])
    assert found.wrong == found.notes == []


@pytest.mark.quick
def test_the_area_is_how_often_a_positive_is_above_a_negative():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.randint(6, (40,), generator=generator).float()  # with ties
        wanted = torch.randint(2, (40,), generator=generator).float()
        above = scores[wanted == 1][:, None] - scores[wanted == 0]
        counted = (above > 0).float() + 0.5 * (above == 0).float()
        assert auc(scores, wanted) == pytest.approx(counted.mean().item())
    assert auc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])) == 1
    assert auc(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])) == 0
    nothing = auc(torch.tensor([1.0, 2.0]), torch.ones(2))
    assert nothing != nothing


@pytest.mark.quick
@pytest.mark.parametrize("line", ["1,2,3", ",".join(["0.5"] * 117)])
def test_another_file_is_an_error(tmp_path, line):
    (tmp_path / "yeast").mkdir()
    file = tmp_path / "yeast" / "yeast.csv.gz"
    file.write_bytes(gzip.compress(f"names\n{line}\n{line}\n".encode()))
    with pytest.raises(gs.InputError, match="expected 103 features, then 14 classes of 0 or 1"):
        load_genes(tmp_path)
    file.write_bytes(b"no archive")
    with pytest.raises(gs.InputError, match="cannot be read"):
        load_genes(tmp_path)


@pytest.mark.quick
def test_what_is_missing_is_named_with_the_command_that_brings_it(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    with pytest.raises(gs.MissingExtraError, match=r"pip install --no-deps river==0\.26\.1"):
        load_genes()
