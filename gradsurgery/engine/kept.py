"""The gradients of a decided step, kept for what comes after the optimizer's."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gradsurgery.engine.config import Config
from gradsurgery.engine.grouping import Group
from gradsurgery.engine.solving import Solving
from gradsurgery.engine.source import GradientSource
from gradsurgery.gradients.matrix import GradientMatrix

AT_FEATURES = "with features= gradients of single losses are known at the features alone"
LOW = "memory='low' keeps no gradient of a single loss for some of its tensors"
PART = "with decide_on= gradients of single losses are formed for a part of the group"
NONE = (
    "no gradient of a single loss was formed: guard='correct' forms them, and so does "
    "Surgery(measure=1)"
)


@dataclass(frozen=True)
class Kept:
    """The gradients of a decided step.

    Attributes:
        pairs: per group its gradient matrix; its tensors may be this process's shares.
        targets: the parameters, whole, by name.
        missing: group -> why its gradients are not here.
    """

    pairs: list[tuple[Group, GradientMatrix]]
    targets: Mapping[str, Tensor]
    missing: dict[str, str]


def kept_of(config: Config, source: GradientSource, solving: Solving) -> Kept:
    """What is known of the gradients of each group, once the step is decided."""
    trace, pairs, missing = source.trace, [], dict[str, str]()
    for group, matrix in solving.matrices:
        if trace.features and not trace.features.keys().isdisjoint(group.parameters):
            missing[group.name] = AT_FEATURES
        elif source.apart and not source.apart.keys().isdisjoint(group.parameters):
            missing[group.name] = LOW if source.grams else PART
        else:
            pairs.append((group, matrix))
    there = {group.name for group, _ in solving.matrices}
    missing |= {name: NONE for name in solving.records if name not in there}
    return Kept(pairs, trace.targets, missing)
