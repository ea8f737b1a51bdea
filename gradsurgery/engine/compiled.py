"""Regions that were compiled or checkpointed: their backward pass has to run once per loss."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from gradsurgery.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")
COMPILED = "CompiledFunctionBackward"  # the kind of node that a region is
ONE_PASS = (
    "a region that torch.compile made allows one backward pass only: import gradsurgery before the "
    "first forward pass of the compiled model, or set torch._functorch.config.donated_buffer = "
    "False there; call torch.compiler.reset() to have it compiled again."
)
ONE_RECOMPUTATION = (
    "a region in torch.utils.checkpoint with {} allows one backward pass only: give "
    "method='batched', where no head lies in the region (one pass for all that several losses "
    "reach), or checkpoint the region without it."
)


def eager(function: Callable[P, T]) -> Callable[P, T]:
    """Leave a function out of what torch.compile traces, and grad mode as it was.

    A whole training step may then be compiled around it. Ctrl-C in the middle of torch's no_grad
    would otherwise leave gradients off for the rest of the program.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        if torch.compiler.is_compiling():
            disable: Any = torch._dynamo.disable
            left_out: Callable[P, T] = disable(function)
            return left_out(*args, **kwargs)
        before = torch.is_grad_enabled()
        try:
            return function(*args, **kwargs)
        finally:
            if torch.is_grad_enabled() != before:
                torch.set_grad_enabled(before)

    return call


def allow_several_passes() -> None:
    """Have regions that are compiled from now on keep what a second backward pass needs.

    By default the compiler lets a backward pass overwrite what the forward pass saved ("donated
    buffers"), and a graph that is traversed once per loss then raises. The setting costs memory,
    changes no number, and can only be made before the first forward pass.
    """
    with contextlib.suppress(ImportError, AttributeError):
        import torch._functorch.config as config

        if config.donated_buffer:
            config.donated_buffer = False
        # What is set so counts in this thread alone, in newer torch; the default counts in all.
        entry: Any = getattr(config, "_config", {}).get("donated_buffer")
        if hasattr(entry, "default"):
            entry.default = False


def allows_one_pass(node: Any) -> bool:
    """Whether a compiled region was made for one backward pass, which overwrites its buffers.

    Later settings do not change that.
    """
    metadata = getattr(getattr(node, "_forward_cls", None), "metadata", None)
    return bool(getattr(metadata, "bw_donated_idxs", None))


def explained(error: Exception) -> InputError | None:
    """What to do where a region allows one pass only, or a graph is gone; None for other errors."""
    text = str(error)
    if isinstance(error, AttributeError):
        # torch's own log of a recomputation, begun again
        again = "_GeneratorContextManager" in text and "'args'" in text
        return InputError(ONE_RECOMPUTATION.format("debug=True")) if again else None
    if "donated buffer" in text:
        return InputError(ONE_PASS)
    if "backward through the graph a second time" in text:
        return InputError(
            "the losses' graph was freed by an earlier backward pass: one call takes all losses of "
            "a forward pass; for a second pass give retain_graph=True to the first."
        )
    if "modified by an inplace operation" in text:
        return InputError(
            "the losses' backward pass needs a tensor that was written to after the forward pass. "
            "If the losses are of a forward pass before optimizer.step(): compute them again. "
            "Otherwise an operation of the model writes in place; the cause has torch's account."
        )
    if "_will_engine_execute_node" in text:
        return InputError(
            "a parameter has a hook of torch.autograd.graph.register_multi_grad_hook, which torch "
            "runs in loss.backward() only: remove it, and use register_post_accumulate_grad_hook, "
            "which fires once per step with the final .grad."
        )
    if "Float8" in text:
        what = "keep the parameter in a wider dtype, and convert it in forward."
        return InputError(f"torch cannot add gradients in float8: {what} ({error})")
    if "under selective activation checkpoint" in text:
        what = "a context_fn that selects what is recomputed"
        return InputError(ONE_RECOMPUTATION.format(what))
    return None
