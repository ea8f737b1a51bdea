"""What a figure is: its name, its unit, which direction is better, what a guess scores."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any

from gradsurgery.errors import InputError

ACCURACY = "accuracy in %"


@dataclass(frozen=True)
class Metric:
    """A figure of a task.

    Attributes:
        name: what is measured, as in "accuracy" or "RMSE".
        unit: as in "%"; empty where there is none.
        higher: whether a higher figure is better. None is for figures of which nothing is known.
        chance: the figure of a model that guesses; None where there is no such thing.

    Raises:
        InputError: for what is no name, no direction or no number.

    Example:
        >>> from gradsurgery.tasks import Metric
        >>> Metric("accuracy", unit="%", chance=10).label
        'accuracy in %'
        >>> Metric("error", higher=False).better
        'lower'
    """

    name: str
    _: KW_ONLY
    unit: str = ""
    higher: bool | None = True
    chance: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"Metric: give a name, as in Metric('accuracy'); got {self.name!r}.")
        if not isinstance(self.unit, str):
            raise InputError(f"Metric {self.name!r}: unit is a text, as in '%'; got {self.unit!r}.")
        if self.higher is not None and not isinstance(self.higher, bool):
            raise InputError(
                f"Metric {self.name!r}: higher is True or False; got {self.higher!r}. "
                "higher=False where a lower figure is better."
            )
        number = isinstance(self.chance, Real) and not isinstance(self.chance, bool)
        if self.chance is not None and not number:
            raise InputError(
                f"Metric {self.name!r}: chance is the figure of a guess, a number, or None; "
                f"got {self.chance!r}."
            )

    @property
    def label(self) -> str:
        """The name with its unit, as tables and plots have it."""
        return f"{self.name} in {self.unit}" if self.unit else self.name

    @property
    def better(self) -> str | None:
        """Which direction is better: "higher", "lower", or None where nothing is known."""
        return None if self.higher is None else ("higher" if self.higher else "lower")

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, for a line of results."""
        chance = None if self.chance is None else float(self.chance)
        return {"name": self.name, "unit": self.unit, "higher": self.higher, "chance": chance}


def described(figure: str, higher: bool | None, chance: float | None) -> Metric:
    """The metric that a text describes, as "accuracy in %"."""
    if figure == ACCURACY:
        return Metric("accuracy", unit="%", higher=higher, chance=chance)
    return Metric(figure, higher=higher, chance=chance)


def common_label(metrics: Mapping[str, Metric]) -> str | None:
    """The label that all of them have, or None where they differ."""
    labels = {metric.label for metric in metrics.values()}
    return labels.pop() if len(labels) == 1 else None
