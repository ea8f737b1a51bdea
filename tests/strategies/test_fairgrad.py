"""FairGrad with preferences, beside what the official code of PIVRG asks a least-squares solver."""

import numpy as np
import pytest

import gradsurgery as gs

pytestmark = pytest.mark.quick


def pivrg(gram, scores, bound=2.0, least=10.0):
    """The weights as the official code finds them, and its preferences."""
    from scipy.optimize import least_squares

    temperature = max((max(scores) - min(scores)) / np.log(bound), least)
    shares = np.exp((scores - np.max(scores)) / temperature)
    wanted = len(gram) * shares / shares.sum()

    def residual(w):
        return gram @ w - np.sqrt(wanted / w)

    start = np.full(len(gram), 1 / len(gram))
    found = least_squares(residual, start, bounds=(0, np.inf), xtol=1e-14, ftol=1e-14, gtol=1e-14)
    return found.x, wanted


def test_with_its_preferences_fairgrad_is_pivrg():
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        for _ in range(5):
            rows, scores = rng.normal(size=(n, 12)), rng.uniform(-5, 60, n)
            gram = rows @ rows.T
            theirs, wanted = pivrg(gram, scores)
            chosen = gs.get_strategy("fairgrad", preference=wanted.tolist())
            assert chosen.weights(gram) == pytest.approx(theirs, rel=1e-6)


def test_an_objective_that_is_preferred_improves_more():
    gram = [[1.0, -0.5], [-0.5, 1.0]]
    found = gs.get_strategy("fairgrad", preference={"0": 4.0, "1": 1.0}).weights(gram)
    gains = gram @ found
    assert gains[0] > gains[1] > 0


def test_for_alpha_zero_the_weights_are_the_preferences():
    chosen = gs.get_strategy("fairgrad", alpha=0.0, preference={"1": 3.0, "0": 2.0})
    assert chosen.weights(np.eye(2)).tolist() == [2.0, 3.0]


def test_an_objective_without_a_preference_is_an_error_that_names_it():
    with pytest.raises(gs.InputError, match="preference: nothing given for '1'"):
        gs.get_strategy("fairgrad", preference={"0": 2.0}).weights(np.eye(2))
