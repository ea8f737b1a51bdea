"""decide_on=: the parameters on whose gradients a group's weights are decided, where some are."""

from typing import Any

from gradsurgery.contract.definition import Strategy
from gradsurgery.engine.fit import WITHOUT_WEIGHTS
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.reach import Reach
from gradsurgery.engine.trace import Trace
from gradsurgery.errors import InputError, warn
from gradsurgery.gradients.factored import Tap


def deciding_parameters(
    given: Any, parameters: Parameters, strategy: Strategy, method: str, memory: str
) -> Parameters | None:
    """The setting as parameters; None where it was not given.

    Raises:
        InputError: for tensors that cannot decide, or settings that it cannot be with.
    """
    if given is None:
        return None
    if isinstance(given, str):
        raise InputError(
            f"decide_on: expected a Module or tensors; got the name {given!r}: give the module "
            f"itself, as in model.get_submodule({given!r})."
        )
    odd = sorted(WITHOUT_WEIGHTS & strategy.inputs)
    if odd:
        raise InputError(
            f"decide_on: strategy {strategy.name!r} takes `{odd[0]}`, so that no single weight "
            "per objective could be applied to the rest of a group; leave decide_on out."
        )
    if method == "batched" or memory == "low":
        what = "method='batched'" if method == "batched" else "memory='low'"
        raise InputError(f"decide_on: not with {what}; leave that at 'auto'.")
    if parameters.spread:
        raise InputError(
            "decide_on: not for sharded parameters: their passes go through the whole model, which "
            "fully_shard gathers and reduces in each, so that none would end at a part. Leave it "
            "out, or replicate the parameters (DistributedDataParallel)."
        )
    found = Parameters(given)
    if found.explicit or not found.named():
        raise InputError(
            "decide_on: expected a Module or tensors of which some are trained; got "
            f"{type(given).__name__} without any, or a dict."
        )
    own = parameters.named()
    if not parameters.discover:
        for key, (name, tensor, _) in found.named().items():
            if key not in own:
                raise InputError(
                    f"decide_on: {name!r}, of shape {list(tensor.shape)}, is not among the "
                    "parameters that were given: give a part of the model that is trained."
                )
    return found


def check_step(features: Any) -> None:
    """What a step cannot have beside `decide_on`.

    Raises:
        InputError: for features.
    """
    if features is not None:
        raise InputError(
            "decide_on: not with features=, where the gradients at the features decide."
        )


def left_out(deciding: Parameters, trace: Trace, least: int, warned: set[str]) -> Reach | None:
    """The reach of what no gradient of a single loss is formed of: the rest of the groups, if any.

    Args:
        deciding: the parameters that decide.
        trace: the step's.
        least: how many objectives a group has at least to be solved.
        warned: what was warned of before.

    Raises:
        InputError: where an objective reaches a group and none of what decides there, where a
            compiled region hides what is reached, and where no loss reaches what decides.
    """
    if trace.reach.uncertain:
        raise InputError(
            "decide_on: past a region that torch.compile made, only gradients tell which loss "
            "reaches what: do not compile the model, or leave decide_on out."
        )
    chosen = deciding.named().keys()
    if not any(id(tensor) in chosen for tensor in trace.trained.values()):
        raise InputError("decide_on: no loss reaches any of these parameters in this step.")
    left: list[str] = []  # in one order on all ranks
    shared, decided = [], False
    for group in trace.grouping[0]:
        own = [name for name, tensor in group.parameters.items() if id(tensor) in chosen]
        if not group.several(least):
            continue
        shared.append(group.name)
        if not own:
            continue
        decided = True
        reached = {objective for name in own for objective in trace.reach.ordered(name)}
        if missing := [o for o in group.objectives if o not in reached]:
            raise InputError(
                f"decide_on: objective {missing[0]!r} reaches group {group.name!r}, but none of "
                "its parameters that decide: give some that every objective of it reaches."
            )
        left += [name for name in group.parameters if name not in own]
    if shared and not decided and "decide_on" not in warned:
        warned.add("decide_on")
        warn(
            f"decide_on: none of these parameters is in a group of several objectives "
            f"({', '.join(map(repr, shared))}), so that nothing is decided by them, and all groups "
            "solve as usual. Give a part of the trunk, such as its last layer, and not of a head."
        )
    return trace.reach.only(left)


def tapped_of(layers: dict[str, Tap], trace: Trace, deciding: Parameters | None) -> dict[str, Tap]:
    """The layers whose factors processes may exchange: of gradients that are formed at all.

    What is left out follows from the reach of all processes, which none knows yet. So only the
    layers that decide are tapped, also in groups that solve as usual.
    """
    if deciding is None:
        return layers
    chosen = deciding.named().keys()
    return {name: tap for name, tap in layers.items() if id(trace.tensors[name]) in chosen}
