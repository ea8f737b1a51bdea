"""flatness(): the largest eigenvalue of the Hessian of the summed loss, by Lanczos' method."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradsurgery.diagnostics.curvature import Curvature
from gradsurgery.diagnostics.frozen import frozen
from gradsurgery.errors import InputError

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Flatness:
    """What `flatness` found.

    Attributes:
        eigenvalue: the largest eigenvalue λ of the Hessian; the smaller, the flatter.
        error: some eigenvalue lies within ±error of it.
        converged: whether the error came below the tolerance.
        products: how many Hessian-vector products it took.
        loss: the summed loss at these weights. Compare flatness at equal loss only.
    """

    eigenvalue: float
    error: float
    converged: bool
    products: int
    loss: float


def flatness(
    model: nn.Module,
    batches: Iterable[Any],
    losses: Callable[[Any, Any], Any],
    *,
    parameters: Any = None,
    products: int = 40,
    tolerance: float = 0.01,
    seed: int = 0,
) -> Flatness:
    """Measure how sharp the summed loss is: the largest eigenvalue of its Hessian.

    λ = max over ‖v‖ = 1 of vᵀHv, with H the Hessian of the sum of the losses, averaged over the
    batches. It is the largest one, not the largest in size: at weights in training the negative
    ones can be large. By Lanczos' method from a random vector with the seed; each of its steps
    takes one product Hv, by differentiating twice, and memory for one more vector like the
    parameters. The estimate rises to λ from below.

    The model runs in the mode it is in; with dropout and the like each product repeats the same
    random numbers. Parameters, `.grad`, buffers, modes and random numbers are as before at the end.

    Args:
        model: given to `losses`.
        batches: of training examples, all of which are read and kept; they count alike. One large
            batch is fastest, since its graph is kept.
        losses: (model, batch) -> a scalar loss, or several by name or in a list.
        parameters: what H is of: a module or tensors. The model's by default.
        products: at most so many products Hv.
        tolerance: it ends when the error is below this share of the largest |eigenvalue| seen.
        seed: of the first vector.

    Raises:
        InputError: for arguments or losses that cannot be used.
        NonFiniteError: for a loss or a product that is NaN or infinite.

    Source:
        Lanczos 1950, Journal of Research of the National Bureau of Standards 45.

    Example:
        >>> import torch
        >>> from gradsurgery.diagnostics import flatness
        >>> model = torch.nn.Linear(3, 1, bias=False)
        >>> def losses(model, curved):                  # H is diagonal
        ...     return {"valley": (curved * model.weight**2).sum() / 2}
        >>> found = flatness(model, [torch.tensor([4.0, 1.0, -9.0])], losses)
        >>> round(found.eigenvalue, 4), found.converged
        (4.0, True)
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"flatness: the model is a Module; got {type(model).__name__}.")
    if not isinstance(products, int) or products < 1 or not tolerance > 0:
        raise InputError(
            f"flatness: products and tolerance are positive; got {products!r} and {tolerance!r}."
        )
    trained = _trained(model if parameters is None else parameters)
    with frozen(model) as buffers, torch.enable_grad():
        curvature = Curvature(model, list(batches), losses, trained, buffers)
        size = sum(p.numel() for p in trained)
        generator = torch.Generator().manual_seed(seed)  # on the host: the same on every device
        start = torch.randn(size, generator=generator, dtype=trained[0].dtype)
        found = largest(curvature.product, start.to(trained[0].device), products, tolerance)
    return Flatness(*found, curvature.loss)


def largest(
    product: Product, start: Tensor, products: int, tolerance: float
) -> tuple[float, float, bool, int]:
    """The largest eigenvalue of a symmetric matrix that is known by its products with vectors.

    Args:
        product: v [d] -> Hv [d].
        start: [d], random.
        products: at most so many.
        tolerance: of the error, as a share of the largest size of an eigenvalue seen.

    Returns:
        The largest Ritz value θ, the error ‖Hy − θy‖ of its vector y, whether that came below the
        tolerance, and the products taken. The error is 0 once the space is invariant.
    """
    from scipy.linalg import eigh_tridiagonal

    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    value = error = 0.0
    for taken in range(1, products + 1):
        image = product(basis[-1])
        diagonal.append(float(basis[-1] @ image))
        for _ in range(2):  # rounding leaves a part in the basis; without it the second one is due
            for vector in basis:
                image = image - (vector @ image) * vector
        rest = float(image.norm())
        theta, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside))
        value, scale = float(theta[-1]), max(abs(float(theta[0])), abs(float(theta[-1])))
        error = rest * abs(float(vectors[-1, -1]))
        floor = 10 * torch.finfo(start.dtype).eps * scale
        if rest <= floor or len(basis) == start.numel():
            return value, 0.0, True, taken
        if taken > 1 and error <= tolerance * scale:
            return value, error, True, taken
        beside.append(rest)
        basis.append(image / rest)
    return value, error, False, products


def _trained(given: Any) -> list[Tensor]:
    """The tensors that H is of."""
    tensors = given.parameters() if isinstance(given, nn.Module) else given
    found = [p for p in tensors if p.requires_grad]
    if not found:
        raise InputError("flatness: no parameter requires a gradient.")
    if wrong := [p for p in found if p.dtype != found[0].dtype or p.device != found[0].device]:
        raise InputError(
            "flatness: parameters of one dtype and device are needed; there are "
            f"{found[0].dtype} on {found[0].device} and {wrong[0].dtype} on {wrong[0].device}. "
            "Give parameters= a part of them."
        )
    if not found[0].dtype.is_floating_point:
        raise InputError(f"flatness: parameters are real numbers; got {found[0].dtype}.")
    return found
