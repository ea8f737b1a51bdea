"""The cut at the features: weights from the gradients there, and one pass through the trunk behind them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.compiled import several_passes
from gradsurgery.engine.graph import Graph, Output, walk
from gradsurgery.errors import InputError


@dataclass(frozen=True)
class Cut:
    """The features by name, the trained parameters behind them, and the reached ones behind them that were not given."""

    features: dict[str, Tensor]
    trunk: list[Tensor]
    others: list[Tensor]

    def through(
        self, directions: Mapping[str, Tensor], sums: Mapping[str, Tensor], retain_graph: bool
    ) -> list[tuple[Tensor, Tensor]]:
        """The gradients behind the features: of `directions` for the trunk, of the plain `sums` for the others."""
        found = _pass(self.features, sums, self.others, True) if self.others else []
        return found + (
            _pass(self.features, directions, self.trunk, retain_graph) if self.trunk else []
        )


def _pass(
    features: Mapping[str, Tensor],
    roots: Mapping[str, Tensor],
    wanted: Sequence[Tensor],
    retain_graph: bool,
) -> list[tuple[Tensor, Tensor]]:
    used = [name for name in features if name in roots]
    with several_passes():
        gradients = torch.autograd.grad(
            [features[name] for name in used],
            list(wanted),
            [roots[name] for name in used],
            retain_graph=retain_graph,
            allow_unused=True,
        )
    return [(p, g) for p, g in zip(wanted, gradients, strict=True) if g is not None]


class Cutting:
    """Features while the graph is looked at."""

    def __init__(self, features: dict[str, Tensor]) -> None:
        self.features = features
        self.places: dict[Output, int] = {
            (z.grad_fn, z.output_nr): i for i, z in enumerate(features.values())
        }

    def behind(self, graph: Graph) -> tuple[dict[int, Tensor], bool]:
        """The leaves behind the features, by id, and whether a compiled region among them allows one backward pass only.

        Raises:
            InputError: when a feature reaches no loss, or lies behind another.
        """
        leaves: dict[int, Tensor] = {}
        once = False
        for i, (name, feature) in enumerate(self.features.items()):
            if i not in graph.cuts:
                raise InputError(
                    f"{name[1:]} reaches no loss: give the tensor that the losses were computed from. (If torch.compile made one region of trunk and "
                    "heads, the features are an output of it beside the losses: compile the trunk and the heads apart.)"
                )
            found = walk(
                [feature], [name], {place: j for place, j in self.places.items() if j != i}
            )
            if found.cuts:
                raise InputError(
                    f"{name[1:]} depends on {list(self.features)[min(found.cuts)][1:]}: give features that do not depend on one another."
                )
            leaves.update((key, found.tensor(key)) for key in found.leaves)
            once = once or found.once
        return leaves, once

    def check_apart(self, leaves: Mapping[int, Tensor], twice: Iterable[int]) -> None:
        """A parameter lies behind the features or beside them.

        Raises:
            InputError: when a loss reaches one through the features and around them too.
        """
        for key in twice:
            raise InputError(
                f"features: a parameter of shape {list(leaves[key].shape)} reaches the losses through the features and around them too; "
                "give everything that the losses take from the trunk as features=[...]; and if torch.compile made one region of trunk and heads, "
                "compile them apart."
            )


def parse_features(features: Any) -> dict[str, Tensor]:
    """A tensor, a sequence or a dict of tensors, by name: one with a leading dot, which no parameter of a Module has.

    Raises:
        InputError: for something else, or a tensor that no trunk has computed.
    """
    if isinstance(features, Tensor):
        named = {".features": features}
    elif isinstance(features, Mapping):
        named = {f".features[{name!r}]": z for name, z in features.items()}
    elif isinstance(features, Sequence) and not isinstance(features, str | bytes):
        named = {f".features[{i}]": z for i, z in enumerate(features)}
    else:
        raise InputError(
            f"features: expected a tensor, or a sequence or dict of tensors; got {type(features).__name__}."
        )
    if len(named) < len(features if isinstance(features, Mapping) else named):
        raise InputError(
            f"features: two of them have the same name; got {', '.join(map(repr, features))}."
        )
    if not named:
        raise InputError("features: at least one tensor is needed; got none.")
    unique: dict[int, str] = {}
    for key, z in named.items():
        name = key[1:]
        if not isinstance(z, Tensor):
            raise InputError(f"{name}: expected a tensor; got {type(z).__name__}.")
        if z.grad_fn is None:
            raise InputError(
                f"{name} has no graph behind it (a leaf, or detached): give the tensor that the trunk computed."
            )
        if not z.is_floating_point() or z.layout != torch.strided:
            raise InputError(
                f"{name}: expected dense real floating point numbers; got {z.dtype}, {z.layout}."
            )
        if z._backward_hooks or z.retains_grad:
            raise InputError(
                f"{name} has a hook or retain_grad(), which would act twice, at the end of the heads and at the beginning of the trunk: "
                "compute the losses from features.view_as(features), and give that."
            )
        if id(z) in unique:
            raise InputError(f"{name} is the same tensor as {unique[id(z)]}.")
        unique[id(z)] = name
    return named
