"""Verdicts: which one a strategy gets, the sentence, and the family that it stands in."""

import numpy as np
import pytest

from benchmarks.statistics_simulation import simulate
from gradsurgery import InputError
from gradsurgery.compare.statistics import difference_p, equivalence_p, holm, judge

BASE = {seed: 90.0 + 0.25 * (seed % 3) for seed in range(6)}
SPREAD = (0.25, -0.25, 0.5, -0.5, 0.125, -0.125)  # mean 0, exact in binary


def moved(by, spread=SPREAD, scale=1.0):
    """The baseline's figures, moved by so much on average."""
    return {seed: figure + by + scale * spread[seed] for seed, figure in BASE.items()}


def one(figures, **options):
    """The only comparison of a strategy with the baseline."""
    return judge({"base": BASE, "new": figures}, "base", **options).comparisons[0]


@pytest.mark.parametrize(
    ("by", "options", "verdict"),
    [
        (2.0, {}, "better"),
        (-2.0, {}, "worse"),
        (2.0, {"better": "lower"}, "worse"),
        (-2.0, {"better": "lower"}, "better"),
        (0.25, {}, "undecided"),
        (0.0, {}, "undecided"),  # without δ a small interval is not equivalence
        (0.0, {"delta": 1.0}, "equivalent"),
        (0.0, {"delta": 0.1}, "undecided"),
        (2.0, {"delta": 3.0}, "equivalent"),  # seen, and smaller than what matters
        (2.0, {"delta": 1.0}, "better"),
        (2.0, {"ratio": 10.0}, "better"),  # the plain interval decides unless told otherwise
        (2.0, {"ratio": 10.0, "judge_by": "corrected"}, "undecided"),
    ],
)
def test_each_verdict(by, options, verdict):
    assert one(moved(by), **options).verdict == verdict


def test_identical_and_constant_differences():
    same = one(dict(BASE), delta=1.0)
    assert same.verdict == "identical"
    assert same.sentence == "new is identical to base: the same figures in 6 seeds."
    assert (same.interval, same.p, same.mean, same.sd) == (None, 1.0, 0.0, 0.0)
    constant = one(moved(0.5, scale=0.0), delta=1.0, unit="points")
    assert (constant.verdict, constant.interval, constant.p) == ("undecided", None, 1.0)
    assert "+0.500 points in each of 6 seeds: without a spread" in constant.sentence


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_rounding_alone_is_no_spread(kind):
    """A constant added in floating point differs from seed to seed by its rounding."""
    figures = {seed: float(kind(100 * (893 - 110 * seed) / 900)) for seed in range(8)}
    other = {seed: float(kind(figure + 0.1)) for seed, figure in figures.items()}
    assert len({other[seed] - figures[seed] for seed in figures}) > 1
    found = judge({"base": figures, "new": other}, "base").comparisons[0]
    assert (found.verdict, found.p) == ("undecided", 1.0)
    near = {seed: figure * (1 + 1e-8 * seed) for seed, figure in figures.items()}
    found = judge({"base": figures, "new": near}, "base").comparisons[0]
    assert found.verdict == "identical"
    assert "the same figures, to float32 rounding, in 8 seeds" in found.sentence


@pytest.mark.parametrize("size", [2.0**-700, 2.0**700])
def test_verdicts_do_not_depend_on_the_size_of_the_figures(size):
    """A diverged run's figure may be finite and have no finite square."""
    scaled = {
        name: {s: size * f for s, f in row.items()}
        for name, row in {"base": BASE, "up": moved(2.0), "near": moved(0.1)}.items()
    }
    big = judge(scaled, "base", delta=1.5 * size)
    plain = judge({"base": BASE, "up": moved(2.0), "near": moved(0.1)}, "base", delta=1.5)
    assert [x.verdict for x in big.comparisons] == ["better", "equivalent"]
    assert [x.p for x in big.comparisons] == [x.p for x in plain.comparisons]
    assert big.visible == pytest.approx([size * x for x in plain.visible])


@pytest.mark.parametrize(("seeds", "words"), [([], "0 seeds"), ([4], "1 seed")])
def test_with_fewer_than_two_seeds_there_are_words_and_no_interval(seeds, words):
    found = one(dict.fromkeys(seeds, 99.0), delta=1.0)
    assert found.verdict == "undecided"
    assert found.interval is found.narrow is found.equivalence_p is found.sd is None
    assert f"needs at least 2 seeds on both sides; {words}; left out" in found.sentence


def test_seeds_on_one_side_only_are_dropped_and_said():
    figures = moved(2.0)
    del figures[1]
    figures[9] = 1000.0
    found = one(figures)
    assert found.pairs.seeds == (0, 2, 3, 4, 5)
    assert found.pairs.dropped == (1, 9)
    assert "5 seeds; left out, with a figure on one side only: 1, 9" in found.sentence


