"""Gradients of another form than their parameter, brought into real coordinates.

A complex one counts as pairs of real numbers: ⟨gᵢ, gⱼ⟩ is then the real part of the complex
product, the one that says how a loss changes. `Tensor.grad_dtype` gives gradients a dtype that is
not the parameter's. Float8 has no sums, and counts as float32. Sparse gradients stay sparse.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from gradsurgery.errors import InputError

Rows = list[list[Tensor | None]]
Buffers = dict[tuple[torch.dtype, torch.device], Tensor]
REAL = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})


def gradient_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype of a parameter's gradient, as far as the parameter says (torch >= 2.10)."""
    return getattr(parameter, "grad_dtype", None) or parameter.dtype


def unusual(
    gradients: Sequence[Mapping[str, Tensor]],
    parameters: Mapping[str, Tensor],
    tapped: Iterable[str] = (),
) -> tuple[frozenset[str], frozenset[str]]:
    """The names whose gradients are not dense, real and of the parameter's dtype; and the sparse.

    Args:
        gradients: for each loss name -> gradient.
        parameters: name -> parameter.
        tapped: names whose gradients are those at a layer's output.
    """
    dtypes = {g.dtype for found in gradients for g in found.values()}
    layouts = {g.layout for found in gradients for g in found.values()}
    odd = {n for n in tapped if gradient_dtype(parameters[n]) != parameters[n].dtype}
    ordinary = (
        len(dtypes) < 2 and dtypes <= REAL and {p.dtype for p in parameters.values()} == dtypes
    )
    if ordinary and layouts <= {torch.strided}:  # what nearly every step is, known at little cost
        return frozenset(odd), frozenset()
    sparse = set()
    for found in gradients:
        for name, g in found.items():
            if g.layout != torch.strided:
                sparse.add(name)
            if g.dtype not in REAL or g.dtype != parameters[name].dtype:
                odd.add(name)
    return frozenset(odd | sparse), frozenset(sparse)


def entries(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, at least one: of a sparse one those that are there."""
    if gradient.layout == torch.sparse_coo:
        values = gradient._values().reshape(-1)
        return torch.cat([values, values.new_zeros(1)])
    return gradient.float() if gradient.dtype.itemsize == 1 else gradient


def check_layout(name: str, parameter: Tensor) -> None:
    """Parameters are dense tensors.

    Raises:
        InputError: for one that is sparse, nested, or laid out for one library.
    """
    if parameter.layout != torch.strided or parameter.is_nested:
        form = "a nested tensor" if parameter.is_nested else str(parameter.layout)
        raise InputError(
            f"{called(name, parameter)} is {form}: only dense parameters are supported. "
            "Keep it dense and convert it in forward, or freeze it with requires_grad_(False)."
        )


def check_not_sparse(
    sparse: Iterable[str],
    parameters: Mapping[str, Tensor],
    strategy: str,
    group: str,
) -> None:
    """Surgery takes dense gradients.

    Raises:
        InputError: naming the first parameter of a group that has a sparse one.
    """
    for name in parameters:
        if name in sparse:
            raise InputError(
                f"the gradient of {called(name, parameters[name])} is sparse, and strategy "
                f"{strategy!r} combines several objectives in its group {group!r}: leave it out of "
                "parameters=, and it gets the plain sum, sparse as torch gives it; or make it "
                "dense with sparse=False."
            )


def in_coordinates(
    rows: Rows,
    parameters: Mapping[str, Tensor],
    odd: frozenset[str],
    tapped: Iterable[str],
) -> tuple[list[Tensor], frozenset[int]]:
    """Bring the gradients of the names in `odd` into real coordinates, in place.

    Returns:
        For each parameter a tensor of its coordinates' shape, dtype and device, whose entries mean
        nothing; and the positions of those that are sparse.
    """
    like: list[Tensor] = []
    sparse: set[int] = set()
    buffers: Buffers = {}
    room = max((2 * parameters[name].numel() for name in odd if name in parameters), default=0)
    for t, (name, parameter) in enumerate(parameters.items()):
        if name not in odd:
            like.append(parameter)
            continue
        dtype = _wide(gradient_dtype(parameter))
        found = [] if name in tapped else [g for row in rows if (g := row[t]) is not None]
        forms = {(g.layout, g.sparse_dim() if g.layout == torch.sparse_coo else 0) for g in found}
        if len(forms) == 1 and forms != {(torch.strided, 0)}:
            sparse.add(t)
        elif found:  # some may be dense and some sparse: their sum is dense
            dtype = _wide(found[0].dtype)
            for g in found[1:]:
                dtype = torch.promote_types(dtype, _wide(g.dtype))
            for row in rows:
                row[t] = _real(row[t], dtype)
        like.append(_empty(parameter, dtype, buffers, room))
    return like, frozenset(sparse)


def as_parameters(
    directions: Sequence[Tensor | None],
    parameters: Mapping[str, Tensor],
    odd: frozenset[str],
) -> list[Tensor | None]:
    """Directions as `.grad` takes them: those of the names in `odd` are in real coordinates."""
    pairs = zip(parameters.items(), directions, strict=True)
    return [d if d is None or name not in odd else _as_parameter(d, p) for (name, p), d in pairs]


def narrowed(directions: Iterable[Tensor | None]) -> bool:
    """Whether a direction was brought into float8, whose range it may leave."""
    return any(d is not None and d.dtype.itemsize == 1 for d in directions)


def _as_parameter(direction: Tensor, parameter: Tensor) -> Tensor:
    if direction.layout != torch.strided:
        return direction
    if not parameter.is_complex():
        dtype = gradient_dtype(parameter)
        if dtype in REAL:
            return direction
        # torch brings what is out of range to the largest number without a word: NaN is seen
        beyond = direction.abs() > torch.finfo(dtype).max
        return direction.masked_fill(beyond, torch.nan).to(dtype)
    form = torch.view_as_real(parameter.detach().resolve_conj())
    if direction.stride() != form.stride():
        direction = torch.empty_like(form, dtype=direction.dtype).copy_(direction)
    return torch.view_as_complex(direction)


def _wide(dtype: torch.dtype) -> torch.dtype:
    dtype = dtype.to_real()
    return dtype if dtype in REAL else torch.float32


def _real(gradient: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Dense, real, and of this dtype; a view where that is possible."""
    if gradient is None:
        return None
    if gradient.layout != torch.strided:
        gradient = gradient.to_dense()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient.resolve_conj().resolve_neg())
    return gradient.to(dtype)


def _empty(parameter: Tensor, dtype: torch.dtype, buffers: Buffers, room: int) -> Tensor:
    """The parameter in real numbers; in another dtype its form, all of them in the same memory."""
    seen = parameter.detach()
    if seen.is_complex():
        seen = torch.view_as_real(seen.resolve_conj())
    if seen.dtype == dtype:
        return seen
    steps = zip(seen.shape, seen.stride(), strict=True)
    if 1 + sum((size - 1) * step for size, step in steps) > seen.numel():
        return torch.empty_like(seen, dtype=dtype)
    key = dtype, seen.device
    if key not in buffers:
        buffers[key] = torch.empty(room, dtype=dtype, device=seen.device)
    return buffers[key].as_strided(seen.shape, seen.stride())


def called(name: str, parameter: Tensor) -> str:
    """How messages name a parameter: by its name, or by its shape where it has none."""
    prefix, numbered, _ = name.partition("#")
    if numbered and prefix in ("", "others"):
        return f"a parameter of shape {list(parameter.shape)}"
    return f"parameter {name!r}"
