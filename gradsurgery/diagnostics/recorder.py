"""Recorder: the history of a run's Records, thinned so that it stays small."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradsurgery import InputError, Record, Surgery, inspect
from gradsurgery.diagnostics import saved
from gradsurgery.diagnostics.samples import Sample, length_of, rows, scalars, stepped
from gradsurgery.types import Array

if TYPE_CHECKING:
    import pandas

Sink = Callable[[int, dict[str, float]], object]
AGAIN = " (second batch)"


class Recorder:
    """Keeps what the Records of a run say of groups with several objectives.

    With `backward` in place of the Surgery's it inspects by itself where the strategy forms no
    gradient of a single loss, as `sum` does:

        record = recorder.backward(surgery, losses)
        record = recorder.step(surgery, losses, optimizer)  # in place of surgery.step

    Args:
        parameters: as the Surgery has them, for what it inspects.
        every: keep each k-th step. An inspection costs one more backward pass per loss.
        keep: samples per group from which each second one is dropped; `every` doubles then.
        sink: called with (step, tag -> number) for each step that is kept, for example
            `lambda step, values: wandb.log(values, step=step)`, or `tensorboard(folder)`.

    Raises:
        InputError: for numbers that cannot be used.

    Example:
        >>> import torch, gradsurgery as gs
        >>> from gradsurgery.diagnostics import Recorder
        >>> model = torch.nn.Linear(3, 2)
        >>> surgery, recorder = gs.Surgery("sum", model), Recorder(every=2)
        >>> for _ in range(4):
        ...     first, second = model(torch.ones(3))
        ...     record = recorder.backward(surgery, {"first": first, "second": second})
        >>> [sample.step for sample in recorder["first+second"]]
        [0, 2]
        >>> recorder["first+second"][0].cosines.round(3).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(
        self,
        parameters: Any = None,
        *,
        every: int = 10,
        keep: int = 1000,
        sink: Sink | None = None,
    ) -> None:
        for name, value, least in (("every", every, 1), ("keep", keep, 2)):
            if not isinstance(value, int) or value < least:
                raise InputError(f"{name}: expected a number, {least} or more; got {value!r}.")
        self.every, self.keep, self.sink = every, keep, sink
        self.seen = 0  # Records, also those between
        self.groups: dict[str, list[Sample]] = {}
        self._places: dict[str, list[int]] = {}  # of each sample: which Record it was
        self._parameters = parameters
        self._pending: Record | None = None
        self._control: dict[str, dict[str, float]] = {}
        self._measured = False  # whether the last Record had Gram matrices of its own

    @property
    def due(self) -> bool:
        """Whether the next Record is one that is kept."""
        return self.seen % self.every == 0

    def inspect(self, losses: Any, control: Any = None) -> Record | None:
        """Inspect the losses where that is due and the strategy does not do it: before `backward`.

        Args:
            losses: as for `gradsurgery.inspect`.
            control: the losses of another batch at the same weights, or a function that gives them
                and is called where it is due. They give the control of a conflict rate: the cosine
                of each objective with itself on another batch.

        Returns:
            The Record of the inspection, or None where there was none.
        """
        self._pending, self._control = None, {}
        if not self.due or (self._measured and control is None):
            return None
        if control is None:
            self._pending = inspect(losses, self._parameters)
            return self._pending
        own, other = _named(losses), _named(control() if callable(control) else control)
        both = {**own, **{f"{name}{AGAIN}": loss for name, loss in other.items()}}
        self._pending = self._apart(inspect(both, self._parameters), own)
        return self._pending

    def add(self, record: Record, step: int | None = None) -> Record:
        """Keep what a Record says, where that is due; it is given back as it is.

        Args:
            record: of `Surgery.backward`, `Surgery.step`, `backward` or `inspect`.
            step: its step; by default the Record's own, or how many were seen.
        """
        pending, control = self._pending, self._control
        self._pending, self._control = None, {}
        shared = {name: g for name, g in record.items() if len(g.objectives) > 1}
        if record.overflow:
            return record
        self._measured = bool(shared) and all(g.gram is not None for g in shared.values())
        if self.due:
            step = step if step is not None else record.step or self.seen
            tags: dict[str, float] = {f"loss/{k}": v for k, v in record.losses.items()}
            for name, group in shared.items():
                gram = group.gram
                found = None if pending is None else pending.groups.get(name)
                if gram is None and found is not None and found.objectives == group.objectives:
                    gram = found.gram
                weights = group.weights
                again = control.get(name)
                sample = Sample(
                    step,
                    name,
                    group.objectives,
                    np.array([record.losses[o] for o in group.objectives]),
                    gram,
                    weights.mean(0) if weights is not None and weights.ndim > 1 else weights,
                    length_of(gram, weights),
                    None if again is None else np.array([again[o] for o in group.objectives]),
                    float("nan") if group.gap is None else group.gap,
                )
                self.groups.setdefault(name, []).append(sample)
                self._places.setdefault(name, []).append(self.seen)
                tags.update(scalars(sample))
            self._thin()
            if self.sink is not None:
                self.sink(step, tags | stepped(record))
        self.seen += 1
        return record

    def backward(
        self, surgery: Surgery, losses: Any, *, control: Any = None, **call: Any
    ) -> Record:
        """`surgery.backward(losses, **call)`, inspected where that is due, and kept.

        Args:
            surgery: the Surgery.
            losses: as for `Surgery.backward`.
            control: as for `inspect`.
            **call: as for `Surgery.backward`.
        """
        self.inspect(losses, control)
        return self.add(surgery.backward(losses, **call))

    def step(
        self, surgery: Surgery, losses: Any, optimizer: Any, *, control: Any = None, **call: Any
    ) -> Record:
        """`surgery.step(losses, optimizer, **call)`, inspected where that is due, and kept.

        The sink is also given the change of each loss, "risen" and "corrected", which are not kept.

        Args:
            surgery: the Surgery.
            losses: as for `Surgery.step`; with None, after `accumulate`, nothing is inspected.
            optimizer: as for `Surgery.step`.
            control: as for `inspect`.
            **call: as for `Surgery.step`: `guard`, `scaler`, `between`, ...
        """
        if losses is not None:
            self.inspect(losses, control)
        return self.add(surgery.step(losses, optimizer, **call))

    def __getitem__(self, group: str) -> list[Sample]:
        """The samples of a group, in the order of the steps.

        Raises:
            KeyError: for a group of which there is none.
        """
        try:
            return self.groups[group]
        except KeyError:
            known = ", ".join(map(repr, self.groups)) or "none"
            raise KeyError(f"no samples of group {group!r}; the groups are {known}") from None

    def rows(self) -> list[dict[str, Any]]:
        """A row per step, group and pair of objectives: cosine, ratio, weights, lengths, losses."""
        return [row for kept in self.groups.values() for sample in kept for row in rows(sample)]

    def frame(self) -> "pandas.DataFrame":
        """The rows as a data frame of pandas.

        Raises:
            MissingExtraError: without pandas.
        """
        from gradsurgery.errors import extra

        with extra("diagnostics", "Recorder.frame"):
            import pandas

        return pandas.DataFrame(self.rows())

    def replay(self, sink: Sink) -> None:
        """Give everything that was kept to a sink, in the order of the steps."""
        steps: dict[int, dict[str, float]] = {}
        for kept in self.groups.values():
            for sample in kept:
                named = zip(sample.objectives, sample.losses.tolist(), strict=True)
                tags = steps.setdefault(sample.step, {})
                tags.update({f"loss/{name}": value for name, value in named})
                tags.update(scalars(sample))
        for step in sorted(steps):
            sink(step, steps[step])

    def save(self, path: str | Path) -> None:
        """Write everything that was kept to a file (npz), for `Recorder.load`."""
        state = {"every": self.every, "keep": self.keep, "seen": self.seen}
        saved.save(Path(path), state, self.groups, self._places)

    @classmethod
    def load(cls, path: str | Path, parameters: Any = None, sink: Sink | None = None) -> "Recorder":
        """A Recorder that goes on from what `save` wrote.

        Raises:
            InputError: for another file.
        """
        state, groups, places = saved.load(Path(path))
        made = cls(parameters, every=state["every"], keep=state["keep"], sink=sink)
        made.seen, made.groups, made._places = state["seen"], groups, places
        return made

    def __repr__(self) -> str:
        kept = ", ".join(f"{name}: {len(kept)}" for name, kept in self.groups.items())
        return f"Recorder({kept or 'nothing yet'}; every {self.every})"

    def _thin(self) -> None:
        while any(len(kept) > self.keep for kept in self.groups.values()):
            self.every *= 2
            for name, kept in self.groups.items():
                both = zip(kept, self._places[name], strict=True)
                stay = [(sample, at) for sample, at in both if at % self.every == 0]
                kept[:] = [sample for sample, _ in stay]
                self._places[name] = [at for _, at in stay]

    def _apart(self, both: Record, own: Mapping[str, Any]) -> Record:
        """The Record of the first batch alone, from one of both; keeps the control."""
        from dataclasses import replace

        groups = {}
        for group in both.groups.values():
            first = [i for i, name in enumerate(group.objectives) if name in own]
            if not first or group.gram is None or group.cosines is None:
                continue
            names = tuple(group.objectives[i] for i in first)
            cosines: Array = group.cosines
            at = {name: i for i, name in enumerate(group.objectives)}
            second = [at.get(f"{name}{AGAIN}") for name in names]
            joined = "+".join(sorted(group.objectives))
            # a group that was named by the user keeps its name
            name = "+".join(sorted(names)) if group.name.startswith(joined) else group.name
            self._control[name] = {
                own_name: float("nan") if j is None else float(cosines[i, j])
                for own_name, i, j in zip(names, first, second, strict=True)
            }
            gram = group.gram[np.ix_(first, first)]
            groups[name] = replace(group, name=name, objectives=names, gram=gram)
        losses = {name: value for name, value in both.losses.items() if name in own}
        return replace(both, losses=losses, groups=groups)


def _named(losses: Any) -> dict[str, Any]:
    if isinstance(losses, Mapping):
        return dict(losses)
    return {str(i): loss for i, loss in enumerate(losses)}