def test_the_sentences_have_the_numbers():
    better = one(moved(2.0), unit="points")
    assert better.sentence == (
        "new is better than base: +2.00 points, 95 % interval +1.62 to +2.38 points, 6 seeds, "
        "p < 0.001."
    )
    equal = one(moved(0.0), unit="points", delta=1.0)
    assert equal.sentence == (
        "new is equivalent to base: a difference below 1 point (+0.00 points, 90 % interval "
        "-0.298 to +0.298 points, 6 seeds)."
    )
    low = one(moved(-2.0), better="lower", ratio=10.0)
    assert "-2.00, 95 % interval -2.38 to -1.62, 6 seeds, p < 0.001; lower is better." in (
        low.sentence
    )
    assert low.sentence.endswith("includes 0: it may not hold on new data.")


def test_undecided_says_how_many_seeds_it_would_take():
    by_delta = one(moved(0.25), delta=0.4, unit="points")
    assert by_delta.seeds_needed == 9
    assert "take 9 seeds to see a difference of 0.4 points with 80 % power" in by_delta.sentence
    observed = one(moved(0.25))
    assert observed.seeds_needed == 19
    assert "as large as the observed one, 0.250, with 80 % power" in observed.sentence
    none = one(moved(0.0))
    assert none.seeds_needed is None
    assert "No number of seeds up to 100,000 would see" in none.sentence


def test_holm_is_over_the_family_and_a_strategy_without_a_test_stays_in_it():
    weak = moved(0.5)  # p = 0.022 by itself
    alone = judge({"base": BASE, "weak": weak}, "base").comparisons[0]
    assert alone.verdict == "better"
    family = judge({"base": BASE, "weak": weak, "same": dict(BASE), "gone": {}}, "base")
    found = {x.strategy: x for x in family.comparisons}
    assert list(found) == ["weak", "same", "gone"]
    assert found["weak"].verdict == "undecided"
    assert found["weak"].adjusted == pytest.approx(3 * alone.p)
    assert "after Holm over 3). The interval excludes 0, but not after" in found["weak"].sentence
    assert "excludes 0" not in one(moved(0.25)).sentence


def test_the_footer_and_the_estimand_say_what_could_be_seen_and_over_what():
    many = {"base": BASE, "a": moved(0.1), "b": moved(0.2, scale=2.0), "c": moved(0.3, scale=4.0)}
    family = judge(many, "base", unit="points", delta=1.0, ratio=0.2)
    alone, first = family.visible
    assert 0 < alone < first
    assert "With 6 seeds and differences of standard deviation 0.725 points" in family.footer
    assert f"below {alone:.2f} points (after Holm over 3: below {first:.2f} points)" in (
        family.footer
    )
    for words in ("over seeds", "One test pool is fixed", "new data", "not part of the Holm"):
        assert words in family.estimand
    assert judge({"base": BASE}, "base").visible is None


@pytest.mark.parametrize("judge_by", ["plain", "corrected"])
def test_verdicts_are_those_of_the_functions_over_arrays(judge_by):
    """On simulated cells, to which a benchmark applies the functions that take arrays."""
    cells, n, ratio, delta = 8, 5, 2 / 3, 0.2
    used = ratio if judge_by == "corrected" else None
    made = simulate(np.random.default_rng(0), "resplit", cells, n).differences - 0.1
    adjusted, equal = holm(difference_p(made, used)), equivalence_p(made, delta, used)
    seen = set()
    for cell in range(cells):
        figures = {"base": dict.fromkeys(range(n), 0.0)}
        figures |= {f"s{k}": dict(enumerate(row)) for k, row in enumerate(made[cell].tolist())}
        family = judge(figures, "base", better="lower", delta=delta, ratio=ratio, judge_by=judge_by)
        for k, found in enumerate(family.comparisons):
            claim = "better" if made[cell, k].mean() < 0 else "worse"
            wanted = claim if adjusted[cell, k] <= 0.05 else "undecided"
            wanted = "equivalent" if equal[cell, k] < 0.05 else wanted
            assert found.verdict == wanted
            seen.add(wanted)
    assert seen >= ({"equivalent", "undecided", "better"} if used is None else {"undecided"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"baseline": "bse"}, "unknown baseline 'bse'. Did you mean 'base'"),
        ({"better": "more"}, "unknown direction 'more'"),
        ({"judge_by": "corrected"}, "judge_by='corrected' needs a ratio"),
        ({"judge_by": "plian"}, "Did you mean 'plain'"),
        ({"delta": -1.0}, "delta: expected a number above 0"),
    ],
)
def test_wrong_arguments_are_refused_in_words(options, words):
    with pytest.raises(InputError, match=words):
        judge({"base": BASE, "new": moved(1.0)}, **{"baseline": "base", **options})
    with pytest.raises(InputError, match="seed 1: expected a number as its figure; got NoneType"):
        one({0: 1.0, 1: None})
    with pytest.raises(InputError, match="seed 0: the figure is nan"):
        one({0: float("nan"), 1: 2.0})
