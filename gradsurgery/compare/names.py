"""Short names for tables and sentences: fixed weights as "weights 1 : 4", with a legend."""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real

from gradsurgery.compare.methods import ALONE

FIXED = re.compile(r"constant\(preference=(\{[^{}]*\})\)")


@dataclass(frozen=True)
class Names:
    """Label -> the short name that stands for it.

    Attributes:
        objectives: whose weights a short name lists, in this order.
        short: label -> short name, for those that have one.
    """

    objectives: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict)

    def of(self, label: str) -> str:
        """The short name, or the label where there is none."""
        return self.short.get(label, label)

    @property
    def legend(self) -> str | None:
        """What the short names stand for, as a sentence; None where there are none."""
        if not self.short:
            return None
        label, name = next(iter(self.short.items()))
        order = ", ".join(self.objectives)
        return f'Fixed weights are listed in the order {order}: "{name}" is {label}.'


def short_names(labels: Iterable[str]) -> Names:
    """The short names of a comparison's labels.

    Fixed weights of the same objectives are listed in one order, that of the first label. What
    would not be told apart, or names other objectives, keeps its label.

    Example:
        >>> from gradsurgery.compare.names import short_names
        >>> short_names(["sum", "constant(preference={'left': 1.0, 'right': 0.5})"]).short
        {"constant(preference={'left': 1.0, 'right': 0.5})": 'weights 1 : 0.5'}
    """
    order: tuple[str, ...] = ()
    found: dict[str, str] = {}
    for label in dict.fromkeys(labels):
        match = None if label.startswith(ALONE) else FIXED.search(label)
        weights = {} if match is None else _weights(match[1])
        order = order or tuple(weights)
        if match is None or len(weights) < 2 or set(weights) != set(order):
            continue
        listed = " : ".join(f"{weights[name]:g}" for name in order)
        found[label] = label.replace(match[0], f"weights {listed}")
    counts = Counter(found.values())
    kept = {label: name for label, name in found.items() if counts[name] == 1}
    return Names(order, kept)


def _weights(text: str) -> dict[str, float]:
    """The weights by name; empty for what is none."""
    try:
        given = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {}
    numbers = all(isinstance(x, Real) and not isinstance(x, bool) for x in given.values())
    names = all(isinstance(name, str) for name in given)
    return given if numbers and names else {}
