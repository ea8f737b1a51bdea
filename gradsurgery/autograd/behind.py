"""The gradients of the parameters behind the features, from the direction that was decided there."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradsurgery.autograd import commit
from gradsurgery.autograd.checks import OutOfRangeError
from gradsurgery.autograd.groups import check_dense
from gradsurgery.autograd.scene import Scene


def behind_features(
    scene: Scene, directions: Mapping[str, Tensor], gradients: Sequence[Mapping[str, Tensor]], retain_graph: bool, check: bool
) -> list[tuple[Tensor, Tensor]]:
    """The gradients of the parameters behind the features.

    Raises:
        InputError: for sparse gradients.
        OutOfRangeError: when one is not finite, although the gradients at the features are.
    """
    sums = {name: torch.stack(g).sum(0) for name in scene.cut.features if (g := [found[name] for found in gradients if name in found])}
    found = scene.cut.through({name: d for name, d in directions.items() if name in scene.cut.features}, sums, retain_graph)
    for p, gradient in found:
        check_dense(f"of shape {list(p.shape)} behind the features", gradient)
        if check and not bool(torch.isfinite(gradient).all()):
            raise OutOfRangeError(f"the gradient of a parameter of shape {list(p.shape)} behind the features has NaN or inf. Nothing was changed.")
    parameters, owned = [p for p, _ in found], [g for _, g in found]
    found.clear()
    return list(zip(parameters, commit.owned(owned, parameters), strict=True))
