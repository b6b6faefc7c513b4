"""Pass bands: which harmonics they keep, and that the modes of those harmonics are the filter."""

import math

import numpy as np
import pytest
import torch

from vtk_kernels.frequency import PassBand, band, high, low
from vtk_kernels.frequency.bands import Filter, highest
from vtk_kernels.frequency.lowrank import low_rank, modes


def test_the_number_of_harmonics_below_a_cut_off_is_that_of_exact_fractions():
    for percent in range(1, 51):
        for length in range(1, 513):
            exact = -(-percent * length // 100) - 1  # the largest k with k / length < percent / 100
            assert highest(percent / 100, length) == exact, (percent, length)


@pytest.mark.parametrize("length", range(2, 64))
def test_a_cut_off_that_is_a_rounded_quotient_counts_as_that_harmonic(length):
    for k in range(1, length // 2 + 1):
        assert highest(k / length, length) == k - 1


@pytest.mark.parametrize(
    ("length", "cutoff", "harmonic"),
    [(4, 0.1, 0), (8, 0.1, 0), (16, 0.1, 1), (32, 0.1, 3), (64, 0.1, 6), (8, 0.2, 1), (112, 0.01, 1), (224, 0.01, 2)],
)
def test_the_sizes_that_are_used_most(length, cutoff, harmonic):
    assert highest(cutoff, length) == harmonic
    assert modes(length, np.arange(length // 2 + 1) <= harmonic)[0].shape == (length, 2 * harmonic + 1)


def test_the_ends_of_the_axis():
    assert [highest(0, length) for length in (1, 2, 7)] == [-1, -1, -1]
    assert [highest(1, length) for length in (1, 2, 7, 8)] == [0, 1, 3, 4]
    assert highest(0.5, 8) == 3  # the alternating mode is at 0.5, not below it
    assert highest(0.5, 7) == 3


@pytest.mark.parametrize("length", [*range(1, 17), 33, 64])
def test_the_modes_of_all_harmonics_are_an_orthonormal_basis(length):
    basis, owners = modes(length, np.ones(length // 2 + 1, dtype=bool))
    assert basis.shape == (length, length)
    assert np.abs(basis.T @ basis - np.eye(length)).max() < 1e-14
    assert np.bincount(owners).tolist() == [2 if 0 < 2 * k < length else 1 for k in range(length // 2 + 1)]


@pytest.mark.parametrize("length", range(1, 65))
def test_the_low_modes_are_the_low_pass_of_numpy_and_the_kernel_of_dirichlet(length):
    spectrum = np.fft.fft(np.eye(length), axis=0)
    k = np.minimum(np.arange(length), length - np.arange(length))
    for m in range((length + 1) // 2):
        basis, _ = modes(length, np.arange(length // 2 + 1) <= m)
        projection = basis @ basis.T
        assert np.abs(projection - np.fft.ifft(spectrum * (k <= m)[:, None], axis=0)).max() < 1e-12
        d = np.arange(1, length)
        dirichlet = np.sin((2 * m + 1) * np.pi * d / length) / (length * np.sin(np.pi * d / length))
        assert np.abs(projection[0] - np.r_[(2 * m + 1) / length, dirichlet]).max() < 1e-12


def _matrix(wanted, length):
    """The filter of one axis as a matrix, from its low-rank form."""
    form = low_rank(wanted, (length, 1, 1), torch.device("cpu"), torch.float64)
    projection = form.temporal @ form.temporal.T
    return (torch.eye(length) - projection if form.keeps_pixels else projection).numpy()


def test_small_filters_by_hand():
    eight = _matrix(Filter(high(0.1), None, "box", False), 8)
    assert np.allclose(eight[0], [0.875] + [-0.125] * 7, atol=1e-15)
    four = _matrix(Filter(low(0.3), None, "box", False), 4)
    assert np.allclose(four[0], [0.75, 0.25, -0.25, 0.25], atol=1e-15)
    sixteen = _matrix(Filter(low(0.1), None, "box", False), 16)
    assert np.allclose(sixteen[0, :6], [0.1875, 0.177985, 0.150888, 0.110335, 0.0625, 0.014665], atol=1e-6)
    assert math.isclose(np.trace(sixteen), 3, abs_tol=1e-14)


@pytest.mark.parametrize("length", [2, 7, 16, 31])
@pytest.mark.parametrize("wanted", [high(0.1), low(0.2), band(0.1, 0.4), high(0.4), low(0.5)])
def test_a_filter_is_a_projection_whose_rank_is_the_number_of_bins_kept(length, wanted):
    passes = Filter(wanted, None, "box", False).time_passes(length)
    matrix = _matrix(Filter(wanted, None, "box", False), length)
    bins = sum(int(stays) * (2 if 0 < 2 * k < length else 1) for k, stays in enumerate(passes))
    assert np.abs(matrix - matrix.T).max() < 1e-14
    assert np.abs(matrix @ matrix - matrix).max() < 1e-14
    assert math.isclose(np.trace(matrix), bins, abs_tol=1e-12)


def test_the_side_with_fewer_modes_is_the_one_that_is_computed():
    few = low_rank(Filter(high(0.4), None, "box", False), (16, 1, 1), torch.device("cpu"), torch.float32)
    assert not few.keeps_pixels
    assert few.temporal.shape == (16, 3)
    many = low_rank(Filter(high(0.1), None, "box", False), (16, 1, 1), torch.device("cpu"), torch.float32)
    assert many.keeps_pixels
    assert many.temporal.shape == (16, 3)


def test_a_disc_holds_the_cut_off_of_the_axes_and_no_corner():
    for height, width in [(20, 30), (100, 100), (140, 70)]:
        passes = Filter(None, low(0.1), "radial", False).space_passes(height, width)
        assert passes[:, 0].sum() - 1 == highest(0.1, height)
        assert passes[0].sum() - 1 == highest(0.1, width)
    # 3-4-5: the harmonic (6, 8) of a 100 x 100 frame lies on the circle of 0.1, hence outside; (6, 7) inside.
    assert not Filter(None, low(0.1), "radial", False).space_passes(100, 100)[6, 8]
    assert Filter(None, low(0.1), "radial", False).space_passes(100, 100)[6, 7]
    assert Filter(None, low(0.1), "box", False).space_passes(100, 100)[9, 9]


@pytest.mark.parametrize("cutoff", [0, -0.1, 0.51, 1, float("nan"), float("inf")])
def test_a_cut_off_out_of_range_is_refused(cutoff):
    for make in (high, low, lambda f: band(0.01, f), lambda f: band(f, 0.5)):
        with pytest.raises(ValueError, match=r"^(cutoff|start|stop): the cut-off must be in \(0, 0.5\] cycles/sample"):
            make(cutoff)


def test_an_empty_band_is_refused():
    for start, stop in [(0.2, 0.2), (0.3, 0.2)]:
        with pytest.raises(ValueError, match=r"^start: expected less than stop"):
            band(start, stop)
        with pytest.raises(ValueError, match=r"^pass band: expected 0 <= start < stop <= 1"):
            PassBand(start, stop)
