from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtk_cli.errors import ExitCode, UserError
from vtk_cli.similarity.sat import (
    MAX_SAT,
    NothingInCommon,
    TransferBits,
    bootstrap_interval,
    center,
    control_warnings,
    controls,
    sat_matrix,
)


def random_bits(networks: int, images: int, seed: int = 0, fooled: float = 0.3) -> TransferBits:
    random = np.random.default_rng(seed)
    return TransferBits(
        names=tuple(f"net{i}" for i in range(networks)),
        correct=random.random((networks, images)) < 0.85,
        wrong=random.random((networks, networks, images)) < fooled,
        noisy_wrong=random.random((networks, images)) < 0.02,
    )


def two_networks(images: int, a_to_b: int, b_to_a: int) -> TransferBits:
    """Both right everywhere, white-box always successful, and so many flips in each direction."""
    wrong = np.ones((2, 2, images), dtype=bool)
    wrong[0, 1] = np.arange(images) < a_to_b
    wrong[1, 0] = np.arange(images) >= images - b_to_a
    return TransferBits(("a", "b"), np.ones((2, images), dtype=bool), wrong, np.zeros((2, images), dtype=bool))


def test_sat_of_a_network_with_itself_is_log_100_when_the_attack_always_succeeds() -> None:
    matrix = sat_matrix(two_networks(7, 0, 0))
    assert np.diagonal(matrix.score).tolist() == [math.log(100.0)] * 2
    assert np.diagonal(matrix.score)[0] == pytest.approx(4.605170186, abs=1e-9)
    assert np.diagonal(matrix.transfer).tolist() == [1.0, 1.0]


def test_one_and_two_flips_of_four_images_make_the_log_of_37_point_5_percent() -> None:
    matrix = sat_matrix(two_networks(4, a_to_b=1, b_to_a=2))
    assert matrix.score[0, 1] == pytest.approx(3.624340933, abs=1e-9)
    assert matrix.transfer.tolist() == [[1.0, 0.25], [0.5, 1.0]]
    assert matrix.n_common.tolist() == [[4, 4], [4, 4]]
    assert not matrix.floored.any()


def test_no_flip_scores_the_floor_and_says_so() -> None:
    matrix = sat_matrix(two_networks(4, 0, 0))
    assert matrix.score[0, 1] == pytest.approx(-2.302585093, abs=1e-9)
    assert matrix.floored.tolist() == [[False, True], [True, False]]
    assert sat_matrix(two_networks(4, 0, 0), eps_s=1.0).score[0, 1] == 0.0


def test_every_flip_in_both_directions_scores_log_100() -> None:
    assert sat_matrix(two_networks(4, 4, 4)).score[0, 1] == pytest.approx(4.605170186, abs=1e-9)


def test_one_flip_among_500_images_is_exactly_the_floor_and_is_not_floored() -> None:
    matrix = sat_matrix(two_networks(500, 1, 0))
    assert matrix.score[0, 1] == math.log(0.1)
    assert not matrix.floored.any()
    assert sat_matrix(two_networks(501, 1, 0)).floored[0, 1]


def test_images_that_one_network_misclassifies_do_not_count() -> None:
    bits = two_networks(6, a_to_b=2, b_to_a=0)
    bits.correct[0, 0] = False  # one of the two flips a -> b goes
    bits.correct[1, 5] = False
    matrix = sat_matrix(bits)
    assert matrix.n_common.tolist() == [[5, 4], [4, 5]]
    assert matrix.transfer[0, 1] == 0.25
    assert matrix.score[0, 1] == math.log(100.0 * 1 / 8)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0.01, 50.0))
def test_scores_are_symmetric_to_the_bit_and_within_their_range(n: int, images: int, seed: int, eps_s: float) -> None:
    matrix = sat_matrix(random_bits(n, images, seed), eps_s)
    assert np.array_equal(matrix.score, matrix.score.T, equal_nan=True)
    defined = matrix.score[matrix.n_common > 0]
    assert (defined >= math.log(eps_s)).all()
    assert (defined <= math.log(100.0)).all()
    assert np.isnan(matrix.score[matrix.n_common == 0]).all()


