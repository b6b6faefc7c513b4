from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score

from vtk_cli.errors import UserError
from vtk_cli.similarity.measures import agreement, cka, error_consistency, gradient_cosine, jensen_shannon, unbiased_cka
from vtk_cli.similarity.sat import Floats


def test_agreement_is_the_fraction_of_equal_predictions() -> None:
    matrix = agreement(np.array([[0, 1, 2, 3], [0, 1, 3, 2], [3, 1, 2, 3]]))
    assert matrix.tolist() == [[1.0, 0.5, 0.75], [0.5, 1.0, 0.25], [0.75, 0.25, 1.0]]


def test_error_consistency_of_a_table_worked_by_hand() -> None:
    # a right on 6 of 8, b on 4 of 8; both right on 4, both wrong on 2: c_obs = 6/8, c_exp = 3/4 1/2 + 1/4 1/2 = 1/2.
    a = np.array([1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
    b = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    assert error_consistency(np.stack([a, b]))[0, 1] == 0.5


def test_error_consistency_is_cohen_s_kappa() -> None:
    correct = np.random.default_rng(0).random((5, 70)) < 0.7
    kappa = error_consistency(correct)
    for i in range(5):
        for j in range(5):
            assert kappa[i, j] == pytest.approx(cohen_kappa_score(correct[i], correct[j]), abs=1e-12)
    assert np.diagonal(kappa).tolist() == [1.0] * 5


def test_error_consistency_is_zero_where_chance_explains_everything() -> None:
    correct = np.array([[True] * 4, [True] * 4, [False] * 4, [True, True, False, False]])
    kappa = error_consistency(correct)
    assert kappa[:3, :3].tolist() == [[0.0] * 3] * 3
    assert kappa[0, 3] == 0.0


def test_error_consistency_of_opposite_errors_is_minus_one() -> None:
    right = np.array([True, False, True, False])
    assert error_consistency(np.stack([right, ~right]))[0, 1] == -1.0


def test_independent_errors_have_no_consistency() -> None:
    correct = np.random.default_rng(0).random((2, 100_000)) < [[0.9], [0.6]]
    assert abs(error_consistency(correct)[0, 1]) < 0.01


def test_jensen_shannon_equals_scipy_image_by_image() -> None:
    chances = softmax(np.random.default_rng(0).normal(size=(3, 20, 7)) * 3, axis=-1)
    matrix = jensen_shannon(chances)
    for i in range(3):
        for j in range(3):
            by_image = [jensenshannon(p, q, base=2) ** 2 for p, q in zip(chances[i], chances[j], strict=True)]
            assert matrix[i, j] == pytest.approx(np.mean(by_image), abs=1e-12)
    assert np.array_equal(matrix, matrix.T)


def test_jensen_shannon_is_one_bit_where_nothing_overlaps_and_zero_where_all_does() -> None:
    matrix = jensen_shannon(np.array([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]]))
    assert matrix[0, 1] == 1.0
    assert matrix[0, 2] == 0.0


def test_gradient_cosine_is_the_mean_angle_and_batches_do_not_matter() -> None:
    gradients = np.random.default_rng(0).normal(size=(3, 11, 5)).astype(np.float32)
    expected = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for u, v in zip(gradients[i], gradients[j], strict=True):
                expected[i, j] += np.dot(u, v) / np.linalg.norm(u) / np.linalg.norm(v) / 11
    whole = gradient_cosine([gradients])
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    np.testing.assert_allclose(gradient_cosine([gradients[:, :4], gradients[:, 4:]]), whole, atol=1e-14)
    np.testing.assert_allclose(np.diagonal(whole), 1.0, atol=1e-14)


def test_gradient_cosine_does_not_depend_on_the_size_of_the_gradients() -> None:
    gradients = np.random.default_rng(0).normal(size=(2, 6, 4))
    sizes = 10.0 ** np.random.default_rng(1).uniform(-12, 12, size=(2, 6, 1))
    np.testing.assert_allclose(gradient_cosine([gradients * sizes]), gradient_cosine([gradients]), atol=1e-12)


def test_gradient_cosine_survives_gradients_whose_square_would_under_or_overflow() -> None:
    gradients = np.array([[[3e-200, 4e-200]], [[4e-200, 3e-200]]])
    assert gradient_cosine([gradients])[0, 1] == pytest.approx(24 / 25)
    assert gradient_cosine([gradients * 1e200 * 1e200])[0, 1] == pytest.approx(24 / 25)


def test_images_without_a_gradient_are_left_out_of_the_mean() -> None:
    gradients = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    cosine = gradient_cosine([gradients])
    assert cosine[0, 1] == 1.0
    assert math.isnan(cosine[0, 2])


def test_gradient_cosine_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        gradient_cosine([])


def textbook_cka(x: Floats, y: Floats) -> float:
    """HSIC ratio with an explicit centring matrix (arXiv 1905.00414)."""
    n = len(x)
    H = np.eye(n) - np.ones((n, n)) / n
    K, L = H @ x @ x.T @ H, H @ y @ y.T @ H
    return float(np.trace(K @ L) / math.sqrt(np.trace(K @ K) * np.trace(L @ L)))


def u_centred(gram: Floats) -> Floats:
    """The U-centred matrix of Szekely and Rizzo: another road to the unbiased HSIC."""
    n = len(gram)
    gram = gram.copy()
    np.fill_diagonal(gram, 0.0)
    rows = gram.sum(axis=0)
    out = gram - (rows[:, None] + rows[None, :]) / (n - 2) + rows.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(out, 0.0)
    return out


@pytest.mark.parametrize("widths", [(5, 9, 3), (60, 80, 50)])  # both roads of the Frobenius norm
def test_biased_cka_equals_the_textbook(widths: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=(40, 4))
    features = [base @ random.normal(size=(4, p)) + 0.5 * random.normal(size=(40, p)) + 3.0 for p in widths]
    matrix = cka(features)
    for i in range(3):
        for j in range(3):
            assert matrix[i, j] == pytest.approx(textbook_cka(features[i], features[j]), rel=1e-12)
    assert np.array_equal(matrix, matrix.T)


def test_unbiased_cka_of_one_batch_equals_u_centring() -> None:
    random = np.random.default_rng(0)
    base = random.normal(size=(30, 4))
    x, y = (base @ random.normal(size=(4, p)) + random.normal(size=(30, p)) for p in (6, 50))
    K, L = u_centred(x @ x.T), u_centred(y @ y.T)
    expected = (K * L).sum() / math.sqrt((K * K).sum() * (L * L).sum())
    assert unbiased_cka([x, y])[0, 1] == pytest.approx(expected, rel=1e-12)


def test_unbiased_cka_averages_hsic_over_batches_before_the_ratio() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2, 24, 5))
    x[:8] *= 10
    y += x
    hsic = np.zeros((2, 2))
    for part in (slice(0, 8), slice(8, 16), slice(16, 24)):
        # Centring by the whole's mean cannot matter: U-centring removes any shift.
        grams = [u_centred(z[part] @ z[part].T) for z in (x, y)]
        hsic += [[(a * b).sum() for b in grams] for a in grams]
    assert unbiased_cka([x, y], batch=8)[0, 1] == pytest.approx(
        hsic[0, 1] / math.sqrt(hsic[0, 0] * hsic[1, 1]), rel=1e-10
    )


