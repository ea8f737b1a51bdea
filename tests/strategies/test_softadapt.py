"""softadapt against the official code's figures, and its definition written out."""

import math

import numpy as np
import pytest

import gradsurgery as gs

pytestmark = pytest.mark.quick

THREE = [[1, 2, 3, 4, 5], [150, 100, 50, 10, 0.1], [1500, 1000, 500, 100, 1]]
FOUR = [*THREE, [10, 20, 30, 40, 50]]
NOISY = [
    [2.0, 1.7, 1.9, 1.4, 1.2, 1.0],
    [1.0, 0.95, 0.97, 0.9, 0.93, 0.88],
    [3.0, 3.2, 2.9, 3.1, 2.7, 2.8],
]
# github.com/dr-aheydari/SoftAdapt at 66e7bd6 (softadapt 0.0.5, findiff 0.16.0), in float64. The
# first two histories are its README's, with the same figures there.
OFFICIAL = [
    ("original", 0.1, THREE, [0.9934333629761702, 0.006566627089496172, 3.890808929206179e-22]),
    (
        "original", 0.1, FOUR,
        [0.2884992790055516, 0.0019069896899198595, 1.1299153145627382e-22, 0.7095937242085915],
    ),
    ("original", 0.1, NOISY, [0.26676394469940856, 0.32033932729582465, 0.41289672387579957]),
    ("original", -1.0, NOISY, [0.8524719116323597, 0.1367252713287795, 0.010802816930832687]),
    ("normalized", 0.1, THREE, [0.32207230862542124, 0.3250792406693341, 0.35284844717676017]),
    (
        "normalized", 0.1, FOUR,
        [0.2435898616182139, 0.24590716986956332, 0.26732631198522333, 0.24317665385373632],
    ),
    ("normalized", -1.0, NOISY, [1.879636118821403e-05, 0.0017936111213389904, 0.998187592517285]),
    ("loss-weighted", 0.1, THREE, [0.8797772004510098, 0.12022279661639952, 7.123351607275696e-20]),
    (
        "loss-weighted", 0.1, FOUR,
        [0.03886108643234434, 0.005310422329713712, 3.146491888587341e-21, 0.9558284909193324],
    ),
    ("loss-weighted", -1.0, NOISY, [0.8908445823323543, 0.08743619199216897, 0.0217192256018522]),
]  # fmt: skip


def run(histories, **options):
    """The weights of every step."""
    chosen, state = gs.get_strategy("softadapt", **options), gs.State()
    n = len(histories)
    return [
        chosen.weights(np.eye(n), losses=losses, state=state)
        for losses in zip(*histories, strict=True)
    ]


@pytest.mark.parametrize(("variant", "beta", "histories", "expected"), OFFICIAL)
def test_the_official_code_has_the_same_figures(variant, beta, histories, expected):
    order = len(histories[0]) - 1
    *before, last = run(histories, beta=beta, variant=variant, order=order)
    assert all((weights == 1).all() for weights in before)
    assert last == pytest.approx(expected, rel=1e-7)  # it adds 1e-8 to the denominator


def test_it_is_its_formula_over_several_windows():
    rng = np.random.default_rng(0)
    histories = rng.uniform(0.5, 2, (3, 12))
    found = run(histories, order=1, window=3, beta=0.7, variant="loss-weighted")
    for step in range(12):
        expected = [1.0] * 3
        if step >= 5:
            powers = []
            for history in histories:
                end = (step + 1) // 3 * 3
                newest, before = history[end - 3 : end].mean(), history[end - 6 : end - 3].mean()
                powers.append((newest + before) / 2 * math.exp(0.7 * (newest - before)))
            expected = [p / sum(powers) for p in powers]
        assert found[step] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("order", range(1, 11))
def test_differences_are_exact_for_polynomials_of_their_order(order):
    """β = 1 and two losses: the log ratio of the weights is the difference of their slopes."""
    t = np.arange(order + 1.0)
    polynomial = 0.3 * t - (t / order) ** order
    slope = 0.3 - (1.0 if order == 1 else 0.0)
    weights = run([polynomial, np.zeros(order + 1)], order=order, beta=1.0)[-1]
    assert math.log(weights[0] / weights[1]) == pytest.approx(slope, abs=1e-9)


def test_an_objective_that_comes_later_has_slope_zero_until_it_has_its_values():
    chosen, state = gs.get_strategy("softadapt", order=1, beta=1.0), gs.State()
    for losses, names in (([1.0, 1.0], "ab"), ([0.5, 1.0], "ab"), ([0.25, 1.0, 9.0], "abc")):
        step = state.bind(tuple(names))
        given = {"losses": np.array(losses), "objectives": tuple(names), "state": step}
        found = chosen.solve(given, len(names)).weights
        state.adopt(step)
    powers = np.exp([-0.25, 0.0, 0.0])
    assert found == pytest.approx(powers / powers.sum())


def test_degenerate_histories_give_equal_weights():
    flat = [[1.0, 1.0]] * 2
    for variant in ("original", "normalized", "loss-weighted"):
        assert run(flat, order=1, variant=variant)[-1].tolist() == [0.5, 0.5]
    assert run([[0.0] * 2] * 2, order=1, variant="loss-weighted")[-1].tolist() == [0.5, 0.5]
    huge = run([[1e300, 0.0], [0.0, 1e300]], order=1)[-1]
    assert huge.tolist() == [0.0, 1.0]


def test_only_the_loss_weighted_variant_needs_losses_of_zero_or_more():
    assert run([[-1.0, -2.0], [1.0, 1.0]], order=1)[-1].sum() == pytest.approx(1)
    with pytest.raises(gs.InputError, match=r"softadapt.*'0' is -1"):
        run([[-1.0, -2.0], [1.0, 1.0]], order=1, variant="loss-weighted")
