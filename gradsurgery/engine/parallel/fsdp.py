"""fully_shard (FSDP2): whose shard a tensor is, and backward passes on its own machinery.

FSDP2 gathers whole parameters, to which the losses' graph leads, and reduces their gradients into
`.grad` of the shards at the end of `.backward()`. `torch.autograd.grad` does not go through that.
This file alone uses what is private in it.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery.engine.commit import SET_GRAD
from gradsurgery.engine.graph import Graph
from gradsurgery.errors import InputError

Named = dict[str, Tensor]


def _states() -> list[Any]:
    """The states of all modules that were given to fully_shard and live."""
    module = sys.modules.get("torch.distributed._composable_state")
    found = (ref() for ref in getattr(module, "_module_state_mapping", {}).values())
    states = {id(s): s for s in found if s is not None and _groups(s)}
    return list(states.values())


def _groups(state: Any) -> Sequence[Any]:
    """The parameter groups of a state, as this torch has them; none of other states."""
    if hasattr(state, "_fsdp_param_groups"):
        groups: Sequence[Any] = state._fsdp_param_groups
        return groups
    group = getattr(state, "_fsdp_param_group", None)
    return () if group is None else (group,)


def _managed(states: Iterable[Any]) -> Iterator[Any]:
    return (part for state in states for group in _groups(state) for part in group.fsdp_params)


def shards_of_whole() -> dict[int, Tensor]:
    """The shard of each parameter that is or was gathered, by the id of the whole one.

    Modules hold the whole ones between forward and backward, and the graph always leads there.
    """
    pairs = ((getattr(part, "_unsharded_param", None), part) for part in _managed(_states()))
    return {id(found): part.sharded_param for found, part in pairs if found is not None}


def managed_shards() -> frozenset[int]:
    """The ids of all parameters that fully_shard manages."""
    return frozenset(id(part.sharded_param) for part in _managed(_states()))


def with_shards(graph: Graph) -> bool:
    """Let the graph's leaves be shards, where they are the whole parameters of fully_shard.

    Returns:
        Whether some are.
    """
    shards = shards_of_whole()
    if shards.keys().isdisjoint(graph.leaves):
        return False
    graph.sharded = True
    graph.at = {id(shards[key]) if key in shards else key: n for key, n in graph.at.items()}
    leaves = [shards.get(key, leaf) for key, leaf in graph.leaves.items()]
    graph.leaves = {id(leaf): leaf for leaf in leaves}
    return True


class Passes:
    """The backward passes of one step, on FSDP2's own machinery.

    Args:
        leaves: what the losses' graph leads to.
        keep_whole: whether parameters stay gathered from one pass to the next, which saves n - 1
            all-gathers for n passes.

    Raises:
        InputError: where FSDP2 is set not to reduce gradients, or has some that it did not reduce.
    """

    def __init__(self, leaves: Iterable[Tensor], keep_whole: bool) -> None:
        reached = {id(leaf): leaf for leaf in leaves}
        states = _states()
        holding = [s for s in states if any(id(p.sharded_param) in reached for p in _managed([s]))]
        contexts = {id(state._state_ctx) for state in holding}
        self._states = [state for state in states if id(state._state_ctx) in contexts]
        self._groups = [group for state in self._states for group in _groups(state)]
        self._reached = [group for state in holding for group in _groups(state)]
        self._keep_whole = keep_whole
        managed = {id(p.sharded_param): p.sharded_param for p in _managed(self._states)}
        self._leaves = list({**reached, **managed}.values())
        _check_reducing(self._groups)
        for leaf in reached.values():
            if isinstance(leaf, nn.Parameter) and id(leaf) not in managed:
                raise InputError(
                    f"the losses reach a parameter of shape {list(leaf.shape)} that fully_shard "
                    "does not manage (outside of the modules it was given, or in ignored_params): "
                    "its gradient would differ between the ranks. Give fully_shard the whole model."
                )

    def __call__(
        self,
        losses: Sequence[Tensor],
        roots: Sequence[Tensor],
        together: Sequence[tuple[Sequence[int], Mapping[str, Tensor]]],
        retain_graph: bool,
    ) -> list[Named]:
        """Per pass the gradients of what it asks for; None is left out.

        Args:
            losses: scalars.
            roots: the gradient each starts from.
            together: per pass the positions of its losses, and what it asks for.
            retain_graph: whether the graphs are needed afterwards.
        """
        found = []
        with _put_aside(self._leaves), self._clean(), self._whole() as last_begins:
            for i, (members, wanted) in enumerate(together):
                last = i + 1 == len(together)
                if last:
                    last_begins()
                starts, own = [losses[k] for k in members], [roots[k] for k in members]
                torch.autograd.backward(starts, own, retain_graph=retain_graph or not last)
                found.append({n: t.grad for n, t in wanted.items() if t.grad is not None})
                _set(self._leaves, repeat(None))
        return found

    @contextlib.contextmanager
    def _clean(self) -> Iterator[None]:
        """After an exception FSDP2 is as before the forward pass, and the next step is right."""
        try:
            yield
        except BaseException as error:
            for state in self._states:
                if state._is_root and hasattr(state, "_reset_iter_state"):
                    state._reset_iter_state()
            for part in _managed(self._states):
                part.unsharded_accumulated_grad = None
                if (gathered := getattr(part, "_unsharded_param", None)) is not None:
                    gathered.grad = None  # else the next pass would add to it
            if isinstance(error, RuntimeError) and "setStorage" in str(error):
                raise InputError(PARTLY) from error
            raise

    @contextlib.contextmanager
    def _whole(self) -> Iterator[Callable[[], None]]:
        """Within, parameters stay gathered, if asked for, until the last pass begins."""
        before = [group.reshard_after_backward for group in self._groups]

        def restore() -> None:
            for group, reshard in zip(self._groups, before, strict=True):
                group.reshard_after_backward = reshard

        try:
            if self._keep_whole:
                for group in self._reached:
                    group.unshard()
                    group.wait_for_unshard()
                for group in self._groups:
                    group.reshard_after_backward = False
            yield restore
        finally:
            restore()


PARTLY = (
    "a loss reaches some of the modules that one fully_shard([...]) gathers together and not the "
    "others, and they were resharded: torch does not gather them for such a pass. Give "
    "Surgery(..., memory='high'), or fully_shard(..., reshard_after_forward=False), or shard them "
    "apart. Nothing was changed."
)


def _check_reducing(groups: Iterable[Any]) -> None:
    for group in groups:
        if not (group.reduce_grads and group.all_reduce_grads):
            raise InputError(
                "fully_shard: set_requires_gradient_sync(False) or set_requires_all_reduce(False) "
                "is set, under which gradients are not reduced between the ranks: set it to True. "
                "Micro-batches go through surgery.accumulate(losses)."
            )
        if any(map(_waiting, group.fsdp_params)) or group._partial_reduce_output is not None:
            raise InputError(
                "fully_shard has gradients of an earlier backward pass that it has not reduced "
                "(set_requires_gradient_sync(False)), which would be added to the first loss's: "
                "reduce them first, with a backward pass after set_requires_gradient_sync(True)."
            )


def _waiting(part: Any) -> bool:
    """Whether a parameter has a gradient that was not reduced."""
    gathered = getattr(part, "_unsharded_param", None)
    own = None if gathered is None else gathered.grad
    return own is not None or part.unsharded_accumulated_grad is not None


def _set(tensors: Iterable[Tensor], grads: Iterable[Tensor | None]) -> None:
    deque(map(SET_GRAD, tensors, grads), 0)


@contextlib.contextmanager
def _put_aside(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Within, `.grad` is empty and no hook after accumulation fires: the step is not decided yet.

    FSDP2 fires these hooks itself, in every pass; an optimizer in one would step per loss.
    """
    before = [tensor.grad for tensor in tensors]
    found = (getattr(tensor, "_post_accumulate_grad_hooks", None) for tensor in tensors)
    hooks = [(own, dict(own)) for own in found if own]
    try:
        _set(tensors, repeat(None))
        for own, _ in hooks:
            own.clear()
        yield
    finally:
        _set(tensors, before)
        for own, kept in hooks:
            own.update(kept)
