"""The settings of a `Surgery`, checked: alone, and against the strategy."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from gradsurgery.contract.definition import Strategy
from gradsurgery.contract.registry import get_strategy
from gradsurgery.engine.communicator import ProcessGroup, check_processes, check_setting
from gradsurgery.engine.parameters import Parameters
from gradsurgery.errors import InputError, UnknownNameError, one_of


@dataclass(frozen=True)
class Config:
    """The settings of a `Surgery`; a strategy of None decides nothing and only inspects.

    `once`: it is for one step only.
    """

    strategy: Strategy | None
    parameters: Parameters
    seed: int = 0
    check: bool = True
    include_others: bool = True
    min_objectives: int = 2
    protect: str | None = None
    every: int = 1
    method: str = "auto"
    low_memory: bool = False
    process_group: ProcessGroup = "auto"
    measure: int | None = None
    zero: str = "keep"
    once: bool = False

    @property
    def required(self) -> Strategy:
        """The strategy of settings that decide."""
        assert self.strategy is not None
        return self.strategy


CHOICES = {
    "nonfinite": ("error", "ignore"),
    "others": ("sum", "ignore"),
    "method": ("auto", "taps", "gradients", "batched"),
    "memory": ("auto", "low"),
    "zero": ("keep", "absent"),
}
OF_THE_STEP = {"weights", "scores", "features", "scaler", "retain_graph"}
WITHOUT_WEIGHTS = {
    "rows",
    "block_grams",
    "cross",
}  # inputs of strategies that do not give one weight per objective


def config_of(
    strategy: str | Strategy,
    options: Mapping[str, Any],
    parameters: Any,
    *,
    seed: int,
    every: int,
    nonfinite: str,
    others: str,
    min_objectives: int,
    method: str,
    memory: str,
    protect: str | None,
    process_group: ProcessGroup,
    measure: int | None,
    zero: str,
) -> Config:
    """The plan of these settings; what each means `Surgery` says.

    Raises:
        UnknownNameError: for an unknown strategy or option.
        InputError: for a setting that cannot be used, or not with this strategy.
    """
    for name, value in (
        ("nonfinite", nonfinite),
        ("others", others),
        ("method", method),
        ("memory", memory),
        ("zero", zero),
    ):
        if value not in CHOICES[name]:
            raise InputError(one_of(name, str(value), CHOICES[name]))
    for name, number, least in (
        ("seed", seed, 0),
        ("every", every, 1),
        ("min_objectives", min_objectives, 1),
    ):
        if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
            raise InputError(f"{name}: expected an integer >= {least}; got {number!r}.")
    whole = isinstance(measure, Integral) and not isinstance(measure, bool)
    if measure is not None and not (whole and measure >= 1):
        raise InputError(f"measure: expected None, or an integer >= 1; got {measure!r}.")
    if protect is not None and not isinstance(protect, str):
        raise InputError(
            f"protect: expected the name of an objective; got {protect!r}. (Losses in a sequence are named '0', '1', ...)"
        )
    check_setting(process_group)
    if found := sorted(OF_THE_STEP & set(options)):
        raise InputError(
            f"{found[0]} belongs to the step: surgery.backward(losses, {found[0]}=...), not Surgery(..., {found[0]}=...)."
        )
    if not isinstance(strategy, str | Strategy) and isinstance(parameters, str | Strategy):
        name = repr(parameters if isinstance(parameters, str) else parameters.name)
        order = f"The order is Surgery({name}, model), and backward(losses, model, {name})."
        got = type(strategy).__name__
        raise UnknownNameError(f"strategy: expected a name or a Strategy; got {got}. {order}")
    chosen = get_strategy(strategy, **options)
    if "cross" in chosen.inputs and protect is not None:
        raise InputError(
            f"protect: not for strategy {chosen.name!r}, which takes losses of several batches."
        )
    odd = sorted(WITHOUT_WEIGHTS & chosen.inputs)
    if every > 1 and odd:
        raise InputError(
            f"every: strategy {chosen.name!r} takes `{odd[0]}`, so it has no weights per objective to use again; leave every=1."
        )
    if every > 1 and "observed" in chosen.inputs:
        raise InputError(
            f"every: strategy {chosen.name!r} learns from the losses of each step, which cost it one pass; leave every=1."
        )
    if memory == "low" and method == "batched":
        raise InputError(
            "method='batched' keeps the gradients of all losses: leave memory='auto', or take another method."
        )
    if memory == "low" and odd:
        raise InputError(
            f"memory='low': strategy {chosen.name!r} takes `{odd[0]}`, for which all gradients are kept; leave memory='auto'."
        )
    given = Parameters(parameters)
    check_processes(process_group, given)
    return Config(
        chosen,
        given,
        int(seed),
        check=nonfinite == "error",
        include_others=others == "sum",
        min_objectives=min_objectives,
        protect=protect,
        every=int(every),
        method=method,
        low_memory=memory == "low",
        process_group=process_group,
        measure=None if measure is None else int(measure),
        zero=zero,
    )
