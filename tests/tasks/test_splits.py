"""Splits of one pool: as many of each class, no row twice, the test rows before any seed."""

import pytest
import torch

from gradsurgery.tasks.splits import data_generator, standardised, three_ways

pytestmark = pytest.mark.quick
LABELS = torch.arange(200) % 4


def test_each_split_has_its_share_of_each_class_and_no_row_twice():
    parts = three_ways(LABELS, 0.1, 0.5, seed=3)
    assert [LABELS[rows].bincount().tolist() for rows in parts] == [[20] * 4, [5] * 4, [25] * 4]
    assert torch.cat(parts).sort().values.tolist() == list(range(200))


def test_the_test_rows_are_fixed_before_any_seed():
    first, same, other = (three_ways(LABELS, 0.1, 0.5, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert torch.equal(first[2], other[2])
    assert set(first[1].tolist()) != set(other[1].tolist())


def test_features_are_standardised_by_the_rows_that_are_given():
    values = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 7 + 300
    values[:, 1] = 0.1  # constant: its mean is rounded, and no noise may be made of that
    rows = torch.arange(20)
    ready = standardised(values, rows)
    assert ready[rows].mean(0).abs().max() < 1e-4
    assert ready[rows].std(0).tolist() == pytest.approx([1, 0, 1], abs=1e-4)


def test_noise_has_other_random_numbers_than_the_order_and_the_weights():
    plain = torch.Generator().manual_seed(5)
    mine, again = data_generator(5), data_generator(5)
    drawn = torch.rand(4, generator=mine)
    assert torch.equal(drawn, torch.rand(4, generator=again))
    assert not torch.equal(drawn, torch.rand(4, generator=plain))
