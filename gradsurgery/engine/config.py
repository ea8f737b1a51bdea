"""The settings of a Surgery: one table, checked in one place.

The signature of `config_of` is the table, and its docstring has the texts: `Surgery` and `backward`
take theirs from it. A new setting is a parameter there, a field of `Config`, and the line that uses
it.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Integral
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import torch.distributed as dist
from torch import Tensor, nn

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.registry import get_strategy, reserve
from gradsurgery.engine.communicator import AVAILABLE, ProcessGroup
from gradsurgery.engine.deciding import deciding_parameters
from gradsurgery.engine.fit import check_fit
from gradsurgery.engine.graph import Graph
from gradsurgery.engine.parallel.meshes import check_sharded
from gradsurgery.engine.parameters import Parameters
from gradsurgery.engine.processes import (
    check_not_sharded,
    check_not_static,
    check_processes,
    check_setting,
    found_group,
)
from gradsurgery.errors import InputError, UnknownNameError, one_of

ParametersLike = nn.Module | Iterable[Tensor] | Mapping[str, nn.Module | Iterable[Tensor]] | None
Seed = Annotated[int, 0]  # an integer, and the least that is accepted
Count = Annotated[int, 1]
OF_THE_STEP = {"weights", "scores", "features", "scaler", "retain_graph", "count"}
OF_THE_OPTIMIZER = {"optimizer", "guard", "guard_on", "bound", "between", "metric"}


@dataclass(frozen=True)
class Config:
    """The settings of a `Surgery`, as `config_of` says; a strategy of None decides nothing.

    `once` is whether they are for one step only, `sharded` whether the parameters were spread over
    processes when they were given.
    """

    strategy: Strategy | None
    parameters: Parameters
    seed: int
    every: int
    nonfinite: str
    others: str
    min_objectives: int
    method: str
    memory: str
    protect: str | None
    process_group: ProcessGroup
    measure: int | None
    zero: str
    length: str | None
    decide_on: Parameters | None
    once: bool = False
    sharded: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "Config":
        """A process group is not copied."""
        memo[id(self.process_group)] = self.process_group
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return Config(**{name: deepcopy(value, memo) for name, value in own.items()})

    @cached_property
    def check(self) -> bool:
        """Whether NaN and inf are errors."""
        return self.nonfinite == "error"

    @cached_property
    def include_others(self) -> bool:
        """Whether reached parameters that were not given get the plain sum."""
        return self.others == "sum"

    @cached_property
    def low_memory(self) -> bool:
        """Whether no gradient of a single loss is kept for large tensors."""
        return self.memory == "low"

    @cached_property
    def required(self) -> Strategy:
        """The strategy of settings that decide."""
        assert self.strategy is not None
        return self.strategy

    def check_processes(self, graph: Graph | None = None) -> None:
        """Refuse what this process cannot decide alone; free without `torch.distributed`.

        Raises:
            InputError: for wrapped or sharded models, and for all others with several ranks.
        """
        if AVAILABLE and dist.is_initialized():
            if self.process_group == "auto":
                check_processes(self.parameters, graph)
            elif not self.sharded and graph is not None:
                check_not_sharded(self.parameters, graph)
                if self.process_group is not None:
                    check_not_static(graph)


def config_of(
    strategy: str | Strategy,
    parameters: ParametersLike = None,
    *,
    seed: Seed = 0,
    every: Count = 1,
    nonfinite: Literal["error", "ignore"] = "error",
    others: Literal["sum", "ignore"] = "sum",
    min_objectives: Count = 2,
    method: Literal["auto", "taps", "gradients", "batched"] = "auto",
    memory: Literal["auto", "low", "high"] = "auto",
    protect: str | None = None,
    process_group: ProcessGroup = "auto",
    measure: Count | None = None,
    zero: Literal["keep", "absent"] = "keep",
    length: Literal["sum"] | None = None,
    decide_on: nn.Module | Iterable[Tensor] | None = None,
    **options: Any,
) -> Config:
    """The settings, checked: each alone, and against the strategy.

    Args:
        strategy: a name (`gradsurgery.strategy_names()`) or a `Strategy`.
        parameters: a Module; tensors; a dict of group name -> Module or list of tensors (explicit
            groups; a group of one tensor is a list of one); or None: every `nn.Parameter` the
            losses reach. A Module is asked again at every step, so that layers may be added or
            frozen.
        seed: where randomised strategies start; their numbers follow from (seed, step, group).
        every: solve in every k-th step and use its weights again in the steps between. These cost
            one backward pass per group of several objectives and one for all others, instead of one
            per loss. A step in which a group has other objectives than when it was solved is
            solved. For strategies with one weight per objective.
        nonfinite: "error" raises on NaN or inf in a loss or gradient and leaves everything as it
            was; "ignore" does not check, and lets them pass into `.grad` as torch does.
        others: what a reached parameter that was not given gets: "sum" (as in torch) or "ignore"
            (nothing).
        min_objectives: a group that fewer losses reach gets the plain gradient.
        method: how Gram matrices are formed. "gradients": from the gradient of every loss for every
            parameter. "taps": for the weights of linear layers from the gradients at the layers'
            outputs, which are exact too and form no gradient of a single loss for them; other
            layers, and weights with other uses, are materialised. "auto": taps where counting
            operations says that it is cheaper (few rows of input for the layer's width). With both
            convolutions are tapped where counting says so (few places, many channels). Over a
            process group, "auto" taps linear layers where that sends at most half the bytes (few
            rows of the joined batch for the width), and "taps" all; others send gradients.
            "batched": all gradients in two passes, one of them batched over the losses (vmap). On a
            CPU that was slower wherever it was measured, so that "auto" never does. Layers that
            batch must be able to (compiled regions cannot), and what the graph shows counts as
            reached.
        memory: "low" keeps no gradient of a single loss for large tensors. Linear layers with few
            rows of input for their width are tapped. What then does not fit into the room of the
            parameters is asked for in chunks: a pass per loss for each, which gives its Gram
            matrix, and one weighted pass for its direction. That is up to n times as many passes
            (n losses), for about the memory of two gradients in place of n. For strategies with one
            weight per objective. "high" is for models under fully_shard (FSDP2): their parameters
            stay gathered from one loss's pass to the next. That saves n - 1 all-gathers, and needs
            the room of the whole parameters until the last pass. Elsewhere it is "auto".
        protect: the name of an objective that no direction may conflict with, whatever the
            strategy. On every group that it shares with others, the direction loses its component
            against that objective's gradient (Chaudhry et al. 2019, equation 11).
        process_group: the processes that decide together, each on its part of the batch: the result
            is that of one process on the joined batch. "auto" takes the group of a model under DDP,
            and all ranks over which parameters are sharded (fully_shard, tensor parallel). It
            refuses other models while `torch.distributed` is initialised with more than one rank:
            for these give the group, such as `torch.distributed.group.WORLD`. None decides in this
            process alone, for users who reduce gradients between the ranks themselves. With a group
            every call but `state_dict` is made by all of its ranks.
        measure: k measures conflicts in every k-th step, also under strategies that form no
            gradient of a single loss. The Record then has the Gram matrix and what follows from it.
            Such a step costs one more backward pass per loss; its direction is the same. None
            measures only where the gradients are formed anyway.
        zero: what an objective is whose gradient is exactly zero in a group (no labels in this
            batch, a satisfied margin, a weight of 0). "keep" solves with it: to some strategies
            that is a stationary point, and a warning says so once. "absent" solves on the others,
            as if it had not been given for that group; its state stays, and the Record names it.
            Strategies that form no gradients ignore it.
        length: "sum" brings the strategy's direction to the length of the sum of the gradients, in
            every group of several objectives: a learning rate that was tuned for the sum then fits.
            A direction of zero stays zero. It is the last thing done, after `protect`; the weights
            in the Record have the factor in them. Strategies that act on losses, or look at no
            gradient, then cost a pass per loss as others do, unless all their weights are 1. With
            `every=k` the steps between use the weights as they were scaled when they were solved.
            Under `features=` the lengths are those at the features. None keeps the strategy's own.
        decide_on: a Module or tensors, such as the last layer of the trunk. In each group that has
            some of them the strategy solves on the gradients there alone, and one weighted pass
            applies its weights to the whole group: the passes per loss go no deeper than these.
            Its claims, `protect`, `length` and the Record's Gram matrix are of that part. Groups
            without any of them solve as usual. For strategies with one weight per objective.
        **options: the strategy's options.

    Raises:
        UnknownNameError: for an unknown strategy or option.
        InputError: for a setting that cannot be used, or not with this strategy.
    """
    given = locals()
    settings = {name: _checked(name, given[name]) for name in SETTINGS}
    check_setting(process_group)
    if protect is not None and not isinstance(protect, str):
        raise InputError(
            f"protect: expected the name of an objective; got {protect!r}. (Losses in a sequence "
            "are named '0', '1', ...)"
        )
    if found := sorted(OF_THE_STEP & set(options)):
        raise InputError(
            f"{found[0]} belongs to the step: surgery.backward(losses, {found[0]}=...), "
            f"not Surgery(..., {found[0]}=...)."
        )
    if not isinstance(strategy, str | Strategy) and isinstance(parameters, str | Strategy):
        name = repr(parameters if isinstance(parameters, str) else parameters.name)
        order = f"The order is Surgery({name}, model), and backward(losses, model, {name})."
        got = type(strategy).__name__
        raise UnknownNameError(f"strategy: expected a name or a Strategy; got {got}. {order}")
    try:
        chosen = get_strategy(strategy, **options)
    except UnknownNameError as error:
        if not (found := sorted(OF_THE_OPTIMIZER & set(options))):
            raise
        raise UnknownNameError(
            f"{error} {found[0]} belongs to surgery.step(losses, optimizer, {found[0]}=...), which "
            "makes the optimizer's step as well."
        ) from error
    check_fit(chosen, every, protect, method, memory)
    own = Parameters(parameters)
    settings["decide_on"] = deciding_parameters(decide_on, own, chosen, method, memory)
    config = Config(chosen, own, **settings)
    if config.parameters.spread:
        check_sharded(chosen, method, memory)
    group = found_group(process_group, config.parameters)
    sharded = config.parameters.spread
    if sharded or group is not process_group:
        config = replace(config, process_group=group, sharded=sharded)
    config.check_processes()
    return config


def _checked(name: str, value: Any) -> Any:
    """A setting's value, if it is one of the accepted ones or an integer that is large enough.

    Raises:
        InputError: for any other.
    """
    accepted = SETTINGS[name]
    either = get_origin(accepted) in (Union, UnionType)
    kinds = get_args(accepted) if either else (accepted,)
    if value is None and type(None) in kinds:
        return value
    only, *others = [kind for kind in kinds if kind is not type(None)]
    choices = get_args(only) if get_origin(only) is Literal and not others else ()
    if choices and value not in choices:
        raise InputError(one_of(name, str(value), choices))
    if get_origin(only) is not Annotated:
        return value
    least = only.__metadata__[0]
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        none = "None, or " if either else ""
        raise InputError(f"{name}: expected {none}an integer >= {least}; got {value!r}.")
    return int(value)


# name -> accepted values, as annotated
SETTINGS = {
    name: hint
    for name, hint in get_type_hints(config_of, include_extras=True).items()
    if name not in ("strategy", "parameters", "options", "return")
}
reserve(("strategy", "parameters", *SETTINGS, *OF_THE_STEP))
