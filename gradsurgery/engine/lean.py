"""memory="low": large tensors whose gradients are not kept: their Gram matrix portion by portion, their direction by one weighted pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gradsurgery.engine import commit
from gradsurgery.engine.checks import Array, OutOfRangeError, not_finite
from gradsurgery.engine.losses import Losses, root_gradients
from gradsurgery.engine.on_losses import weighted_pass
from gradsurgery.engine.scene import Scene, met_by
from gradsurgery.engine.solve import Step
from gradsurgery.engine.source import gather
from gradsurgery.engine.taps import Tap
from gradsurgery.gradients.coordinates import called, in_coordinates, unusual
from gradsurgery.gradients.gram import grams_by_tensor
from gradsurgery.gradients.precision import without_autocast


@dataclass(frozen=True)
class Formed:
    """What is left of gradients that were not kept.

    Attributes:
        grams: name -> the Gram matrix [n, n] of that tensor's gradients, of all losses.
        met: name -> the losses that gave it one, one bit each.
        sparse: the names whose gradients were sparse.
    """

    grams: dict[str, Tensor] = field(default_factory=dict)
    met: dict[str, int] = field(default_factory=dict)
    sparse: set[str] = field(default_factory=set)

    def of(self, names: Sequence[str]) -> list[Tensor]:
        """The Gram matrices of these tensors, between all losses, as far as they are here: one a device."""
        by_device: dict[torch.device, list[Tensor]] = {}
        for name in names:
            if name in self.grams:
                by_device.setdefault(self.grams[name].device, []).append(self.grams[name])
        return [torch.stack(found).sum(0) for found in by_device.values()]


def portions(scene: Scene, taps: Mapping[str, Tap]) -> list[list[str]]:
    """The tensors whose gradients are not kept, so many at a time that those of all losses take no more room than all parameters, or one tensor.

    Empty where everything fits in that. What lies behind a compiled region, the features, what one loss alone reaches, and biases by which a
    pass finds its way to a tapped layer are kept.
    """
    ways = {id(tap.bias) for tap in taps.values() if tap.bias is not None}
    tensors = {
        name: t
        for name, t in {**scene.trained, **scene.others}.items()
        if name not in scene.cut.features
    }
    room = {name: t.numel() * t.element_size() for name, t in tensors.items()}
    kept = (
        {name for name, t in tensors.items() if id(t) in ways} | taps.keys() | scene.unsure.keys()
    )
    needed = {
        name: size * count
        for name, size in room.items()
        if name not in kept and (count := scene.met.get(name, 0).bit_count()) > 1
    }
    allowed = max([sum(room.values()), *needed.values()])
    if sum(needed.values()) <= allowed:
        return []
    found: list[list[str]] = [[]]
    used = 0
    for name, size in needed.items():
        if used + size > allowed:
            found.append([])
            used = 0
        found[-1].append(name)
        used += size
    return found


def form(
    losses: Losses, scene: Scene, scale: Tensor | None, parts: Sequence[Sequence[str]]
) -> Formed:
    """The Gram matrices of tensors whose gradients are not kept, by a pass per loss for each portion; the graph stays."""
    formed = Formed()
    roots = root_gradients(losses, losses.weights.tolist(), scale)
    for names in map(frozenset, parts):
        wanted = [{name: t for name, t in found.items() if name in names} for found in scene.wanted]
        gradients = gather(losses.tensors, roots, wanted, True)
        met = met_by(gradients)
        parameters = {name: scene.parameter(name) for name in met}
        odd, sparse = unusual(gradients, parameters)
        formed.sparse.update(sparse)
        rows = [[found.get(name) for name in met] for found in gradients]
        like, places = in_coordinates(rows, parameters, odd, ())
        with without_autocast(losses.tensors[0].device):
            formed.grams.update(zip(met, grams_by_tensor(rows, like, places), strict=True))
        formed.met.update(met)
    return formed


def directions_of(step: Step, formed: Formed, weights: Mapping[str, Array]) -> dict[str, Tensor]:
    """Σ wᵢgᵢ for tensors whose gradients were not kept: one backward pass for each different set of weights.

    Args:
        step: the step, with its graph.
        formed: what is known of them.
        weights: for each of them the weight of every loss [n].

    Raises:
        OutOfRangeError: when one is not finite, although its terms are.
    """
    alike: dict[tuple[float, ...], dict[str, Tensor]] = {}
    for name in formed.grams:
        alike.setdefault(tuple(weights[name].tolist()), {})[name] = step.scene.parameter(name)
    found: dict[str, Tensor] = {}
    retain = step.retain_graph or bool(step.scene.cut.features)
    for i, (row, wanted) in enumerate(alike.items()):
        found |= weighted_pass(step, np.array(row), wanted, retain or i + 1 < len(alike))
    names, gradients = list(found), list(found.values())
    found.clear()
    odd = (
        [i for i in not_finite(gradients) if names[i] not in step.scene.unchecked]
        if step.plan.check
        else []
    )
    if odd:
        where = called(names[odd[0]], step.scene.parameter(names[odd[0]]))
        what = f"the direction for {where} is not finite in its dtype"
        raise OutOfRangeError(f"{what}. Nothing was changed.")
    parameters = [step.scene.parameter(name) for name in names]
    return dict(zip(names, commit.owned(gradients, parameters), strict=True))
