"""Δm per seed with the directions of its metrics, and mean ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsurgery import InputError
from gradsurgery.compare.statistics import delta_m, mean_ranks

JOINT = {"left": {0: 90.0, 1: 88.0, 2: 70.0}, "depth": {0: 0.40, 1: 0.52, 5: 0.1}}
ALONE = {"left": {0: 80.0, 1: 80.0, 2: 80.0}, "depth": {0: 0.50, 1: 0.50, 2: 0.5}}
BETTER = {"left": "higher", "depth": "lower"}


def test_a_gain_is_positive_in_either_direction_and_relative_to_the_same_seed():
    gains = delta_m(JOINT, ALONE, BETTER)
    assert gains.by_seed == pytest.approx({0: (12.5 + 20) / 2, 1: (10 - 4) / 2})
    assert gains.dropped == (2, 5)
    assert gains.mean == pytest.approx(9.625)
    half = 12.7062047364 * abs(16.25 - 3.0) / 2  # t(0.975; 1) sd/√2
    assert gains.interval == pytest.approx((9.625 - half, 9.625 + half))
    assert gains.sentence == (
        "Δm (higher is better) is +9.62 % (95 % interval -74.55 to +93.80 %, 2 seeds; seeds left "
        "out: 2, 5)."
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.5, 2), min_size=4, max_size=4), st.floats(0.01, 100))
def test_the_unit_of_a_metric_does_not_matter_and_the_sign_of_the_single_task_figure_does_not(
    figures, scale
):
    joint = {"x": dict(enumerate(figures[:2]))}
    alone = {"x": dict(enumerate(figures[2:]))}
    plain = delta_m(joint, alone, {"x": "higher"}).by_seed
    scaled, mirrored = (
        tuple({"x": {s: factor * f for s, f in side["x"].items()}} for side in (joint, alone))
        for factor in (scale, -1.0)
    )
    assert delta_m(*scaled, {"x": "higher"}).by_seed == pytest.approx(plain, abs=1e-9)
    # an R² below zero: what was higher is lower now, and the gain is the same
    assert delta_m(*mirrored, {"x": "lower"}).by_seed == pytest.approx(plain, abs=1e-9)


def test_few_seeds_have_words_and_no_interval():
    one = delta_m({"x": {0: 2.0}}, {"x": {0: 1.0}}, {"x": "higher"})
    assert (one.mean, one.interval) == (100.0, None)
    assert "(1 seed, no interval)" in one.sentence
    none = delta_m({"x": {0: 2.0}}, {"x": {1: 1.0}}, {"x": "higher"})
    assert (none.mean, none.interval, none.dropped) == (None, None, (0, 1))
    assert none.sentence == "Δm: no seed has all figures; seeds left out: 0, 1."


def test_ranks_are_one_for_the_best_with_ties_averaged_and_whole_columns_only():
    figures = {
        "a": {"acc": 90.0, "error": 0.1, "only": 1.0},
        "b": {"acc": 91.0, "error": 0.3},
        "c": {"acc": 90.0, "error": 0.2},
    }
    ranks = mean_ranks(figures, {"acc": "higher", "error": "lower"})
    assert ranks.mean == {"a": 1.75, "b": 2.0, "c": 2.25}
    assert (ranks.over, ranks.dropped) == (("acc", "error"), ("only",))
    assert np.isnan(mean_ranks({"a": {"x": 1.0}, "b": {"y": 1.0}}).mean["a"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: delta_m(JOINT, {"left": {}}, BETTER), "alone has \\['left'\\]: give the same"),
        (lambda: delta_m({}, {}, {}), "no objectives"),
        (lambda: delta_m({"x": {0: 1.0}}, {"x": {0: 0.0}}, {"x": "higher"}), "'x' is 0 at seed 0"),
        (lambda: delta_m({"x": {0: 1.0}}, {"x": {0: 2.0}}, {"x": "up"}), "direction of 'x' 'up'"),
        (lambda: delta_m({"x": {0: float("nan")}}, {"x": {0: 2.0}}, {"x": "lower"}), "is nan"),
        (lambda: mean_ranks({"a": {"x": float("nan")}}), "'x' has a figure that is NaN"),
        (lambda: mean_ranks({"a": {"x": 1.0}}, {}), "'x' has no direction"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(call, words):
    with pytest.raises(InputError, match=words):
        call()