def test_cka_of_independent_gaussians_is_biased_upward_and_unbiased_near_zero() -> None:
    pairs = [np.random.default_rng(seed).normal(size=(2, 64, 32)) for seed in range(20)]
    assert abs(np.mean([unbiased_cka(list(pair))[0, 1] for pair in pairs])) < 0.02
    assert np.mean([cka(list(pair))[0, 1] for pair in pairs]) == pytest.approx(0.334, abs=0.02)


@pytest.mark.parametrize("measure", [cka, unbiased_cka])
def test_cka_ignores_rotation_scale_and_shift(measure) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 8))
    Q, _ = np.linalg.qr(random.normal(size=(8, 8)))
    matrix = measure([x, x @ Q, 3.0 * x, x + 100.0])
    np.testing.assert_allclose(matrix, 1.0, atol=1e-10)


@pytest.mark.parametrize("measure", [cka, unbiased_cka])
def test_cka_does_not_overflow(measure) -> None:  # type: ignore[no-untyped-def]
    x, y = np.random.default_rng(0).normal(size=(2, 20, 5))
    np.testing.assert_allclose(measure([x * 1e200, y * 1e-200]), measure([x, y]), atol=1e-12)


@pytest.mark.parametrize("measure", [cka, unbiased_cka])
def test_constant_features_have_no_cka(measure) -> None:  # type: ignore[no-untyped-def]
    x = np.random.default_rng(0).normal(size=(20, 5))
    matrix = measure([x, np.full((20, 3), 0.1)])
    assert matrix[0, 0] == 1.0
    assert np.isnan([matrix[0, 1], matrix[1, 0], matrix[1, 1]]).all()


@pytest.mark.parametrize("measure", [cka, unbiased_cka])
def test_features_that_are_not_finite_name_their_network(measure) -> None:  # type: ignore[no-untyped-def]
    bad = np.ones((5, 2))
    bad[0, 0] = np.nan
    with pytest.raises(UserError, match="features of network 2 hold NaN or infinity"):
        measure([np.eye(5), bad])


def test_no_batch_is_ever_left_with_fewer_than_four_images() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 9, 5))
    assert np.isfinite(unbiased_cka([x, y], batch=8)).all()  # one batch of 9, not 8 and 1
    assert np.isfinite(unbiased_cka([x, y], batch=4)).all()  # 5 and 4, not 3, 3 and 3
    assert np.isfinite(unbiased_cka([x[:4], y[:4]])).all()


@pytest.mark.parametrize(("images", "batch"), [(3, 256), (20, 3)])
def test_fewer_than_four_images_a_batch_are_refused(images: int, batch: int) -> None:
    x = np.random.default_rng(0).normal(size=(images, 5))
    with pytest.raises(UserError, match="at least 4 images a batch"):
        unbiased_cka([x, x], batch=batch)
