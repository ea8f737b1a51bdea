"""A study that runs in seconds: one task of two modalities, one part that is tuned."""

from dataclasses import replace

from gradsurgery.study import Declaration, Measured, Part, Prediction
from gradsurgery.tasks import task
from tests.support.protocol import two_modalities


@task("tiny", steps=6, lr=(0.05, 0.2), primary="fused", delta=1.0)
def tiny(data_root, seed):
    """Two modalities."""
    return two_modalities(data_root, seed)


PART = Part(
    "tiny-sgd",
    "fast",
    "tiny",
    2,
    ("sum", "scaled-sum", "mmpareto"),
    "fused",
    1.0,
    optimizer="sgd",
    joint="alone: joint",
    modalities=("audio",),
    measured=("flatness", "diagnosis"),
)
MEASURED = Measured(
    seeds=1, flat=("sum", "mmpareto"), loss=0.9, examples=40, steps=(0.0, 1.0), batches=8
)
TINY = Declaration(
    parts=(PART, replace(PART, name="tiny-once", tier="once", tune=False, baselines="none")),
    selection="The best.",
    rules=("One rule.",),
    predictions=(Prediction("worse", ("joint-only", "mgda"), ("tiny-sgd",)),),
    measured=MEASURED,
    limits=("It is tiny.",),
)
