"""What the inspected steps of a run say: cosines and conflicts over time, and their means."""

from typing import Any

from gradsurgery import Record


class Trace:
    """Kept from Records that a run inspects anyway; nothing is computed for it."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, list[Any]]] = {}
        self._conflicts: dict[str, list[bool]] = {}
        self._cosines: dict[str, list[float]] = {}

    def add(self, step: int, record: Record) -> None:
        """Keep what one inspection says of groups with several objectives.

        Args:
            step: of the run, from 0.
            record: of `gradsurgery.inspect`.
        """
        for name, group in record.items():
            if group.mean_cosine is None:
                continue
            n = len(group.objectives)
            self._conflicts.setdefault(name, []).append(bool(group.conflicts))
            self._cosines.setdefault(name, []).append(group.mean_cosine)
            kept = self._groups.setdefault(name, {"steps": [], "cosine": [], "conflict": []})
            kept["steps"].append(step)
            kept["cosine"].append(round(group.mean_cosine, 4))
            kept["conflict"].append(round(len(group.conflicts or ()) / (n * (n - 1) / 2), 4))

    @property
    def conflict_rate(self) -> dict[str, float]:
        """Group -> the share of inspected steps at which two of its objectives conflicted."""
        return {name: sum(seen) / len(seen) for name, seen in self._conflicts.items()}

    @property
    def mean_cosine(self) -> dict[str, float]:
        """Group -> the mean over those steps and the pairs of its objectives."""
        return {name: sum(seen) / len(seen) for name, seen in self._cosines.items()}

    def as_dict(self) -> dict[str, dict[str, list[Any]]]:
        """Group -> steps; the mean cosine and the share of pairs in conflict at each of them."""
        return self._groups
