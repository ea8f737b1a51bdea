"""The contract of a call: finite, reproducible, no side effects; a state that can be saved."""

import copy
import io
import random
from typing import Any

import numpy as np
import torch

from gradsurgery.contract import State, Strategy
from gradsurgery.contract.inputs import INPUTS
from gradsurgery.errors import InputError
from gradsurgery.testing.answers import UnusableAnswer
from gradsurgery.testing.context import context_of, inputs_of
from gradsurgery.testing.runner import SKIP, known, later, permuted, run
from gradsurgery.testing.sample import Sample
from gradsurgery.types import Array

ABSENT = "with some objectives absent or in another order than before"
NOT_REPEATED = "the same call with the same random numbers gives another direction"
WIDER = "compute on rows.float(), and return it as .to(rows.dtype)"
SAFE = (1e-15, 1e15)  # norms of gradients that bfloat16 holds, their squares included


def broken_contract(strategy: Strategy, sample: Sample) -> str | None:
    """How a call on this sample breaks the contract that every strategy keeps, or None."""
    before = generators()
    changed = changed_inputs(strategy, sample)  # first: whatever else is wrong may come of it
    if changed:
        return changed
    first = run(strategy, sample)
    if generators() != before:
        return (
            "it draws from a global random generator; take the input `rng` (or `generator`) instead"
        )
    if not np.isfinite(first.vector).all():
        return "the direction is not finite"
    again = known(strategy, sample)
    if not np.array_equal(first.vector, again.vector):
        return NOT_REPEATED
    return (
        ("rows" in strategy.inputs and _halved(strategy, sample))
        # seven calls and a file: every second draw will do
        or ("state" in strategy.inputs and sample.draw % 2 == 0 and _forgets(strategy, sample))
        or None
    )


def changed_inputs(strategy: Strategy, sample: Sample) -> str | None:
    """Whether the function changes an input in place, also one of an earlier call that it kept.

    It is called twice on arrays of our own. The second call is a later step, with the state of the
    first.
    """
    state, calls = State(), []
    for moment in (0, 1):
        context = context_of(later(sample, moment), strategy, moment=moment, state=state)
        given = {name: INPUTS[name].provide(context) for name in strategy.inputs}
        kept = {
            name: copy.deepcopy(value) for name, value in given.items() if not INPUTS[name].used_up
        }
        calls.append((given, kept))
        outcome = strategy.solve(given, sample.count, len(sample.splits))
        if "state" in given:
            state.adopt(given["state"])
        for number, (theirs, ours) in enumerate(calls):
            changed = next(
                (name for name, value in ours.items() if not _same(value, theirs[name])), None
            )
            if changed is not None:
                when = "" if number == moment else ", of an earlier call that it kept"
                return f"it changed its input {changed!r} in place{when}: work on a copy"
        if outcome.direction is not None and _shares(outcome.direction, given["rows"]):
            return (
                "its direction shares memory with its input 'rows', so that whoever changes the "
                "one changes the other: return a copy"
            )
    return None


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor) and one.shape == other.shape and torch.equal(one, other)
        )
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    return bool(one == other)


def _shares(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _halved(strategy: Strategy, sample: Sample) -> str | None:
    """Gradients may come in bfloat16: what numpy and some of torch's functions do not know."""
    live = sample.norms[sample.norms > 0]
    if not (len(live) and SAFE[0] < live.min() and live.max() < SAFE[1]):
        return None
    inputs = inputs_of(sample, strategy)
    if "state" in strategy.inputs:
        inputs["state"] = State()
    rows = torch.from_numpy(sample.jacobian).bfloat16()
    try:
        vector = strategy(rows, step=sample.draw, **inputs)
    except InputError:
        raise
    except UnusableAnswer as error:  # of a plain function, which is given float32
        return str(error)
    except Exception as error:
        return f"it raised {type(error).__name__} for rows in bfloat16: {error}; {WIDER}"
    return (
        None
        if bool(vector.isfinite().all())
        else f"the direction is not finite for rows in bfloat16; {WIDER}"
    )


def _forgets(strategy: Strategy, sample: Sample) -> str | None:
    """Whether it goes on otherwise after its state was saved and loaded.

    The steps: one without an objective, one with all, then one without another. In each the
    objectives come in another order, as the state is kept by name.
    """
    n = sample.count
    turned = [np.roll(np.arange(n)[::-1], sample.draw % n + k) for k in range(3)]
    if n > 1:
        fewer = [turned[0][1:], turned[1], turned[2][:-1]]
        found = _walk(strategy, [permuted(sample, order) for order in fewer])
        if found is not SKIP:
            return found
    return _walk(strategy, [permuted(sample, order) for order in turned])


def _walk(strategy: Strategy, moments: list[Sample]) -> str | None:
    """Three steps on these; `SKIP` where one of them is refused from a fresh state too."""

    def step(state: State, number: int) -> Array:
        return run(strategy, moments[number], step=number, state=state, moment=number).vector

    state, number = State(), 0
    try:
        for number in range(2):
            if not np.isfinite(step(state, number)).all():
                return f"the direction is not finite in step {number + 1}"
        file = io.BytesIO()
        torch.save(state.state_dict(), file)
        file.seek(0)
        loaded = State.from_state_dict(torch.load(file, weights_only=True))
        number = 2
        ends = step(loaded, 2), step(state, 2)
    except InputError as error:
        if _refuses(strategy, moments[number], number):
            return SKIP
        return f"it refuses step {number + 1}, {ABSENT}: {error}"
    except Exception as error:
        return f"it raised {type(error).__name__} in step {number + 1}, {ABSENT}: {error}"
    if not np.isfinite(ends[0]).all():
        return "the direction is not finite in step 3"
    return (
        None
        if np.array_equal(*ends)
        else "after its state was saved and loaded it goes on otherwise"
    )


def _refuses(strategy: Strategy, sample: Sample, moment: int) -> bool:
    try:
        run(strategy, sample, moment=moment)
    except InputError:
        return True
    return False


def generators() -> tuple[Any, ...]:
    """The states of the global random generators."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return (
        random.getstate(),
        name,
        np.asarray(keys).tobytes(),
        *rest,
        torch.get_rng_state().numpy().tobytes(),
    )
