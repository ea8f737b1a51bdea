"""The gradients of the parameters behind the features, from the direction that was decided there."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradsurgery.engine import commit
from gradsurgery.engine.checks import OutOfRangeError, not_finite
from gradsurgery.engine.parameters import is_parameter
from gradsurgery.engine.scene import Scene


def behind_features(
    scene: Scene,
    directions: Mapping[str, Tensor],
    gradients: Sequence[Mapping[str, Tensor]],
    retain_graph: bool,
    check: bool,
) -> list[tuple[Tensor, Tensor]]:
    """The gradients of the parameters behind the features.

    Raises:
        OutOfRangeError: when one is not finite, although the gradients at the features are.
    """
    sums = {
        name: torch.stack(g).sum(0)
        for name in scene.cut.features
        if (g := [found[name] for found in gradients if name in found])
    }
    found = scene.cut.through(
        {name: d for name, d in directions.items() if name in scene.cut.features},
        sums,
        retain_graph,
    )
    odd = not_finite([g for _, g in found]) if check else []
    unchecked = [leaf for leaf in scene.cut.others if not is_parameter(leaf)]
    odd = [i for i in odd if not any(found[i][0] is leaf for leaf in unchecked)]
    if odd:
        shape = list(found[odd[0]][0].shape)
        raise OutOfRangeError(
            f"the gradient of a parameter of shape {shape} behind the features has NaN or inf. Nothing was changed."
        )
    parameters, owned = [p for p, _ in found], [g for _, g in found]
    found.clear()
    return list(zip(parameters, commit.owned(owned, parameters), strict=True))
