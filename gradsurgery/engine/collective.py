"""Calls that every process of a group makes: what they exchange by, and what a failure tells."""

import functools
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from gradsurgery.engine.communicator import BEFORE, SingleProcess
from gradsurgery.engine.compiled import eager
from gradsurgery.engine.config import Config

P = ParamSpec("P")
S = TypeVar("S", bound=Any)
T = TypeVar("T")


def communicator_of(config: Config) -> SingleProcess:
    """What the steps of these settings exchange by: nothing, or the ranks of their group."""
    if config.process_group is None or isinstance(config.process_group, str):
        return SingleProcess()
    if config.sharded:
        from gradsurgery.engine.parallel.sharded import Sharded

        return Sharded(config.process_group)
    from gradsurgery.engine.parallel.replicated import Replicated

    return Replicated(config.process_group)


def collective(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Have the other processes told where a method of a Surgery ends by an exception."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._communicator.at = BEFORE
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            self._communicator.failed(error)
            raise

    return eager(call)