def test_scores_equal_a_count_image_by_image() -> None:
    bits = random_bits(5, 60)
    matrix = sat_matrix(bits)
    for i in range(5):
        for j in range(5):
            common = [x for x in range(60) if bits.correct[i, x] and bits.correct[j, x]]
            there = sum(bool(bits.wrong[i, j, x]) for x in common)
            back = sum(bool(bits.wrong[j, i, x]) for x in common)
            assert matrix.score[i, j] == pytest.approx(math.log(100 * (there + back) / (2 * len(common))), rel=1e-14)
            assert matrix.transfer[i, j] == there / len(common)


def test_transfer_has_a_direction_though_the_score_has_none() -> None:
    transfer = sat_matrix(random_bits(4, 50)).transfer
    assert not np.array_equal(transfer, transfer.T)


def test_the_order_of_the_images_and_of_the_networks_changes_nothing() -> None:
    bits = random_bits(4, 30)
    score = sat_matrix(bits).score
    shuffled = np.random.default_rng(1).permutation(30)
    again = TransferBits(
        bits.names, bits.correct[:, shuffled], bits.wrong[:, :, shuffled], bits.noisy_wrong[:, shuffled]
    )
    assert np.array_equal(sat_matrix(again).score, score)
    order = [2, 0, 3]
    assert np.array_equal(sat_matrix(bits.of(order)).score, score[np.ix_(order, order)])
    assert bits.of(order).names == ("net2", "net0", "net3")


def test_a_pair_with_nothing_in_common_has_no_score_and_is_named() -> None:
    bits = two_networks(4, 1, 1)
    bits.correct[0] = [True, True, False, False]
    bits.correct[1] = [False, False, True, True]
    matrix = sat_matrix(bits)
    assert math.isnan(matrix.score[0, 1])
    assert matrix.undefined_pairs == [("a", "b")]
    assert not matrix.floored.any()
    low, high = bootstrap_interval(bits, 10)
    assert math.isnan(low[0, 1])
    assert math.isnan(high[1, 0])
    with pytest.raises(NothingInCommon, match="a, b: no image is classified correctly by both") as error:
        matrix.require_complete()
    assert error.value.exit_code == ExitCode.USAGE
    assert "no image is classified correctly by both: a / b" in control_warnings(matrix, controls(bits))[0]


def test_a_complete_matrix_passes() -> None:
    sat_matrix(two_networks(4, 1, 1)).require_complete()


@pytest.mark.parametrize("eps_s", [0.0, -1.0, 100.5, math.nan])
def test_a_floor_outside_its_range_is_refused(eps_s: float) -> None:
    with pytest.raises(UserError, match="eps_s"):
        sat_matrix(two_networks(4, 1, 1), eps_s)
    with pytest.raises(UserError, match="eps_s"):
        bootstrap_interval(two_networks(4, 1, 1), 10, eps_s=eps_s)


def test_bits_of_the_wrong_shape_or_dtype_are_refused() -> None:
    good = two_networks(4, 1, 1)
    with pytest.raises(ValueError, match="wrong must be bool of shape"):
        TransferBits(good.names, good.correct, good.wrong[0], good.noisy_wrong)
    with pytest.raises(ValueError, match="noisy_wrong must be bool"):
        TransferBits(good.names, good.correct, good.wrong, good.noisy_wrong.astype(float))


def test_the_bootstrap_agrees_with_resampling_indices() -> None:
    bits = random_bits(2, 120, seed=3, fooled=0.15)
    low, high = bootstrap_interval(bits, resamples=20_000, seed=1)
    common = np.flatnonzero(bits.correct[0] & bits.correct[1])
    fooled = (bits.wrong[0, 1, common].astype(float) + bits.wrong[1, 0, common]) / 2
    drawn = np.random.default_rng(2).integers(len(common), size=(20_000, len(common)))
    by_index = np.percentile(np.log(100 * fooled[drawn].mean(axis=1)), [2.5, 97.5])
    # Both are Monte Carlo estimates of the same quantiles of a discrete distribution: one step of it is the tolerance.
    step = 1 / (2 * len(common) * fooled.mean())
    assert low[0, 1] == pytest.approx(by_index[0], abs=1.5 * step)
    assert high[0, 1] == pytest.approx(by_index[1], abs=1.5 * step)


