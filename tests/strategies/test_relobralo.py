"""relobralo against its definition, written out step by step."""

import math

import numpy as np
import pytest

import gradsurgery as gs

pytestmark = pytest.mark.quick


class Coins:
    """A stand-in for the generator that deals out given numbers."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self):
        return self.numbers.pop(0)


def balanced(losses, earlier, temperature):
    powers = [math.exp(a / (temperature * b)) for a, b in zip(losses, earlier, strict=True)]
    return [len(losses) * p / sum(powers) for p in powers]


@pytest.mark.parametrize("alpha", [0.5, 0.999])
def test_it_is_its_formula_with_lookbacks(alpha):
    rng = np.random.default_rng(0)
    chosen = gs.get_strategy("relobralo", alpha=alpha, rho=0.7, temperature=0.5)
    history, weights, state = [], [1.0] * 3, gs.State()
    for step, coin in enumerate([0.9, 0.9, 0.1, 0.9, 0.1, 0.9, 0.65, 0.75]):
        losses = rng.uniform(0.5, 2, 3).tolist()
        if step == 1:
            weights = balanced(losses, history[-1], 0.5)
        if step > 1:
            newest = balanced(losses, history[-1], 0.5)
            before = weights if coin < 0.7 else balanced(losses, history[0], 0.5)
            weights = [alpha * b + (1 - alpha) * w for b, w in zip(before, newest, strict=True)]
        history.append(losses)
        found = chosen.weights(np.eye(3), losses=losses, state=state, rng=Coins(coin))
        assert found == pytest.approx(weights, rel=1e-12)
        assert found.sum() == pytest.approx(3)


def test_lookbacks_are_as_rare_as_asked_for_and_follow_from_the_seed():
    """With α = 1 the weights are those before, or those since the first step."""

    def lookbacks(rho):
        chosen, state = gs.get_strategy("relobralo", rho=rho, alpha=1.0), gs.State()
        found = []
        for step in range(1000):
            losses = [1.0, 1.0 / (1 + step)]
            weights = chosen.weights(np.eye(2), losses=losses, state=state, step=step)
            found.append(weights[1])
        return np.diff(found[2:]) != 0

    assert not lookbacks(1.0).any()
    assert lookbacks(0.8)[:40].sum() in range(2, 17)
    assert lookbacks(0.8).tolist() == lookbacks(0.8).tolist()


def test_only_ratios_count_and_none_overflows():
    steps = [[1.0, 3.0, 2.0], [0.5, 2.9, 0.0], [0.4, 3.5, 1.0]]
    plain = scaled = None
    for scale in (1.0, 1e-20, 1e20):
        state, chosen = gs.State(), gs.get_strategy("relobralo", alpha=0.5)
        for losses in steps:
            given = (np.array(losses) * [scale, 1.0, 1.0]).tolist()
            scaled = chosen.weights(np.eye(3), losses=given, state=state)
        plain = scaled if plain is None else plain
        assert scaled == pytest.approx(plain)
    state, chosen = gs.State(), gs.get_strategy("relobralo", temperature=1e-3)
    for losses in ([1e-300, 1.0], [1e300, 1.0]):
        found = chosen.weights(np.eye(2), losses=losses, state=state)
    assert found.tolist() == [2.0, 0.0]


def test_an_objective_that_comes_later_starts_as_the_others_did():
    state, chosen = gs.State(), gs.get_strategy("relobralo", alpha=0.9, rho=1.0)
    names = ("a", "b", "c")
    for losses in ([1.0, 1.0], [0.9, 1.0], [0.8, 1.0]):
        step = state.bind(names[:2])
        chosen.solve(
            {"losses": np.array(losses), "objectives": names[:2], "state": step, "rng": Coins(0.5)},
            2,
        )
        state.adopt(step)
    step = state.bind(names)
    given = {"losses": np.array([0.8, 1.0, 5.0]), "objectives": names, "state": step}
    found = chosen.solve({**given, "rng": Coins(0.5)}, 3).weights
    assert found[2] == pytest.approx(1.0)


def test_a_negative_loss_is_an_error_that_names_it():
    with pytest.raises(gs.InputError, match=r"relobralo.*'1' is -1"):
        gs.get_strategy("relobralo").weights(np.eye(2), losses=[1.0, -1.0], state=gs.State())
