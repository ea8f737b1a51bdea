"""group-dro against its definition, written out over several steps."""

import math

import numpy as np
import pytest

import gradsurgery as gs

pytestmark = pytest.mark.quick


def robust(losses, q, eta, adjustment=(0.0,) * 3, normalize=False):
    """One step of the official code's `compute_robust_loss`, group by group."""
    adjusted = [loss + a for loss, a in zip(losses, adjustment, strict=True)]
    if normalize:
        adjusted = [value / sum(adjusted) for value in adjusted]
    q = [share * math.exp(eta * value) for share, value in zip(q, adjusted, strict=True)]
    return [share / sum(q) for share in q]


@pytest.mark.parametrize(
    "options",
    [
        {"step_size": 0.3},
        {"step_size": 0.3, "normalize": True},
        {"step_size": 0.2, "adjustment": [1.0, 0.5, 0.1], "normalize": True},
        {"adjustment": {"0": 1.0, "1": 3.0, "2": 2.0}},
    ],
    ids=str,
)
def test_it_is_its_formula_over_several_steps(options):
    rng = np.random.default_rng(0)
    chosen, state, q = gs.get_strategy("group-dro", **options), gs.State(), [1 / 3] * 3
    added = options.get("adjustment", [0.0] * 3)
    added = list(added.values()) if isinstance(added, dict) else added
    for _ in range(8):
        losses = rng.uniform(0, 4, 3).tolist()
        q = robust(losses, q, options.get("step_size", 0.01), added, "normalize" in options)
        assert chosen.weights(np.eye(3), losses=losses, state=state) == pytest.approx(q, rel=1e-12)


def test_the_largest_loss_comes_to_decide():
    chosen, state = gs.get_strategy("group-dro", step_size=0.1), gs.State()
    for _ in range(300):
        found = chosen.weights(np.eye(3), losses=[1.0, 2.0, 1.5], state=state)
    assert found[1] > 1 - 1e-6


def test_an_absent_group_counts_as_one_of_loss_zero():
    """As in the official code, but that the weights of those present sum to one."""
    chosen, state, q = gs.get_strategy("group-dro", step_size=0.5), gs.State(), [1 / 3] * 3
    for present in ("abc", "ac", "b", "abc"):
        losses = {name: 1.0 + i for i, name in enumerate("abc") if name in present}
        q = robust([losses.get(name, 0.0) for name in "abc"], q, 0.5)
        step = state.bind(tuple(present))
        given = {"losses": np.array(list(losses.values())), "objectives": tuple(present)}
        found = chosen.solve({**given, "state": step}, len(present)).weights
        state.adopt(step)
        shares = np.array(q)[["abc".index(name) for name in present]]
        assert found == pytest.approx(shares / shares.sum())


def test_losses_of_any_size_and_sign_are_taken():
    chosen, state = gs.get_strategy("group-dro"), gs.State()
    assert chosen.weights(np.eye(2), losses=[1e20, 0.0], state=state).tolist() == [1.0, 0.0]
    assert chosen.weights(np.eye(2), losses=[-1.0, -1.0], state=gs.State()).tolist() == [0.5, 0.5]
    even = gs.get_strategy("group-dro", normalize=True)
    assert even.weights(np.eye(2), losses=[0.0, 0.0], state=gs.State()).tolist() == [0.5, 0.5]
