"""What autograd's nodes tell of themselves, by names that torch keeps private."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from numpy.typing import NDArray

LARGEST = 1 << 12  # tensors with more entries are not followed
PARTS = "Stack Cat BlockDiag"
WRITES = "IndexPut IndexCopy IndexAdd Scatter ScatterAdd SelectScatter SliceScatter MaskedScatter"


def joins() -> Iterator[type]:
    """The kinds of nodes that put parts of one tensor together, as far as this torch has them."""
    variants = [
        f"{kind}Backward{variant}" for kind in f"{PARTS} {WRITES}".split() for variant in (0, 1)
    ]
    for name in ("CopySlices", *variants):
        found = getattr(torch._C._functions, name, None)
        if found is not None:
            yield found


def kind_of(node: Any) -> str:
    """The operation that made it, without the number of the variant."""
    return type(node).__name__.partition("Backward")[0]


def is_python(node: Any) -> bool:
    """Whether its function is written in Python, where it may have any name."""
    return isinstance(node, torch._C._FunctionBase)


def shape_of(node: Any, output: int) -> tuple[int, ...] | None:
    """The shape of an output; None where it is not known, or too large to follow."""
    try:
        found = (
            node.variable.shape if hasattr(node, "variable") else node._input_metadata[output].shape
        )
        shape = tuple(map(int, found))
    except (AttributeError, IndexError, RuntimeError, TypeError):
        return None
    return shape if math.prod(shape) <= LARGEST else None


def signed(number: int) -> int:
    """A saved integer: torch shows negative ones without their sign."""
    return number - (1 << 64) if number >= 1 << 63 else number


def saved_indices(node: Any, name: str) -> Any:
    """Saved index tensors.

    Raises:
        RuntimeError: where they were handed to hooks, which are not run for this.
    """
    raw = getattr(node, f"_raw_saved_{name}", None)
    parts = raw if isinstance(raw, tuple | list) else (raw,)
    if any(getattr(part, "unpack_hook", None) is not None for part in parts):
        raise RuntimeError("not read")
    return getattr(node, f"_saved_{name}")


def on_host(index: torch.Tensor) -> NDArray[Any]:
    """An index tensor as an array."""
    return index.detach().cpu().numpy()
