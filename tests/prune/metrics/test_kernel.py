"""The kernel distance against hand computations and double loops."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.prune.metrics.kernel import kernel_distance, squared_mmd


def test_two_pairs_of_points_by_hand() -> None:
    zeros, ones = torch.zeros(2, 1), torch.ones(2, 1)
    assert squared_mmd(zeros, ones) == pytest.approx(1 + 8 - 2)  # k(0,0) = 1, k(1,1) = 2^3, k(0,1) = 1
    assert kernel_distance(zeros, ones).mean == pytest.approx(7)


def test_it_equals_the_sum_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (5, 4))

    def k(u: torch.Tensor, v: torch.Tensor) -> float:
        return float((u @ v / 3 + 1) ** 3)

    within_x = sum(k(x[i], x[j]) for i in range(5) for j in range(5) if i != j) / (5 * 4)
    within_y = sum(k(y[i], y[j]) for i in range(4) for j in range(4) if i != j) / (4 * 3)
    across = sum(k(u, v) for u in x for v in y) / (5 * 4)
    assert squared_mmd(x, y) == pytest.approx(within_x + within_y - 2 * across)


def test_sets_of_one_distribution_have_a_distance_about_zero() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(400, 4, generator=generator) for _ in range(2))
    found = kernel_distance(x, y, subsets=20, size=200)
    assert found.std is not None
    assert abs(found.mean) < 4 * found.std
    assert kernel_distance(x, y + 1, subsets=20, size=200).mean > 10 * found.std


def test_subsets_are_as_large_as_the_smaller_set_allows() -> None:
    x, y = torch.randn(30, 4), torch.randn(12, 4)
    found = kernel_distance(x, y, subsets=3)
    assert (found.size, found.subsets) == (12, 3)
    whole = kernel_distance(x[:12], y)
    assert (whole.std, whole.subsets) == (None, 1)


def test_the_seed_decides_the_subsets() -> None:
    x, y = torch.randn(60, 4), torch.randn(60, 4) + 1
    one, same, other = (kernel_distance(x, y, subsets=4, size=20, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one.mean != other.mean


def test_a_single_feature_has_no_unbiased_distance() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        kernel_distance(torch.zeros(1, 2), torch.zeros(5, 2))
