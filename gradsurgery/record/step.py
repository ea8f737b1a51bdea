"""Record: what a step decided, group by group."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradsurgery.errors import InputError
from gradsurgery.record.group import GroupRecord
from gradsurgery.record.numbers import (
    number_of,
    plain,
    plain_group,
    restored_group,
    scalars_of,
)
from gradsurgery.record.text import listed


@dataclass(frozen=True)
class Record(Mapping[str, GroupRecord]):
    """What one step decided: group name -> `GroupRecord`, in the order of the parameters.

    Attributes:
        strategy: the strategy's name, or None from `inspect`.
        losses: name -> value of each loss, as given (before the user's weights).
        groups: name -> GroupRecord; `record["audio+fused"]` is `record.groups["audio+fused"]`.
        step: how many steps the `Surgery` had taken before this one; 0 for the one-shot forms.
        overflow: whether, under a GradScaler, something was not finite. Then every `.grad` got
            infinity, for the scaler to skip the optimizer's step, and the `Surgery` is as it was;
            groups have neither a Gram matrix nor weights.
        change: name -> change of each loss to first order under the step that the optimizer made
            of all parameters that it holds (`Surgery.step`); None where a group's is not known.
        method: with `PerExample` how the gradients were had, and by how many passes; else None.
    """

    strategy: str | None
    losses: dict[str, float]
    groups: dict[str, GroupRecord]
    step: int = 0
    overflow: bool = False
    change: dict[str, float] | None = None
    method: str | None = None

    @classmethod
    def deferred(
        cls,
        strategy: str | None,
        names: Sequence[str],
        batches: int,
        values: Tensor,
        groups: dict[str, GroupRecord],
        step: int,
        method: str | None = None,
    ) -> "Record":
        """A Record whose losses come to the host when they are first read.

        Args are as of a Record, and `values` those of the losses [m·n] of m batches.
        """
        record = object.__new__(cls)
        pending = tuple(names), batches, values
        record.__dict__.update(
            strategy=strategy, groups=groups, step=step, overflow=False, method=method
        )
        record.__dict__["_pending"] = pending
        return record

    def __getattr__(self, name: str) -> Any:
        """The losses of a deferred Record; other attributes are there, or do not exist."""
        if name != "losses" or "_pending" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        names, batches, values = self.__dict__.pop("_pending")
        rows = values.double().reshape(batches, len(names))
        numbers = (rows.mean(0) if batches > 1 else rows[0]).tolist()  # a mean loses the sign of -0
        self.__dict__["losses"] = losses = dict(zip(names, numbers, strict=True))
        return losses

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "losses": self.losses}

    def __getitem__(self, name: str) -> GroupRecord:
        try:
            return self.groups[name]
        except KeyError:
            raise KeyError(
                f"no group {name!r}; the groups are {', '.join(map(repr, self.groups)) or 'none'}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the losses of this step, in the order given."""
        return tuple(self.losses)

    def scalars(self) -> dict[str, float]:
        """What the step decided as flat numbers, for any logger; what is not known is left out.

        Per loss: "loss/NAME", and "change/NAME" after `Surgery.step`. Per group that several
        objectives reach, each after the group's name, as in "audio+fused/conflicts":

        - "conflicts", the number of pairs in conflict; "mean_cosine"; "cosine/A, B" of each pair;
        - "norm/NAME", "weight/NAME" (the mean over tensors where each has its own), "change/NAME";
        - "length" of the direction, "sum_length" of the plain sum, the solver's "gap";
        - "risen", how many losses the optimizer's step raises, and "corrected".

        Example:
            >>> import torch, gradsurgery as gs
            >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
            >>> record = gs.backward({"a": weight[0], "b": weight.sum()}, [weight], "mgda")
            >>> record.scalars()["loss/b"], record.scalars()["a+b/conflicts"]
            (3.0, 0.0)
        """
        found = {f"loss/{name}": value for name, value in self.losses.items()}
        found |= {f"change/{name}": value for name, value in (self.change or {}).items()}
        for group in self.groups.values():
            if len(group.objectives) > 1:
                found |= {f"{group.name}/{kind}": value for kind, value in scalars_of(group)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """The Record as plain data: dicts, lists, numbers, strings and None, for `json.dumps`.

        Its fields, and per group its fields with `norms`, `cosines`, `mean_cosine` and `conflicts`.
        NaN and the infinities, which JSON does not have, are strings: "NaN", "Infinity".

        Example:
            >>> import json, torch, gradsurgery as gs
            >>> weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
            >>> record = gs.backward({"a": weight[0], "b": weight.sum()}, [weight], "mgda")
            >>> text = json.dumps(record.to_dict(), allow_nan=False)
            >>> print(gs.Record.from_dict(json.loads(text)))
            step 0: mgda on a = 1, b = 3
              a+b (1 tensors, mgda): a 1, b 0; mean cosine 0.707, no conflict
        """
        names = ("strategy", "step", "overflow", "losses", "change", "method")
        groups = {name: plain_group(group) for name, group in self.groups.items()}
        return {**{name: plain(getattr(self, name)) for name in names}, "groups": groups}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """The Record that `to_dict` wrote.

        Raises:
            InputError: for data that lack a field.
        """
        if missing := [name for name in ("strategy", "losses", "groups") if name not in data]:
            raise InputError(f"not what Record.to_dict gives: it has no {missing[0]!r}.")
        change = data.get("change")
        return cls(
            data["strategy"],
            {name: number_of(value) for name, value in data["losses"].items()},
            {name: restored_group(group) for name, group in data["groups"].items()},
            data.get("step", 0),
            data.get("overflow", False),
            None if change is None else {name: number_of(v) for name, v in change.items()},
            data.get("method"),
        )

    def __str__(self) -> str:
        groups = list(self.groups.values())
        values = ", ".join(f"{k} = {v:.4g}" for k, v in self.losses.items())
        first = f"step {self.step}: {self.strategy or 'inspect'} on {values}"
        first += "; overflow, to be skipped" if self.overflow else ""
        first += f"; {self.method}" if self.method else ""
        return "\n".join([first, *(listed(group, self.strategy, groups) for group in groups)])
