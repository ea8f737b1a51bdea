"""av-digits: a noisy image of a digit beside the same digit spoken; sound is strong, image weak."""

from pathlib import Path

from torch import nn

from gradsurgery.tasks.audiovisual import pairs
from gradsurgery.tasks.multimodal import MultimodalNet, fused_problem, multilayer
from gradsurgery.tasks.problem import Problem
from gradsurgery.tasks.task import task

WIDTH = 64
NOISE = {"image_noise": 0.6, "sound_noise": 1.0}  # without noise all heads are near 100 %


def _model() -> nn.Module:
    encoders = {"image": multilayer(14 * 14, WIDTH), "audio": multilayer(24 * 13, WIDTH)}
    return MultimodalNet(encoders, WIDTH)


@task(
    "av-digits",
    steps=120,
    lr=(0.011, 0.08),
    primary="fused",
    delta=1.0,
    ratio=1_800 / 300,
    paper="LeCun et al. 1998 (MNIST); Jackson et al. 2018, FSDD, doi:10.5281/zenodo.1342401; "
    "losses as in Wei & Hu 2024, arXiv:2405.17730",
)
def av_digits(data_root: Path | None = None, seed: int = 0) -> Problem:
    """A noisy image of a digit and the same digit spoken: two encoders, three losses.

    The image is a digit of MNIST at 14 x 14, its pixels in 0..1 plus N(0, 0.6²). The sound is a
    clip of the Free Spoken Digit Dataset: 24 frames of 13 MFCCs, standardised, plus N(0, 1).
    Sound is strong and image weak. Each encoder has two layers of 64, a head and a loss of its own;
    a third loss is that of a head on both.

    1,800 pairs train, 300 validate and 900 are for test. The test pairs are the same for every
    seed; a seed gives the other splits, their pairs, and the noise of all three. Who speaks a clip
    is not in the data: the splits mix the speakers, and no figure is about new ones.
    """
    data = pairs(data_root, seed, **NOISE)
    return fused_problem(data, _model, seed=seed, batch=64, modalities=("image", "audio"))
