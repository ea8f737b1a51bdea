"""Intervals, p-values, Holm and power against closed forms and scipy's own tests."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gradsurgery import InputError
from gradsurgery.compare.statistics import (
    difference_p,
    equivalence_p,
    holm,
    least_visible,
    pair,
    power,
    seeds_needed,
    standard_error,
    t_interval,
)

few = settings(max_examples=30, deadline=None)
finite = st.floats(-100, 100).map(lambda x: round(x, 3))
samples = st.integers(2, 12).flatmap(lambda n: arrays(np.float64, n, elements=finite))


@pytest.mark.parametrize("n", [2, 5, 20])
def test_the_interval_and_its_p_value_are_those_of_the_paired_t_test(n):
    from scipy import stats

    a, b = np.random.default_rng(n).normal([[90.0], [89.5]], 1.0, (2, n))
    theirs = stats.ttest_rel(a, b)
    bounds = theirs.confidence_interval(0.9)
    np.testing.assert_allclose(difference_p(a - b), theirs.pvalue, rtol=1e-10)
    np.testing.assert_allclose(t_interval(a - b, 0.9), bounds, rtol=1e-10)


def test_equivalence_is_the_larger_of_two_one_sided_tests_and_the_90_interval_within_delta():
    from scipy import stats

    rng, delta = np.random.default_rng(0), 0.8
    differences = rng.normal(0.2, 0.7, (200, 6))
    ours = equivalence_p(differences, delta)
    low = stats.ttest_1samp(differences, -delta, axis=-1, alternative="greater").pvalue
    high = stats.ttest_1samp(differences, delta, axis=-1, alternative="less").pvalue
    np.testing.assert_allclose(ours, np.maximum(low, high), rtol=1e-9)
    bounds = np.abs(t_interval(differences, 0.9)).max(axis=0)
    assert ((ours < 0.05) == (bounds < delta)).all()
    assert 0 < (ours < 0.05).mean() < 1


def test_the_corrected_interval_has_the_variance_of_nadeau_and_bengio():
    values = np.array([0.3, -0.1, 0.8, 0.4])
    by_hand = np.sqrt(np.sum((values - values.mean()) ** 2) / 3 * (1 / 4 + 300 / 1800))
    np.testing.assert_allclose(standard_error(values, 300 / 1800), by_hand, rtol=1e-14)
    low, high = t_interval(values, ratio=300 / 1800)
    np.testing.assert_allclose(high - low, 2 * 3.182446305284263 * by_hand, rtol=1e-9)
    np.testing.assert_array_equal(standard_error(values, 0.0), standard_error(values))


def test_seeds_are_the_last_axis_and_all_that_is_before_it_is_kept():
    values = np.random.default_rng(1).normal(size=(3, 2, 5))
    assert standard_error(values).shape == (3, 2)
    assert difference_p(values)[2, 1] == difference_p(values[2, 1])
    assert [bound[1, 0] for bound in t_interval(values)] == list(t_interval(values[1, 0]))


@few
@given(samples, st.floats(-50, 50), st.floats(0.01, 100))
def test_the_interval_shifts_and_scales_with_the_differences(values, shift, scale):
    low, high = t_interval(values)
    moved = t_interval(scale * values + shift)
    size = 1e-9 * (1 + abs(shift) + scale * 100)
    np.testing.assert_allclose(
        moved, (scale * low + shift, scale * high + shift), rtol=1e-9, atol=size
    )
    # a power of two is exact, so that not even rounding differs
    np.testing.assert_array_equal(difference_p(4 * values), difference_p(values))


@few
@given(samples, st.floats(0.1, 50))
def test_the_other_sign_mirrors_the_interval_and_keeps_p(values, delta):
    low, high = t_interval(values)
    assert t_interval(-values) == (-high, -low)
    assert difference_p(-values) == difference_p(values)
    assert equivalence_p(-values, delta) == equivalence_p(values, delta)


@few
@given(samples, st.floats(0.01, 5))
def test_a_ratio_widens_the_interval_and_a_higher_level_does(values, ratio):
    (low, high), (wide_low, wide_high) = t_interval(values), t_interval(values, ratio=ratio)
    top_low, top_high = t_interval(values, 0.99)
    assert wide_low <= low <= high <= wide_high
    assert top_low <= low <= high <= top_high
    assert difference_p(values, ratio) >= difference_p(values)


@few
@given(arrays(np.float64, st.integers(1, 9), elements=st.floats(0, 1)), st.randoms())
def test_holm_lies_between_p_and_bonferroni_and_does_not_depend_on_the_order(p, random):
    adjusted = holm(p)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, len(p) * p)).all()
    order = list(range(len(p)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm(p[order]), adjusted[order])
    # the step-down rule written out: reject from the smallest on, until one is too large
    for alpha in (0.05, 0.3):
        rejected = 0
        while rejected < len(p) and np.sort(p)[rejected] * (len(p) - rejected) <= alpha:
            rejected += 1
        assert (adjusted <= alpha).sum() == rejected


def test_holm_goes_over_the_last_axis():
    p = np.random.default_rng(2).random((4, 3, 5)) ** 4
    np.testing.assert_array_equal(holm(p)[3, 2], holm(p[3, 2]))


def test_power_is_the_noncentral_t_and_the_share_of_simulated_tests():
    from scipy import stats

    for n, difference, alpha in [(3, 1.0, 0.05), (8, 0.7, 0.05), (20, 0.9, 0.05 / 8)]:
        limit, centre = stats.t.isf(alpha / 2, n - 1), difference * np.sqrt(n)
        exact = stats.nct.sf(limit, n - 1, centre) + stats.nct.cdf(-limit, n - 1, centre)
        assert power(difference, 1.0, n, alpha) == pytest.approx(exact, rel=1e-8)
    runs = np.random.default_rng(3).normal(0.9, 1.0, (20_000, 6))
    seen = (difference_p(runs) <= 0.05).mean()
    assert abs(seen - power(0.9, 1.0, 6)) < 4 * np.sqrt(0.25 / 20_000)


def test_power_with_two_seeds_where_the_library_of_the_noncentral_t_gives_nan():
    # T = (Z + c)/|Z'| with one degree of freedom: the mean over |Z'|, by a sum over many points
    from scipy import special, stats

    limit, centre = stats.t.isf(0.05 / 16, 1), 90.0
    u = (np.arange(1_000_000) + 0.5) / 1_000_000
    spread = special.ndtri(0.5 + u / 2)
    by_sum = np.mean(special.ndtr(centre - limit * spread) + special.ndtr(-centre - limit * spread))
    assert power(centre / np.sqrt(2), 1.0, 2, 0.05 / 8) == pytest.approx(by_sum, abs=1e-6)
    assert power(0.0, 1.0, 2, 0.01) == pytest.approx(0.01, rel=1e-9)


@few
@given(st.floats(0.05, 20), st.floats(0.05, 20), st.integers(1, 12))
def test_the_seeds_needed_are_the_first_number_that_suffices(difference, sd, m):
    count = seeds_needed(difference, sd, 0.05 / m)
    assert power(difference, sd, count, 0.05 / m) >= 0.8
    assert count == 2 or power(difference, sd, count - 1, 0.05 / m) < 0.8
    assert least_visible(sd, count, 0.05 / m) <= difference * (1 + 1e-7)
    assert seeds_needed(3 * difference, 3 * sd, 0.05 / m) == count


def test_known_numbers_of_seeds_and_least_differences():
    sds = (0.3, 0.5, 0.8, 1.0, 1.3, 1.7)
    assert [seeds_needed(1.0, sd) for sd in sds] == [3, 5, 8, 10, 16, 25]
    assert [seeds_needed(1.0, sd, 0.05 / 8) for sd in sds] == [5, 7, 12, 17, 26, 41]
    visible = [round(least_visible(1.0, n), 2) for n in (3, 5, 10, 20)]
    assert visible == [3.26, 1.68, 1.00, 0.66]
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.01, 1.0) == 78_491


def test_more_resamples_of_one_pool_do_not_see_what_the_pool_cannot_show():
    # with any number of seeds, Δ/se stays below Δ/(sd √ratio): 2.5, where 80 % need 2.80
    assert seeds_needed(1.0, 1.0, ratio=0.16) is None
    assert power(1.0, 1.0, 10**6, ratio=0.16) < 0.71
    assert seeds_needed(1.0, 1.0, ratio=1 / 9) == 77


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: t_interval([]), "0 seeds: the spread over seeds needs at least 2"),
        (lambda: difference_p([1.0]), "1 seed: the spread"),
        (lambda: t_interval([1.0, np.nan, 2.0]), "1 of 3 differences are NaN or infinite"),
        (lambda: equivalence_p([1.0, np.inf], 1.0), "1 of 2 differences"),
        (lambda: equivalence_p([1.0, 2.0], 0.0), "delta: expected a number above 0"),
        (lambda: equivalence_p([1.0, 2.0], float("nan")), "delta: .* got nan"),
        (lambda: t_interval([1.0, 2.0], 95), "level: expected a number within 0 and 1.*got 95"),
        (lambda: t_interval([1.0, 2.0], ratio=-0.1), "ratio: .*got -0.1"),
        (lambda: holm([0.1, np.nan]), "holm: expected p-values from 0 to 1"),
        (lambda: power(1.0, 0.0, 5), "sd: expected a standard deviation above 0"),
        (lambda: power(1.0, 1.0, 1), "n >= 2"),
        (lambda: least_visible(1.0, 5, alpha=0.9), "wanted: expected a power above alpha"),
        (lambda: seeds_needed(1.0, 1.0, alpha=0.0), "alpha: expected"),
        (lambda: pair({0: 1.0, 3: float("nan")}, {0: 1.0}), "seed 3: the figure is nan"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(call, words):
    with pytest.raises(InputError, match=words):
        call()
