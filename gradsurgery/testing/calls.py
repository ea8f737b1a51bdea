"""The contract of a call: finite, reproducible, without side effects; state that survives being saved."""

import io
import random
from typing import Any

import numpy as np
import torch

from gradsurgery.registry import State, Strategy
from gradsurgery.testing.adversarial import Array, Sample
from gradsurgery.testing.runner import BATCHES, inputs_of, run


def broken_contract(strategy: Strategy, sample: Sample) -> str | None:
    """How a call on this sample breaks the contract that every strategy keeps, or None."""
    before = _generators()
    first = run(strategy, sample)
    if _generators() != before:
        return "it draws from a global random generator; take the input `rng` (or `generator`) instead"
    if not np.isfinite(first.vector).all():
        return "the direction is not finite"
    again = run(strategy, sample)
    if not np.array_equal(first.vector, again.vector):
        return "the same call with the same random numbers gives another direction"
    return _changed_inputs(strategy, sample) or ("state" in strategy.inputs and _forgets(strategy, sample)) or None


def _changed_inputs(strategy: Strategy, sample: Sample) -> str | None:
    """Call the function on arrays of our own and see whether they stay as they were."""
    rows = torch.from_numpy(sample.jacobian.copy())
    given: dict[str, Any] = {
        **inputs_of(sample),
        "gram": sample.gram.copy(),
        "block_grams": sample.block_grams.copy(),
        "rows": rows,
        "group": "all",
        "rng": np.random.default_rng(0),
        "generator": torch.Generator().manual_seed(0),
        "cross": np.broadcast_to(sample.gram, (BATCHES, BATCHES, *sample.gram.shape)).copy(),
        "eps": 1e-15,
        "state": State().bind(sample.names, ("0",), [rows[0]]),
    }
    arrays = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    arrays["rows"] = rows.numpy()  # the same memory
    copies = {name: value.copy() for name, value in arrays.items()}
    strategy.solve(given, sample.count, len(sample.splits))
    changed = [name for name, value in arrays.items() if not np.array_equal(value, copies[name])]
    return f"it changed its input {changed[0]!r} in place" if changed else None


def _forgets(strategy: Strategy, sample: Sample) -> str | None:
    """Two steps, saved and loaded, then a third: the same as without saving."""

    def step(state: State, number: int) -> Array:
        return run(strategy, sample, step=number, state=state).vector

    kept = State()
    for number in range(2):
        step(kept, number)
    file = io.BytesIO()
    torch.save(kept.state_dict(), file)
    file.seek(0)
    loaded = State.from_state_dict(torch.load(file, weights_only=True))
    return None if np.array_equal(step(loaded, 2), step(kept, 2)) else "after its state was saved and loaded it goes on otherwise"


def _generators() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest, torch.get_rng_state().numpy().tobytes()
