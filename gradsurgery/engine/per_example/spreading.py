"""Whether an example may come to act on others, though it does not now.

A pass that starts with NaN at some examples brings NaN to all that depends on them, also through
coefficients that are zero: 0 · NaN is NaN. So a gate that opens later is found while it is closed.
Where something is picked by a condition or an index NaN goes only where the entry goes.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradsurgery.engine.per_example.capture import Deltas, capture
from gradsurgery.engine.per_example.plan import Plan
from gradsurgery.engine.source import GradientSource
from gradsurgery.errors import InputError

NORMS = ("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0")
ADVICE = "Give the objectives as a dict of scalars, which takes a pass each. Nothing was changed."


def check_norms(nodes: Iterable[Any], names: Mapping[int, str], examples: int) -> None:
    """Batch normalization in training mode mixes examples: the graph says so.

    Instance normalization is one whose examples are among the channels.

    Args:
        nodes: the graph's.
        names: id of a parameter -> what it is called.
        examples: B.

    Raises:
        InputError: naming the layer by its parameters.
    """
    for node in nodes:
        if type(node).__name__ in NORMS and getattr(node, "_saved_training", True):
            shape = getattr(node, "_input_metadata", [None])[0]
            if examples == 1 or (shape is not None and shape.shape[0] == 1):
                continue
            own = [
                names[id(leaf)]
                for after, _ in node.next_functions[1:]
                if (leaf := getattr(after, "variable", None)) is not None and id(leaf) in names
            ]
            which = f" (the layer with {', '.join(own)})" if own else ""
            raise InputError(
                f"PerExample: batch normalization in training mode{which} mixes the examples of a "
                "batch, so that no example's loss has a gradient of its own at a layer. Use "
                f"GroupNorm or LayerNorm, or .eval() for these layers. {ADVICE}"
            )


def spared(examples: int) -> NDArray[np.bool_]:
    """Which examples start without NaN: the first, and about half of the others.

    Not the second, the middle one and the last: pairs of neighbours, of halves, and of a batch and
    its reverse are parted.
    """
    own = np.random.default_rng(0).random(examples) < 0.5
    own[[1 % examples, examples // 2, -1]] = False
    own[0] = True
    return own


def may_spread(
    source: GradientSource,
    plan: Plan,
    nodes: Mapping[int, Any],
    features: Mapping[str, Tensor],
    retain_graph: bool,
) -> bool:
    """Whether NaN at some examples arrives at others, at some node or feature.

    A hook of the user's that raises at NaN ends the pass, which then says nothing: what was known
    stays.

    Args:
        source: the step.
        plan: with the layouts found.
        nodes: number -> node, those that a pass listens to.
        features: by name.
        retain_graph: whether the graph is needed afterwards.
    """
    examples = source.losses.examples
    assert examples is not None
    if torch.is_anomaly_enabled():  # it raises at NaN, and prints
        return plan.open
    own = spared(examples.count)
    lost = np.where(own, 0.0, np.nan).reshape(-1, *[1] * (examples.losses.ndim - 1))
    root = examples.root(examples.profiles[0] + lost, source.scale)
    try:
        found, given = capture(examples.losses, root, nodes, [*features.values()], retain_graph)
    except Exception:
        return plan.open
    found.update({name: [g] for name, g in zip(features, given, strict=True)})
    return spread_over(found, plan, own)


def spread_over(found: Deltas, plan: Plan, own: NDArray[np.bool_]) -> bool:
    """Whether gradients at nodes have NaN at examples that started without."""
    rows = torch.as_tensor(np.flatnonzero(own))
    for number, given in found.items():
        for k, delta in enumerate(given):
            known: Sequence[Any] = plan.layouts.get(number, ())
            if delta is None or k >= len(known) or known[k] is None:
                continue
            tried: Iterable[Any] = [known[k]]
            if number in plan.unsure:  # any may be the layout
                tried = plan.unsure[number][k]
                if not tried:  # it was zero: there is a check where it no longer is
                    continue
            if not any(
                bool(torch.isfinite(at.split(delta, len(own))[rows.to(delta.device)]).all())
                for at in tried
            ):
                return True
    return False
