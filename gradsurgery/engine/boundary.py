"""The boundary at the features: weights from the gradients there, one pass through the trunk."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradsurgery.engine.graph import Graph, walk
from gradsurgery.errors import InputError

APART = (
    "A loss that does not go through the last of them, as a quantizer's commitment, is left out "
    "of this call: call its own .backward(retain_graph=True) before, after zero_grad()."
)


def features_found(features: Mapping[str, Tensor], graph: Graph) -> tuple[dict[int, Tensor], bool]:
    """The leaves that the features were computed from, and whether one pass only is allowed.

    Args:
        features: by name.
        graph: the losses' graph, cut at the features.

    Raises:
        InputError: when a feature reaches no loss, or depends on another.
    """
    leaves: dict[int, Tensor] = {}
    single_pass = False
    places = {(z.grad_fn, z.output_nr): i for i, z in enumerate(features.values())}
    for i, (name, feature) in enumerate(features.items()):
        if i not in graph.cuts:
            raise InputError(
                f"{name[1:]} reaches no loss: give the tensor that the losses were computed from. "
                "(If torch.compile made one region of trunk and heads, the features are an output "
                "of it beside the losses: compile the trunk and the heads apart.)"
            )
        found = walk([feature], [name], {place: j for place, j in places.items() if j != i})
        if found.cuts:
            raise InputError(
                f"{name[1:]} depends on {list(features)[min(found.cuts)][1:]}: give features that "
                f"do not depend on one another. {APART}"
            )
        leaves.update(found.leaves)
        single_pass = single_pass or found.single_pass
    return leaves, single_pass


def check_separate(leaves: Mapping[int, Tensor], twice: Iterable[int]) -> None:
    """A parameter reaches the losses through the features, or around them.

    Args:
        leaves: all of them, by id.
        twice: the ids of those that do both.

    Raises:
        InputError: for the first of these.
    """
    for key in twice:
        raise InputError(
            f"features: a parameter of shape {list(leaves[key].shape)} reaches the losses through "
            "the features and around them too; give everything that the losses take from the trunk "
            f"as features=[...]. {APART} If torch.compile made one region of trunk and heads, "
            "compile them apart."
        )


def parse_features(features: Any) -> dict[str, Tensor] | None:
    """A tensor, a sequence or a dict of tensors, by name; None where none are given.

    A name begins with a dot, which no parameter of a Module has.

    Raises:
        InputError: for something else, or a tensor that no trunk has computed.
    """
    if features is None:
        return None
    if isinstance(features, Tensor):
        named = {".features": features}
    elif isinstance(features, Mapping):
        named = {f".features[{name!r}]": z for name, z in features.items()}
    elif isinstance(features, Sequence) and not isinstance(features, str | bytes):
        named = {f".features[{i}]": z for i, z in enumerate(features)}
    else:
        raise InputError(
            "features: expected a tensor, or a sequence or dict of tensors; got "
            f"{type(features).__name__}."
        )
    if len(named) < len(features if isinstance(features, Mapping) else named):
        names = ", ".join(map(repr, features))
        raise InputError(f"features: two of them have the same name; got {names}.")
    if not named:
        raise InputError("features: at least one tensor is needed; got none.")
    unique: dict[int, str] = {}
    for key, z in named.items():
        name = key[1:]
        _check_feature(name, z)
        if id(z) in unique:
            raise InputError(f"{name} is the same tensor as {unique[id(z)]}.")
        unique[id(z)] = name
    return named


def _check_feature(name: str, z: Any) -> None:
    if not isinstance(z, Tensor):
        raise InputError(f"{name}: expected a tensor; got {type(z).__name__}.")
    if z.grad_fn is None:
        raise InputError(
            f"{name} has no graph behind it (a leaf, or detached): give the tensor that the trunk "
            "computed."
        )
    if not z.is_floating_point() or z.layout != torch.strided:
        raise InputError(
            f"{name}: expected dense real floating point numbers; got {z.dtype}, {z.layout}."
        )
    if z._backward_hooks or z.retains_grad:
        raise InputError(
            f"{name} has a hook or retain_grad(), which would act twice, at the end of the heads "
            "and at the beginning of the trunk: compute the losses from features.view_as(features),"
            " and give that."
        )
