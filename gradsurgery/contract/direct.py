"""A strategy called on plain gradients, or asked for the weights of a Gram matrix."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gradsurgery.contract.inputs import INPUTS, Context, unknown
from gradsurgery.contract.outcome import Outcome, shown
from gradsurgery.errors import InputError, NonFiniteError, StrategyError, UnknownNameError
from gradsurgery.gradients.matrix import Objectives
from gradsurgery.gradients.precision import without_autocast
from gradsurgery.solvers import DEFAULT_EPS, as_gram
from gradsurgery.types import Array

SINGLE_EPS = 1e-6  # the accuracy that entries in float32 are taken to have


class Bound(Protocol):
    """What is needed of a strategy here."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> frozenset[str]: ...
    def solve(self, given: Mapping[str, Any], n: int, blocks: int | None = None) -> Outcome: ...


def weights_of(strategy: Bound, gram: Any, step: int, inputs: Mapping[str, Any]) -> Array:
    """The weights for a Gram matrix: `Strategy.weights`."""
    if "rows" in strategy.inputs:
        raise StrategyError(
            f"strategy {strategy.name!r} works on the gradients' coordinates: "
            "call it on the gradients."
        )
    single = getattr(gram, "dtype", None) in (torch.float32, np.dtype(np.float32))
    plain = gram.detach().cpu().numpy() if isinstance(gram, Tensor) else gram
    array = as_gram(np.array(plain, dtype=np.float64))
    known = {
        "gram": array,
        "block_grams": array[None],
        "eps": SINGLE_EPS if single else DEFAULT_EPS,
    }
    outcome = _ask(strategy, len(array), step, {**known, **inputs})
    assert outcome.weights is not None
    return outcome.weights


def direction_of(
    strategy: Bound, gradients: Sequence[Tensor] | Tensor, step: int, inputs: Mapping[str, Any]
) -> Tensor:
    """The direction for gradients: `Strategy.__call__`."""
    rows, batches = _rows_and_batches(strategy, gradients)
    n = len(rows) // batches
    sizes = list(inputs.get("splits") or [len(rows[0])])
    if sum(sizes) != len(rows[0]):
        raise InputError(
            f"splits: {sizes} do not sum to the {len(rows[0])} coordinates of the gradients."
        )
    matrix = Objectives([torch.split(row, sizes) for row in rows], batches=batches)
    if isinstance(gradients, Tensor) and "rows" in strategy.inputs:
        matrix.take_rows(gradients.detach())
    with without_autocast(rows[0].device):
        bad = matrix.not_finite()
        if bad:
            names = inputs.get("objectives") or tuple(map(str, range(n)))
            raise NonFiniteError(
                f"the gradient of objective {', '.join(repr(names[i % n]) for i in bad)} has "
                "NaN or inf entries, or its square overflows float64."
            )
        outcome = _ask(strategy, n, step, inputs, matrix)
        if outcome.direction is not None:
            return outcome.direction.to(rows[0].dtype)
        assert outcome.weights is not None
        pieces = [piece for piece in matrix.combine(outcome.weights) if piece is not None]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _ask(
    strategy: Bound,
    n: int,
    step: int,
    inputs: Mapping[str, Any],
    matrix: Objectives | None = None,
) -> Outcome:
    """One call outside a training loop: inputs as given, and from the table what was not given."""
    for name in inputs:
        if name not in INPUTS:
            raise UnknownNameError(f"strategy {strategy.name!r}: {unknown(name)}")
    given = {name: value for name, value in inputs.items() if value is not None}
    objectives = given.get("objectives", tuple(map(str, range(n))))
    if len(objectives) != n:
        raise InputError(f"objectives: expected {n} names; got {list(objectives)}.")
    if "state" in strategy.inputs and "state" not in given:
        raise StrategyError(
            f"strategy {strategy.name!r} remembers between steps: "
            "pass state=gradsurgery.State(), the same one each time."
        )
    state = given.pop("state", None)
    tensors = {} if matrix is None else {str(i): tensor for i, tensor in enumerate(matrix.like)}
    context = Context(
        objectives, given.get("group", "all"), None, matrix, tensors, step=step, state=state
    )
    for name in strategy.inputs:
        row = INPUTS[name]
        if name in given:
            if row.read is not None:
                given[name] = row.read(name, given[name], objectives)
        elif matrix is not None or row.source != "gradients":
            given[name] = row.provide(context)
    blocks = len(tensors) or len(given.get("block_grams", (None,)))
    outcome = strategy.solve(given, n, blocks)
    if state is not None and "state" in given:
        state.adopt(given["state"])
    return outcome


def _rows_and_batches(
    strategy: Bound, gradients: Sequence[Tensor] | Tensor
) -> tuple[list[Tensor], int]:
    """The gradients as a list of [d], batch after batch, and how many batches there are."""
    if "cross" not in strategy.inputs:
        return _as_rows(gradients), 1
    parts = [_as_rows(part) for part in gradients]
    counts = [len(part) for part in parts]
    if len(set(counts)) > 1:
        raise InputError(f"gradients: every batch has the same objectives; got {counts} gradients.")
    return _as_rows([row for part in parts for row in part]), len(parts)


def _as_rows(gradients: Sequence[Tensor] | Tensor) -> list[Tensor]:
    if isinstance(gradients, Tensor) and gradients.ndim != 2:
        raise InputError(
            "gradients: expected one [n, d] tensor or a list of [d] tensors; "
            f"got a tensor of shape {list(gradients.shape)}."
        )
    rows = [g.detach() if isinstance(g, Tensor) else g for g in gradients]
    if not rows:
        raise InputError("gradients: at least one is needed; got none.")
    for i, row in enumerate(rows):
        if not isinstance(row, Tensor):
            raise InputError(f"gradients[{i}]: expected a tensor; got {type(row).__name__}.")
        alike = (row.shape, row.device, row.dtype) == (rows[0].shape, rows[0].device, rows[0].dtype)
        if row.ndim != 1 or not alike:
            raise InputError(
                "gradients: expected [d] vectors alike in length, dtype and device; "
                f"got {shown(rows[0])} and {shown(row)}."
            )
        if not row.is_floating_point() or row.layout != torch.strided:
            raise InputError(
                f"gradients[{i}]: expected dense floating point numbers; "
                f"got {row.dtype}, {row.layout}."
            )
    return rows
