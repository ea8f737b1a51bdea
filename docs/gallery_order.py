"""In which order the gallery tells its stories."""

from pathlib import Path

ORDER = (
    "toy",
    "multitask",
    "multimodal",
    "pinn",
    "continual",
    "unlearning",
    "features",
    "missing_labels",
    "watching",
)


def by_story(script: str) -> int:
    """The place of a script `plot_NAME.py`.

    Raises:
        ValueError: for one without a place.
    """
    return ORDER.index(Path(script).stem.removeprefix("plot_"))
