"""The gradients of every loss, with the scene they belong to: of one batch, or summed over several."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from gradsurgery.engine import commit
from gradsurgery.engine.checks import read_finite
from gradsurgery.engine.compiled import ONE_PASS
from gradsurgery.engine.converted import Kind, kind_of
from gradsurgery.engine.grouping import Reach
from gradsurgery.engine.lean import Formed, form, portions
from gradsurgery.engine.losses import Losses, root_gradients
from gradsurgery.engine.retained import drop_batched
from gradsurgery.engine.scene import Scene
from gradsurgery.engine.source import gather, gather_batched
from gradsurgery.engine.taps import Tap
from gradsurgery.errors import InputError, NonFiniteError
from gradsurgery.gradients.coordinates import called, entries, gradient_dtype, unusual
from gradsurgery.gradients.transfer import to_host


@dataclass(frozen=True)
class Gathered:
    """What a backward pass per loss gives, all of it without graph.

    Attributes:
        losses: the losses, detached.
        scene: what is trained and what each loss reaches.
        gradients: for each loss (and batch) parameter -> gradient; times the scale if there is one.
        scale: the GradScaler's factor, or None.
        taps: the weights for which `gradients` holds those at the layer's outputs.
        formed: the Gram matrices of tensors that are not in `gradients`.
        odd: the names whose gradients are not dense real tensors of the parameter's dtype.
        sparse: those of them that are sparse, or that had sparse ones in `formed`.
        kinds: what each parameter was when its gradient was gathered by `accumulate`.
    """

    losses: Losses
    scene: Scene
    gradients: list[dict[str, Tensor]]
    scale: Tensor | None
    taps: Mapping[str, Tap] = field(default_factory=dict)
    formed: Formed = field(default_factory=Formed)
    odd: frozenset[str] = frozenset()
    sparse: frozenset[str] = frozenset()
    kinds: Mapping[str, Kind] = field(default_factory=dict)


def harvest(
    losses: Losses,
    scene: Scene,
    retain_graph: bool,
    scale: Tensor | None,
    taps: MutableMapping[str, Tap] | None = None,
    lean: bool = False,
    batched: bool = False,
) -> Gathered:
    """One pass per loss, or with `batched` one for all; with `lean` some more, before it, for large tensors whose gradients are not kept.

    Raises:
        InputError: for a compiled region that allows one pass only, or one whose passes are to be
            batched.
    """
    if scene.once and sum(map(bool, scene.wanted)) > 1:
        raise InputError(ONE_PASS)
    if batched and scene.unsure:
        raise InputError(
            "method='batched': a region that torch.compile made cannot be batched; use method='gradients'."
        )
    taps = {} if taps is None else taps
    formed = form(losses, scene, scale, portions(scene, taps)) if lean else Formed()
    wanted = (
        [
            {name: t for name, t in found.items() if name not in formed.grams}
            for found in scene.wanted
        ]
        if formed.grams
        else scene.wanted
    )
    roots, retain = (
        root_gradients(losses, losses.weights.tolist(), scale),
        retain_graph or bool(formed.grams),
    )
    if batched:
        try:
            gradients = gather_batched(losses.tensors, roots, wanted, retain)
        finally:
            # A graph like the last one has activations like its.
            if drop_batched(everywhere=not scene.grouped or bool(scene.retained)):
                scene.retained[:] = [True]
    else:
        gradients = gather(losses.tensors, roots, wanted, retain, taps)
    odd, sparse = unusual(gradients, {**scene.trained, **scene.others}, taps)
    sparse |= formed.sparse
    return Gathered(losses.detached(), scene, gradients, scale, taps, formed, odd, sparse)


def keep(gathered: Gathered) -> Gathered:
    """The same with gradients that nobody else holds, so that others may be added to them."""
    kept = []
    for found in gathered.gradients:
        names, gradients = list(found), list(found.values())
        found.clear()
        parameters = [gathered.scene.parameter(name) for name in names]
        kept.append(dict(zip(names, commit.owned(gradients, parameters), strict=True)))
    reached = set().union(*kept)
    kinds = {name: kind_of(t) for name, t in gathered.scene.tensors.items() if name in reached}
    return replace(gathered, gradients=kept, kinds=kinds)


def add(before: Gathered | None, new: Gathered) -> tuple[Gathered, list[Tensor], list[Tensor]]:
    """The sum of two, once `torch._foreach_add_` has added the second list to the first: gradients of `before` that go on as those of the sum.

    Raises:
        InputError: when the user's weights differ, or only one came through a GradScaler.
    """
    if before is None:
        return keep(new), [], []
    check_still_given("accumulate", before.scene, {**new.scene.trained, **new.scene.others})
    if (before.scale is None) != (new.scale is None):
        raise InputError(
            "accumulate: give the scaler for all micro-batches of a step, or for none."
        )
    weights = dict(zip(before.losses.names, before.losses.weights.tolist(), strict=True))
    for name, weight in zip(new.losses.names, new.losses.weights.tolist(), strict=True):
        if weights.setdefault(name, weight) != weight:
            raise InputError(
                f"accumulate: the weight of loss {name!r} was {weights[name]} and is {weight} now; it is one number a step."
            )
    names = (
        *before.losses.names,
        *(name for name in new.losses.names if name not in before.losses.names),
    )
    values = dict(zip(before.losses.names, before.losses.tensors, strict=True))
    for name, value in zip(new.losses.names, new.losses.tensors, strict=True):
        values[name] = values[name] + value if name in values else value
    rows = dict(zip(before.losses.names, (dict(found) for found in before.gradients), strict=True))
    totals: list[Tensor] = []
    terms: list[Tensor] = []
    new = keep(new)
    for name, found in zip(new.losses.names, new.gradients, strict=True):
        row = rows.setdefault(name, {})
        for parameter, gradient in found.items():
            if parameter in row and not _alike(row[parameter], gradient):
                row[parameter] = _sum(row[parameter], gradient)
            elif parameter in row:
                totals.append(row[parameter])
                terms.append(gradient)
            else:
                row[parameter] = gradient
    losses = Losses(
        names, tuple(values[name] for name in names), np.array([weights[name] for name in names])
    )
    scene = before.scene.joined(before.losses.names, new.scene, new.losses.names)
    gradients = [rows[name] for name in names]
    odd, sparse = unusual(gradients, {**scene.trained, **scene.others})
    scale = _both_scales(before, new)
    return (
        Gathered(
            losses,
            scene,
            gradients,
            scale,
            odd=odd,
            sparse=sparse,
            kinds={**before.kinds, **new.kinds},
        ),
        totals,
        terms,
    )


def _alike(total: Tensor, term: Tensor) -> bool:
    """Whether the second can be added to the first in place."""
    dense = total.layout == term.layout == torch.strided
    return dense and total.dtype == term.dtype and total.dtype.itemsize > 1


def _sum(total: Tensor, term: Tensor) -> Tensor:
    """Their sum in a new tensor, dense unless both are sparse; that of float8 through float32."""
    first, second = (term, total) if total.layout != torch.strided else (total, term)
    if min(first.dtype.itemsize, second.dtype.itemsize) == 1:
        return (first.float() + second.float()).to(first.dtype)
    return first + second


def check_still_given(where: str, scene: Scene, now: Mapping[str, Tensor]) -> None:
    """A name stands for the tensor whose gradient was gathered under it.

    Raises:
        InputError: when it stands for another one now.
    """
    for name, tensor in scene.trained.items():
        if now.get(name, tensor) is not tensor:
            raise InputError(
                f"{where}: parameter {name!r} is another tensor than the one whose gradient was accumulated before, because its layer was "
                "replaced. Replace layers between steps: call discard() and accumulate the micro-batches of this step again."
            )


def check_gathered(gathered: Gathered) -> None:
    """Everything finite.

    Raises:
        NonFiniteError: naming the loss, and the parameter whose gradient is not.
    """
    losses = gathered.losses
    places = [
        (loss, name, g)
        for loss, found in zip(losses.names, gathered.gradients, strict=True)
        for name, g in found.items()
    ]
    values, bad = read_finite(losses, [g for _, _, g in places])
    for name, value in zip(losses.names, values, strict=True):
        if not np.isfinite(value):
            raise NonFiniteError(f"loss {name!r} is {value}. Nothing was added.")
    for loss, name, _ in (places[i] for i in bad if places[i][1] not in gathered.scene.unchecked):
        where = called(name, gathered.scene.parameter(name))
        what = f"the gradient of objective {loss!r} for {where} has NaN or inf"
        raise NonFiniteError(f"{what}. Nothing was added.")


def _both_scales(before: Gathered, new: Gathered) -> Tensor | None:
    """Both scales in one tensor, so that no value has to come to the host now: they are compared in `combine`."""
    if before.scale is None or new.scale is None:
        return None
    return torch.cat([before.scale.reshape(-1), new.scale.reshape(-1)])


def sift(gathered: Gathered, reach: Reach) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """The gradients without the zeros of losses that do not reach, and zeros for the parameters that no loss reaches.

    Behind a compiled region every loss gives every parameter a gradient: there a loss reaches what it has ever given more than zeros.
    """
    losses, scene = gathered.losses, gathered.scene
    if not scene.unsure:
        return gathered.gradients, {}
    names = losses.names * losses.batches
    places = [
        (i, name)
        for i, found in enumerate(gathered.gradients)
        for name, g in found.items()
        if scene.unsure.get(name, 0) >> i & 1 and g.numel() > 0
    ]
    if not places:
        return gathered.gradients, {}
    found = [entries(gathered.gradients[i][name]) for i, name in places]
    largest = iter(to_host((), torch._foreach_norm(found, torch.inf)))
    kept = [dict(found) for found in gathered.gradients]
    for (i, name), size in zip(places, largest, strict=True):
        if size == 0 and names[i] not in reach.get(name, ()):
            del kept[i][name]
    left = {name for row in kept for name in row}
    idle = {name: scene.parameter(name) for _, name in places if name not in left}
    return kept, {name: torch.zeros_like(p, dtype=gradient_dtype(p)) for name, p in idle.items()}
