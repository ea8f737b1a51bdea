"""diagnose on models with known answers."""

import math

import pytest
import torch
from torch import nn

import gradsurgery as gs
from gradsurgery.diagnostics import Interval
from gradsurgery.diagnostics.verdicts import batches_needed, verdict
from tests.support.known_gradients import Plane, batches, losses, two_means

# mean gradients, root of tr Cov, correlation of the noise, the right answer
CASES = {
    "conflict": (two_means(-0.5, 300), 3.0, 0.0, "conflict beyond noise"),
    "orthogonal": (two_means(0.0, 2000), 4.0, 0.0, "orthogonal"),
    "noise": (two_means(0.5, 300), 3.0, -0.9, "only batch noise"),
    "none": (two_means(0.5, 300), 0.5, 0.0, "none"),
}


def diagnosed(case, seed, count=64):
    means, noise, shared, right = CASES[case]
    given = batches(means, noise, count, seed, shared)
    found = gs.diagnose(Plane(len(means["a"])), given, losses)
    return found["a+b"].pair("b", "a"), right, found


@pytest.mark.parametrize("case", CASES)
def test_verdicts_are_right(case):
    pair, right, found = diagnosed(case, 0, count=32)
    assert pair.verdict == right
    assert f"a and b: {'no conflict' if right == 'none' else right}" in str(found)
    assert f"try: {pair.advice}" in str(found)
    assert pair.assumption is None
    assert "Assumption" not in str(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES)
def test_verdicts_are_right_in_20_of_20_repetitions(case):
    found = [diagnosed(case, seed) for seed in range(100, 120)]
    assert [pair.verdict for pair, _, _ in found] == [CASES[case][3]] * 20
    rates = [pair.conflict for pair, _, _ in found]
    if case == "orthogonal":
        assert 0.4 < sum(rates) / 20 < 0.6
    if case == "noise":
        assert min(rates) > 0.9  # worse than chance, and no conflict of the means


def test_what_few_batches_cannot_tell_is_undecided():
    means = two_means(-0.05, 50)
    found = gs.diagnose(Plane(50), batches(means, 5.0, 8, 0), losses)
    pair = found["a+b"].pairs[0]
    assert pair.verdict == "undecided"
    assert pair.advice.startswith("more batches")


def test_a_zero_gradient_is_no_verdict_on_conflict():
    means = two_means(0.5, 10)
    given = [{**batch, "b": 0 * batch["b"]} for batch in batches(means, 1.0, 8, 0)]
    pair = gs.diagnose(Plane(10), given, losses)["a+b"].pairs[0]
    assert pair.verdict == "no gradient"


class Concatenated(nn.Module):
    """M encoders, a head for each, and one head on all of them."""

    def __init__(self, m, width=64):
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(20, width) for _ in range(m))
        self.heads = nn.ModuleList(nn.Linear(width, 10) for _ in range(m))
        self.joint = nn.Linear(m * width, 10)

    def losses(self, batch):
        inputs, labels = batch
        features = [e(x).relu() for e, x in zip(self.encoders, inputs, strict=True)]
        found = {
            f"m{i}": nn.functional.cross_entropy(head(z), labels)
            for i, (head, z) in enumerate(zip(self.heads, features, strict=True))
        }
        found["joint"] = nn.functional.cross_entropy(self.joint(torch.cat(features, 1)), labels)
        return found


@pytest.mark.parametrize("m", [2, 4])
def test_at_initialisation_the_ratio_of_lengths_is_the_root_of_m(m):
    torch.manual_seed(m)
    model = Concatenated(m)
    given = [
        (torch.randn(m, 32, 20) + torch.nn.functional.one_hot(labels, 20), labels)
        for labels in torch.randint(10, (8, 32))
    ]
    found = gs.diagnose(model, given, Concatenated.losses, chance={"joint": math.log(10)})
    assert found.joint == "joint"
    assert found.modalities == m
    assert len(found) == m
    for _, pair in found.pairs:
        assert pair.second == "joint"
        assert pair.length_ratio.value == pytest.approx(math.sqrt(m), rel=0.25)
        assert pair.assumption.magnitude == "holds"
        assert pair.assumption.beside_initialisation
    assert "untrained" in found.warnings[0]
    assert f"√M = {math.sqrt(m):.2f}" in str(found)
    asked = gs.diagnose(model, given, Concatenated.losses)
    assert "is the model trained?" in asked.warnings[0]
    silent = gs.diagnose(model, given, Concatenated.losses, chance={"joint": 1000 * math.log(10)})
    assert ["saturated" in text for text in silent.warnings] == [True]


def test_assumption_1_by_magnitude_and_by_relative_noise():
    """A unimodal gradient three times as long, of the same relative noise but for its mean."""
    generator = torch.Generator().manual_seed(0)
    means = two_means(0.9, 400)
    given = []
    for _ in range(48):
        noise = torch.randn(2, 400, generator=generator, dtype=torch.float64) / 400**0.5
        given.append({"uni": 3 * (means["a"] + noise[0]), "joint": means["b"] + 2 * noise[1]})
    found = gs.diagnose(Plane(400), given, losses, joint="joint")
    assumption = found.pairs[0][1].assumption
    assert (assumption.magnitude, assumption.covariance) == ("holds", "holds")
    assert assumption.noise == "fails"
    assert assumption.beside_initialisation is False


@pytest.mark.parametrize(
    ("inner", "cosine", "rate", "said"),
    [
        ((-0.3, -0.1), (-0.2, -0.3, -0.1), 0.8, "conflict beyond noise"),
        ((-0.3, -0.1), (math.nan,) * 3, 0.8, "conflict beyond noise"),
        ((-0.14, -0.04), (-0.09, -0.14, -0.04), 0.6, "undecided"),
        ((-0.09, -0.01), (-0.05, -0.09, -0.01), 0.6, "orthogonal"),
        ((0.04, 0.14), (0.09, 0.04, 0.14), 0.2, "only batch noise"),
        ((-0.1, 0.5), (0.2, -0.1, 0.5), 0.4, "undecided"),
        ((-0.1, 0.5), (math.nan,) * 3, 0.02, "none"),
        ((0.1, 0.5), (0.3, 0.1, 0.5), 0.0, "none"),
    ],
)
def test_the_rules_from_figures_to_words(inner, cosine, rate, said):
    ends = Interval(sum(inner) / 2, *inner), Interval(*cosine)
    assert verdict(*ends, rate, margin=0.1) == said


def test_how_many_batches_would_tell():
    assert batches_needed(Interval(0.3, -0.3, 0.9), 0.1, 10) == 41
    assert batches_needed(Interval(0.0, -0.2, 0.2), 0.1, 10) == 41
    assert batches_needed(Interval(0.099, 0.0, 0.2), 0.1, 10) is None
    assert batches_needed(Interval(math.nan, math.nan, math.nan), 0.1, 10) is None