def test_the_interval_brackets_the_score_and_shrinks_with_the_root_of_the_images() -> None:
    widths = []
    for images in (400, 1600, 6400):
        bits = random_bits(3, images, seed=5, fooled=0.3)
        low, high = bootstrap_interval(bits, resamples=2000)
        score = sat_matrix(bits).score
        assert (low <= score).all()
        assert (score <= high).all()
        widths.append(high[0, 1] - low[0, 1])
    assert widths[0] / widths[1] == pytest.approx(2.0, rel=0.2)
    assert widths[1] / widths[2] == pytest.approx(2.0, rel=0.2)


def test_the_interval_has_the_width_of_the_normal_approximation() -> None:
    bits = random_bits(2, 5000, seed=7, fooled=0.25)
    low, high = bootstrap_interval(bits, resamples=4000)
    common = bits.correct[0] & bits.correct[1]
    fooled = (bits.wrong[0, 1, common].astype(float) + bits.wrong[1, 0, common]) / 2
    standard_error = fooled.std() / math.sqrt(common.sum()) / fooled.mean()  # of the log, by the delta method
    assert high[0, 1] - low[0, 1] == pytest.approx(2 * 1.96 * standard_error, rel=0.06)


def test_intervals_are_symmetric_and_do_not_depend_on_the_other_networks() -> None:
    bits = random_bits(4, 80)
    low, high = bootstrap_interval(bits, 200, seed=4)
    assert np.array_equal(low, low.T)
    assert np.array_equal(high, high.T)
    few_low, few_high = bootstrap_interval(bits.of([1, 3]), 200, seed=4)
    assert few_low[0, 1] == low[1, 3]
    assert few_high[0, 1] == high[1, 3]


def test_another_seed_gives_another_interval_and_the_same_seed_the_same() -> None:
    bits = random_bits(2, 80)
    assert np.array_equal(bootstrap_interval(bits, 100, 1)[0], bootstrap_interval(bits, 100, 1)[0])
    assert not np.array_equal(bootstrap_interval(bits, 100, 1)[0], bootstrap_interval(bits, 100, 2)[0])


def test_no_resamples_are_refused() -> None:
    with pytest.raises(UserError, match="0 bootstrap resamples"):
        bootstrap_interval(two_networks(4, 1, 1), 0)


def test_controls_are_the_counted_fractions() -> None:
    bits = two_networks(10, a_to_b=4, b_to_a=0)
    bits.correct[1, 9] = False
    bits.wrong[0, 0, :2] = False
    bits.noisy_wrong[1, [0, 9]] = True  # image 9 does not count: network b is wrong on it anyway
    control = controls(bits)
    assert control.accuracy.tolist() == [1.0, 0.9]
    assert control.n_ok.tolist() == [10, 9]
    assert control.whitebox.tolist() == [0.8, 1.0]
    assert control.noise_floor.tolist() == [0.0, 1 / 9]
    assert control.corrected[0, 1] == pytest.approx((4 / 9 - 1 / 9) / (1 - 1 / 9))
    assert control.corrected[1, 0] == 0.0


def test_transfer_below_the_noise_floor_is_corrected_to_zero() -> None:
    bits = two_networks(10, a_to_b=1, b_to_a=0)
    bits.noisy_wrong[1, :3] = True
    assert controls(bits).corrected[0, 1] == 0.0


def test_a_network_that_noise_always_fools_shows_no_transfer() -> None:
    bits = two_networks(10, a_to_b=10, b_to_a=0)
    bits.noisy_wrong[1] = True
    corrected = controls(bits).corrected
    assert corrected[0, 1] == 0.0
    assert np.isfinite(corrected).all()


def test_good_controls_warn_of_nothing() -> None:
    bits = two_networks(100, 20, 30)
    assert control_warnings(sat_matrix(bits), controls(bits)) == []


