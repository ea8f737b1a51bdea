"""What the claims say of later steps, where a state is kept by the objectives' names."""

from collections.abc import Callable

import numpy as np

from gradsurgery.contract import State, Strategy
from gradsurgery.errors import InputError
from gradsurgery.testing.circumstances import losses_of
from gradsurgery.testing.runner import Direction, later, off, permuted, run
from gradsurgery.testing.sample import Sample
from gradsurgery.testing.tolerances import RELATIVE

UNIQUE = 1e-4  # the conditioning from which on weights are well determined


def by_position(strategy: Strategy, sample: Sample, allowed: Callable[..., float]) -> str | None:
    """Four steps, one of them without an objective: in another order at each they give the same.

    Only where weights are unique. Else others that give the same d may be kept, and used on other
    gradients.

    Args:
        strategy: one that keeps a state, and asks for no random numbers.
        sample: the gradients, whose lengths change from step to step.
        allowed: how far apart two directions may be on a sample.
    """
    if sample.rank < sample.count or sample.conditioning < UNIQUE:
        return None
    n = sample.count
    chosen = np.random.default_rng([n, sample.draw, 1])
    everyone, absent = np.arange(n), int(chosen.integers(n))
    walks: list[list[Direction]] = []
    for turned in (False, True):
        state, found = State(), []
        for moment in range(4):
            present = np.delete(everyone, absent) if moment == 2 else everyone
            order = chosen.permutation(present) if turned else present
            try:
                found.append(run(strategy, permuted(sample, order), state=state, moment=moment))
            except InputError:  # fewer than it works for
                return None
        walks.append(found)
    for moment, (one, other) in enumerate(zip(*walks, strict=True)):
        error = float(np.linalg.norm(one.vector - other.vector))
        if not off(error, 10 * RELATIVE, one, other):
            continue
        moved = later(sample, moment)
        limit = 10 * allowed(moved, 1.0, losses=losses_of(moved, moment))
        if share := off(error, limit, one, other):
            return (
                f"with the objectives in other orders d is another in step {moment + 1}, "
                f"by {share:.2g} of Σⱼ|wⱼ|nⱼ: its state goes by position, not by name"
            )
    return None


def second_steps_differ(strategy: Strategy, sample: Sample) -> str | None:
    """Two second steps after the same first one, with other random numbers."""
    state = State()
    run(strategy, sample, state=state)
    one, other = (
        run(strategy, sample, step=step, state=state.copy(), moment=1).vector for step in (1, 2)
    )
    return None if np.array_equal(one, other) else "two second steps on the same gradients differ"
