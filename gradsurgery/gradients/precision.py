"""When products may be summed in float32 first, and when all is summed in float64.

On the CPU the sums over 256 products are made in float32, which is several times faster and
accurate to 1e-6. Where squares do not fit, or gradients are so nearly dependent that 1e-6 might
decide something, all is summed again in float64.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradsurgery.types import Array

COLUMNS = 256  # so many products of float32 numbers are summed in float32, their sums in float64
LARGE = 1 << 19  # gradients with fewer entries than this are worth no float32
SQUARES = (1e-24, 1e30)  # squared norms whose terms float32 holds
# ‖x‖²‖Δᵢ‖² beside a squared norm, up to which float32 products of factored gradients are accurate
# to 1e-6 (measured: 5e-10 times that).
LOST = 2e3
INDEPENDENT = 1e-2  # least eigenvalue of the cosines down to which an accuracy of 1e-6 is plenty
# The same where all gradients are mixtures of per-example ones, whose products are accurate to 1e-7
# (measured beside float64: 5e-8 to 2e-7).
INDEPENDENT_MIXTURES = 1e-3


def products_are_whole() -> bool:
    """Whether the CPU multiplies float32 in float32, and not in fewer bits, as a user may allow."""
    # torch >= 2.9; the older question fails beside it
    found = getattr(getattr(torch.backends.mkldnn, "matmul", None), "fp32_precision", None)
    if found is None:
        return torch.get_float32_matmul_precision() == "highest"
    return found in ("none", "ieee")


def may_be_single(gradients: Iterable[Tensor]) -> bool:
    """Whether float32 sums are worth trying for many gradients: on the CPU, and none in float64."""
    cpu = all(g.device.type == "cpu" and g.dtype != torch.float64 for g in gradients)
    return cpu and products_are_whole()


def single_sufficed(
    gram: Array, squares: Array, lost: Sequence[Array], mixtures: bool = False
) -> bool:
    """Whether sums made in float32 are good enough.

    Args:
        gram: G [n, n], made of them.
        squares: the squared norms that have to be in range, of whole gradients or per tensor.
        lost: ‖x‖²‖Δᵢ‖² [n] of the factored ones.
        mixtures: whether all gradients are mixtures of per-example ones.
    """
    diagonal = np.diagonal(gram)
    if mixtures and not diagonal.all():  # mixtures of nothing are zero, and exact
        there = np.flatnonzero(diagonal)
        gram, lost = gram[np.ix_(there, there)], [bound[there] for bound in lost]
        squares, diagonal = squares[squares > 0], diagonal[there]
    if squares.size and not (squares.min() > SQUARES[0] and squares.max() < SQUARES[1]):
        return False
    if not squares.size or any(bool((bound > LOST * diagonal).any()) for bound in lost):
        return False
    independent = INDEPENDENT_MIXTURES if mixtures else INDEPENDENT
    shrunk = 1 / np.sqrt(diagonal)
    # By Gershgorin's circles, and where they do not tell, exactly.
    return (
        len(gram) == 1
        or bool((np.abs(gram) @ shrunk * shrunk).max() < 2 - independent)
        or bool(np.linalg.eigvalsh(gram * shrunk * shrunk[:, None])[0] > independent)
    )


def in_pieces(left: Tensor, right: Tensor, columns: int = COLUMNS) -> Tensor:
    """Left times right transposed [n, n] in float64, for rows [n, d].

    It is the sum of products of pieces of so many columns.
    """
    n, d = left.shape
    whole = d // columns * columns
    product = torch.zeros(n, n, dtype=torch.float64, device=left.device)
    if whole:
        first, second = (
            rows[:, :whole].reshape(n, -1, columns).transpose(0, 1) for rows in (left, right)
        )
        product += torch.bmm(first, second.transpose(1, 2)).sum(0, dtype=torch.float64)
    if whole < d:
        product += (left[:, whole:] @ right[:, whole:].T).double()
    return product


@contextlib.contextmanager
def without_autocast(device: torch.device) -> Iterator[None]:
    """Within a user's autocast region our own products would be rounded to half precision."""
    with contextlib.ExitStack() as stack:
        for kind in {"cpu", device.type}:
            if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