def warnings_of(bits: TransferBits) -> list[str]:
    return control_warnings(sat_matrix(bits), controls(bits))


def test_white_box_success_below_95_percent_is_warned_of() -> None:
    bits = two_networks(100, 20, 30)
    bits.wrong[0, 0, :5] = False
    assert warnings_of(bits) == []
    bits.wrong[0, 0, 5] = False
    (warning,) = warnings_of(bits)
    assert "fools a itself on only 94.0 %" in warning


def test_a_noise_floor_above_5_percent_is_warned_of() -> None:
    bits = two_networks(100, 20, 30)
    bits.noisy_wrong[1, :5] = True
    assert warnings_of(bits) == []
    bits.noisy_wrong[1, 5] = True
    (warning,) = warnings_of(bits)
    assert "fools b on 6.0 %" in warning


def test_noise_above_half_of_the_transfer_into_a_network_is_warned_of() -> None:
    bits = two_networks(100, a_to_b=6, b_to_a=30)
    bits.noisy_wrong[1, :3] = True
    assert warnings_of(bits) == []
    bits.noisy_wrong[1, 3] = True
    (warning,) = warnings_of(bits)
    assert "noise alone (4.0 %) accounts for more than half of the transfer to b from a" in warning


def test_accuracies_more_than_5_points_apart_are_warned_of() -> None:
    bits = two_networks(100, 20, 30)
    bits.correct[1, :5] = False
    assert warnings_of(bits) == []
    bits.correct[1, 5] = False
    (warning,) = warnings_of(bits)
    assert "a 100.0 %, b 94.0 %" in warning


def test_fewer_than_50_common_images_are_warned_of() -> None:
    assert warnings_of(two_networks(50, 20, 30)) == []
    (warning,) = warnings_of(two_networks(49, 20, 30))
    assert "fewest 49" in warning


def test_a_floored_pair_is_warned_of_with_the_transfer_it_could_hide() -> None:
    (warning,) = warnings_of(two_networks(100, 0, 0))
    assert "a / b" in warning
    assert "up to 3.0 %" in warning


def test_a_network_that_is_never_right_is_named() -> None:
    bits = two_networks(60, 10, 10)
    bits.correct[1] = False
    assert any(warning.startswith("b classifies no image correctly") for warning in warnings_of(bits))


def test_centred_scores_have_rows_that_sum_to_zero_off_the_diagonal() -> None:
    score = sat_matrix(random_bits(7, 200)).score
    centred = center(score)
    assert np.array_equal(centred, centred.T)
    np.fill_diagonal(centred, 0.0)
    assert np.abs(centred.sum(axis=1)).max() < 1e-12


def test_centring_removes_every_network_s_own_level_and_is_idempotent() -> None:
    score = sat_matrix(random_bits(7, 200)).score
    level = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(center(score + level[:, None] + level[None, :] + 3.0), center(score), atol=1e-12)
    np.testing.assert_allclose(center(center(score)), center(score), atol=1e-12)


def test_centring_ignores_the_diagonal() -> None:
    score = sat_matrix(random_bits(5, 200)).score
    other = score.copy()
    np.fill_diagonal(other, MAX_SAT / 2)
    off = ~np.eye(5, dtype=bool)
    assert np.array_equal(center(score)[off], center(other)[off])


def test_centring_equals_least_squares() -> None:
    score = sat_matrix(random_bits(6, 200)).score
    rows, columns = np.triu_indices(6, k=1)
    design = np.zeros((len(rows), 7))
    design[:, 6] = 1.0
    design[np.arange(len(rows)), rows] = 1.0
    design[np.arange(len(rows)), columns] = 1.0
    target = score[rows, columns]
    fit = design @ np.linalg.lstsq(design, target, rcond=None)[0]
    np.testing.assert_allclose(center(score)[rows, columns], target - fit, atol=1e-12)


def test_three_networks_are_too_few_to_centre() -> None:
    with pytest.raises(UserError, match="at least 4"):
        center(np.zeros((3, 3)))
