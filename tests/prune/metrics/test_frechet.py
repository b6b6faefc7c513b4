"""The Frechet distance of Gaussians against closed forms and a slow reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from vtk_cli.prune.metrics.frechet import Gaussian, GaussianMeter, frechet_distance, gaussian_of


def features(count: int, dimension: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64) @ mixing + 1


def test_a_set_is_at_distance_zero_from_itself() -> None:
    for count, dimension in ((200, 6), (5, 40)):
        gaussian = gaussian_of(features(count, dimension, seed=1))
        assert frechet_distance(gaussian, gaussian) < 1e-6


def test_a_shift_by_two_costs_four_for_each_dimension() -> None:
    x = features(300, 6, seed=2)
    assert frechet_distance(gaussian_of(x), gaussian_of(x + 2)) == pytest.approx(24, rel=1e-9)


def test_one_dimensional_gaussians_have_the_closed_form() -> None:
    one, other = (
        Gaussian(10, torch.tensor([mean], dtype=torch.float64), torch.tensor([[sd**2]], dtype=torch.float64))
        for mean, sd in ((0.0, 1.0), (3.0, 2.0))
    )
    assert frechet_distance(one, other) == pytest.approx(10)  # (3 - 0)^2 + (2 - 1)^2


def test_a_scaling_by_three_costs_four_traces_and_four_squared_means() -> None:
    x = features(300, 6, seed=3)
    gaussian = gaussian_of(x)
    expected = 4 * float(gaussian.covariance.trace()) + 4 * float(gaussian.mean.square().sum())
    assert frechet_distance(gaussian, gaussian_of(3 * x)) == pytest.approx(expected, rel=1e-9)


def test_it_is_symmetric() -> None:
    one, other = gaussian_of(features(100, 8, seed=4)), gaussian_of(features(50, 8, seed=5))
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one), rel=1e-10)


def test_a_rotation_of_both_sets_changes_nothing() -> None:
    one, other = features(100, 8, seed=6), features(90, 8, seed=7)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    turned = frechet_distance(gaussian_of(one @ rotation), gaussian_of(other @ rotation))
    assert turned == pytest.approx(frechet_distance(gaussian_of(one), gaussian_of(other)), rel=1e-9)


def test_it_equals_the_formula_with_the_matrix_square_root() -> None:
    one, other = gaussian_of(features(200, 12, seed=8)), gaussian_of(features(150, 12, seed=9))
    root = scipy.linalg.sqrtm(one.covariance.numpy() @ other.covariance.numpy())
    expected = float((one.mean - other.mean).square().sum()) + float(
        one.covariance.trace() + other.covariance.trace() - 2 * np.trace(root).real
    )
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-8)


def test_fewer_features_than_dimensions_give_a_finite_real_distance() -> None:
    one, other = gaussian_of(features(10, 64, seed=10)), gaussian_of(features(12, 64, seed=11))
    distance = frechet_distance(one, other)
    assert math.isfinite(distance)
    assert distance > 0
    assert one.is_singular
    assert not gaussian_of(features(65, 64, seed=0)).is_singular


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_chunks_of_any_size_give_the_mean_and_unbiased_covariance_of_the_whole(size: int) -> None:
    x = features(333, 5, seed=12)
    meter = GaussianMeter()
    for chunk in x.split(size):
        meter.update(chunk)
    found = meter.value()
    assert found.count == 333
    torch.testing.assert_close(found.mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.covariance, torch.from_numpy(np.cov(x.numpy(), rowvar=False)), rtol=1e-10, atol=0)


def test_a_large_offset_does_not_cancel_the_covariance() -> None:
    x = features(500, 4, seed=13).float()
    meter = GaussianMeter()
    for chunk in (x + 1e4).split(50):
        meter.update(chunk)
    torch.testing.assert_close(meter.value().covariance, gaussian_of(x).covariance, rtol=1e-3, atol=1e-3)


def test_a_single_feature_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        gaussian_of(torch.zeros(1, 3))


def test_features_of_different_lengths_are_not_compared() -> None:
    with pytest.raises(ValueError, match="3 and of 4"):
        frechet_distance(gaussian_of(features(9, 3, seed=0)), gaussian_of(features(9, 4, seed=0)))
