"""Which parameters are trained, which losses reach each, and the groups that follow."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradsurgery.autograd.compiled import COMPILED, allows_one_pass
from gradsurgery.errors import InputError

GroupKey = str | frozenset[str]
Reach = dict[str, frozenset[str]]  # parameter -> every objective that has reached it so far


@dataclass
class Group:
    """Parameters that are solved together; `plain` ones get the sum of their gradients."""

    key: GroupKey
    name: str
    parameters: dict[str, Tensor]
    plain: bool = False


@dataclass
class Reached:
    """What a loss can send gradients to.

    Attributes:
        leaves: leaf tensors by id, in the order the graph is met.
        uncertain: ids of the leaves reached only through a region that torch.compile made one node of: it gives zeros where the loss
            does not reach.
        cut: the positions in `cuts` that were met, and of them those met only behind a compiled region (`doubtful`).
        doubtful: see above.
        once: whether a compiled region was met that allows one backward pass only.
    """

    leaves: dict[int, Tensor]
    uncertain: set[int]
    cut: set[int]
    doubtful: set[int]
    once: bool


def leaves_reached(loss: Tensor, cuts: Mapping[tuple[Any, int], int] | None = None) -> Reached:
    """The leaf tensors a loss can send gradients to, without going on beyond `cuts`, outputs (node, number) of the graph.

    Raises:
        InputError: when reentrant checkpointing hides a part of the graph.
    """
    if loss.grad_fn is None:
        return Reached({id(loss): loss}, set(), set(), set(), False)
    cuts = cuts or {}
    start = _of_stacked(loss)
    if start is None:
        return Reached({}, set(), set(), set(), False)
    found: dict[int, Tensor] = {}
    cut: set[int] = set()
    seen: set[Any] = set()
    regions: list[Any] = []
    uncertain: set[int] = set()
    stack = [start]
    certain, once = True, False
    doubtful: set[int] = set()
    while stack or (certain and regions):
        if not stack:
            certain, stack = False, regions
        node, output = stack.pop()
        if cuts and (node, output) in cuts:
            if not certain and cuts[node, output] not in cut:
                doubtful.add(cuts[node, output])
            cut.add(cuts[node, output])
        elif node is not None and node not in seen:
            kind = type(node)
            if kind.__name__ == "AccumulateGrad":
                leaf: Tensor = node.variable
                if leaf.requires_grad:  # it may have been frozen since the forward pass
                    found[id(leaf)] = leaf
                    if not certain:
                        uncertain.add(id(leaf))
            elif kind.__name__ == "CheckpointFunctionBackward":
                raise InputError(
                    "a loss goes through torch.utils.checkpoint with use_reentrant=True, which hides the parameters inside from "
                    "per-loss gradients: use checkpoint(..., use_reentrant=False)."
                )
            elif kind.__name__ == COMPILED:
                once = once or allows_one_pass(node)
                if certain:
                    regions.append((node, output))
                    continue
            seen.add(node)
            stack.extend(node.next_functions)
    return Reached(found, uncertain, cut, doubtful, once)


def _of_stacked(loss: Tensor) -> tuple[Any, int] | None:
    """Where a loss starts from: for an element of `torch.stack(losses)` the loss itself, since the stack is reached by all; None for a constant."""
    node: Any = loss.grad_fn
    kind = type(node).__name__
    if loss.ndim == 0 and kind in ("UnbindBackward0", "SelectBackward0"):
        before: Any = node.next_functions[0][0]
        if type(before).__name__ == "StackBackward0":
            count = len(before.next_functions)
            start: tuple[Any, int] = before.next_functions[loss.output_nr if kind == "UnbindBackward0" else node._saved_index % count]
            return start if start[0] is not None else None
    return node, loss.output_nr


class Parameters:
    """The `parameters` argument: a Module, tensors, explicit groups of either, or None for whatever is reached."""

    def __init__(self, given: Any = None) -> None:
        self.explicit = isinstance(given, Mapping)
        self.discover = given is None
        if isinstance(given, nn.Module) or given is None:
            self._parts: dict[str, Any] = {"": given}
        elif isinstance(given, Mapping):
            if not given:
                raise InputError("parameters: an empty dict names no groups; give None for groups by reach.")
            self._parts = {str(name): part if isinstance(part, nn.Module) else self._tensors(part, str(name)) for name, part in given.items()}
        else:
            self._parts = {"": self._tensors(given, "parameters")}
        self.named()  # errors belong to the constructor

    @staticmethod
    def _tensors(given: Any, where: str) -> list[Tensor]:
        if isinstance(given, Tensor):
            return [given]
        if not isinstance(given, Iterable) or isinstance(given, str | bytes):
            hint = " Give the model, not its optimizer." if hasattr(given, "param_groups") else ""
            if isinstance(given, str):
                hint = f" The strategy goes elsewhere: backward(losses, model, {given!r}) or Surgery({given!r}, model)."
            raise InputError(f"{where}: expected a Module, tensors, or a dict of group name -> either; got {type(given).__name__}.{hint}")
        tensors = list(given)
        for i, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise InputError(f"{where}[{i}]: expected a tensor; got {type(tensor).__name__}. (named_parameters() and optimizer groups are not tensors.)")
        return tensors

    def named(self) -> dict[int, tuple[str, Tensor, str]]:
        """id -> (name, tensor, group) of the trainable tensors given; empty for None."""
        found: dict[int, tuple[str, Tensor, str]] = {}
        for group, part in self._parts.items():
            named = part.named_parameters() if isinstance(part, nn.Module) else ((str(i), t) for i, t in enumerate(part or ()))
            for name, tensor in named:
                if not tensor.requires_grad:
                    continue
                if not tensor.is_leaf:
                    raise InputError(f"parameter {name!r}{f' of group {group!r}' if group else ''} is not a leaf: give the tensors that are trained.")
                if tensor.is_complex():
                    raise InputError(f"parameter {name!r} is complex ({tensor.dtype}); only real parameters are supported.")
                before = found.setdefault(id(tensor), (f"{group}/{name}" if group else name, tensor, group))
                if before[2] != group:
                    raise InputError(f"parameter {name!r} is in two groups, {before[2]!r} and {group!r}; put it in one.")
        return found


def make_groups(
    parameters: dict[str, Tensor], explicit: Mapping[str, str] | None, reached: Mapping[str, Sequence[str]], reach: Reach
) -> tuple[list[Group], Reach]:
    """Explicit groups, or one group for each set of objectives that has reached some parameter so far.

    Args:
        parameters: name -> tensor of what is trained in this step.
        explicit: name -> group, or None.
        reached: name -> the objectives that reach it in this step.
        reach: what was known before; it is not changed.

    Returns:
        The groups in the order of the parameters, and the reach with this step added.
    """
    grown = {**reach, **{name: reach.get(name, frozenset()) | frozenset(reached[name]) for name in parameters}}
    by_reach: dict[GroupKey, Group] = {}
    titles: dict[str, int] = dict.fromkeys((explicit or {}).values(), 1)
    for name, tensor in parameters.items():
        key: GroupKey = grown[name]
        if explicit is not None and name in explicit:  # features are grouped by reach all the same
            key = explicit[name]
            by_reach.setdefault(key, Group(key, explicit[name], {}))
        elif key not in by_reach:
            title = "+".join(sorted(grown[name]))
            titles[title] = titles.get(title, 0) + 1
            by_reach[key] = Group(key, title if titles[title] == 1 else f"{title} ({titles[title]})", {})
        by_reach[key].parameters[name] = tensor
    return list(by_reach.values()), grown


def is_parameter(tensor: Tensor) -> bool:
    """Whether a leaf is a model parameter, as opposed to an input that requires grad."""
    return isinstance(tensor, nn.Parameter)


def check_dense(name: str, gradient: Tensor | None) -> None:
    """Gradients have to be dense and real."""
    if gradient is not None and gradient.layout != torch.strided:
        raise InputError(f"the gradient of parameter {name!r} is {gradient.layout}: sparse gradients are not supported; use sparse=False.")
