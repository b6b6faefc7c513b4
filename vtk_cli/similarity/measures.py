"""Other ways to compare networks, on the same images, to set beside SAT.

Each takes what N networks did on n images and gives an (N, N) float64 matrix, symmetric to the last bit. All but
`jensen_shannon` grow with similarity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from vtk_cli.errors import UserError
from vtk_cli.similarity.sat import Bits, Counts, Floats

FEWEST_FOR_HSIC = 4
CKA_BATCH = 256

Features = NDArray[Any]  # (n, p), any float dtype; p may differ from network to network


def agreement(predictions: Counts) -> Floats:
    """The fraction of images that both networks put in the same class, right or wrong.

    Args:
        predictions: (N, n) class indices.

    Returns:
        (N, N) in [0, 1], 1 on the diagonal.
    """
    return np.array([(predictions == row).mean(axis=1) for row in predictions], dtype=np.float64)


def error_consistency(correct: Bits) -> Floats:
    """Cohen's kappa of being right (Geirhos et al., arXiv 2006.16736): (c_obs - c_exp) / (1 - c_exp).

    c_obs is how often both are right or both are wrong; c_exp = pA pB + (1 - pA)(1 - pB) is what their accuracies alone
    would give. 0 where c_exp = 1 (both always right, or both always wrong), for then nothing is left to agree on.

    Args:
        correct: (N, n).

    Returns:
        (N, N) in [-1, 1].
    """
    images = correct.shape[1]
    right = correct.sum(axis=1)
    both = np.array([(correct & row).sum(axis=1) for row in correct])
    neither = images - right[:, None] - right[None, :] + both
    # Integers up to the one division: kappa of equal masks is 1 exactly, not 1 - 1e-16.
    observed = images * (both + neither)
    expected = right[:, None] * right[None, :] + (images - right)[:, None] * (images - right)[None, :]
    kappa = np.zeros(both.shape)
    np.divide(observed - expected, images**2 - expected, out=kappa, where=expected < images**2)
    return kappa


def jensen_shannon(chances: NDArray[Any]) -> Floats:
    """Mean Jensen-Shannon divergence of the predicted distributions, in bits: a distance, 0 = the same predictions.

    Args:
        chances: (N, n, C) softmax probabilities.

    Returns:
        (N, N) in [0, 1], 0 on the diagonal.
    """
    networks = len(chances)
    divergence = np.zeros((networks, networks))
    entropy = [_mean_entropy(row.astype(np.float64)) for row in chances]
    for i in range(networks):
        for j in range(i + 1, networks):
            mixed = _mean_entropy((chances[i].astype(np.float64) + chances[j]) / 2.0)
            divergence[i, j] = divergence[j, i] = max(0.0, mixed - (entropy[i] + entropy[j]) / 2.0) / np.log(2.0)
    return divergence


def gradient_cosine(batches: Iterable[NDArray[Any]]) -> Floats:
    """Mean cosine between two networks' input gradients of the loss, image by image.

    Images on which either gradient is exactly zero have no angle and are left out of that pair.

    Args:
        batches: arrays (N, b, D) of flattened gradients, batch after batch; only one is held at a time.

    Returns:
        (N, N) in [-1, 1]; NaN where no image is left.

    Raises:
        ValueError: there is no batch.
    """
    total: Floats | None = None
    counted: Floats | None = None
    for batch in batches:
        gradients = batch.astype(np.float64)
        largest = np.abs(gradients).max(axis=-1, keepdims=True)
        nonzero = largest > 0.0
        # By its largest entry first: the square of a tiny gradient would vanish.
        unit = gradients / np.where(nonzero, largest, 1.0)
        unit /= np.where(nonzero, np.linalg.norm(unit, axis=-1, keepdims=True), 1.0)
        flat, present = unit.reshape(len(unit), -1), nonzero[..., 0].astype(np.float64)
        cosine, images = flat @ flat.T, present @ present.T
        total = cosine if total is None else total + cosine
        counted = images if counted is None else counted + images
    if total is None or counted is None:
        raise ValueError("gradient_cosine needs at least one batch")
    mean = np.full(total.shape, np.nan)
    np.divide(total, counted, out=mean, where=counted > 0.0)
    return _symmetric(np.clip(mean, -1.0, 1.0))


def cka(features: Sequence[Features]) -> Floats:
    """Linear centred kernel alignment (Kornblith et al., arXiv 1905.00414).

    ||Yc' Xc||_F^2 / (||Xc' Xc||_F ||Yc' Yc||_F) with centred columns. Biased upward when n is not much larger than the
    number of features (0.33 for independent Gaussians with n = 64, p = 32): prefer `unbiased_cka`.

    Args:
        features: N arrays (n, p_i), one a network, rows = images.

    Returns:
        (N, N) in [0, 1]; NaN for a network whose features are constant.

    Raises:
        UserError: features that are not finite.
    """
    centred = [_centred(index, network) for index, network in enumerate(features)]
    networks = len(centred)
    alignment = np.zeros((networks, networks))
    for i in range(networks):
        for j in range(i, networks):
            alignment[i, j] = alignment[j, i] = _frobenius_of_product(centred[i], centred[j])
    return _normalised(alignment)


def unbiased_cka(features: Sequence[Features], batch: int = CKA_BATCH) -> Floats:
    """Linear CKA from the unbiased HSIC of minibatches (Nguyen et al., arXiv 2010.15327).

    With K and L the batch's Gram matrices, diagonals set to zero, and 1 the vector of ones,

        HSIC1 = [tr(K L) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2 / (n-2) 1'K L 1] / (n (n-3)),

    averaged over batches before the ratio HSIC1(K, L) / sqrt(HSIC1(K, K) HSIC1(L, L)). Near 0 for unrelated features
    whatever n and p (it may be slightly negative).

    Args:
        features: N arrays (n, p_i), one a network, rows = images.
        batch: images a batch; the images are split evenly, so that no batch is left with too few.

    Returns:
        (N, N), at most 1; NaN for a network whose features are constant.

    Raises:
        UserError: fewer than 4 images or fewer than 4 a batch (HSIC1 divides by n - 3), features that are not finite.
    """
    images = len(features[0])
    if min(images, batch) < FEWEST_FOR_HSIC:
        raise UserError(
            f"CKA over {images} images in batches of {batch}", fix=f"give at least {FEWEST_FOR_HSIC} images a batch"
        )
    centred = [_centred(index, network) for index, network in enumerate(features)]
    # Rounding the number of batches down keeps every batch at `batch` images or more, hence never below 4.
    parts = np.array_split(np.arange(images), max(1, images // batch))
    hsic = np.mean([_hsic([network[part] for network in centred]) for part in parts], axis=0)
    return _normalised(hsic)


def _mean_entropy(chances: Floats) -> float:
    """Mean Shannon entropy in nats of (n, C) distributions."""
    return float(entr(chances).sum(axis=-1).mean())


def _centred(index: int, features: Features) -> Floats:
    """Columns with zero mean, scaled to at most 1 so that no product overflows; CKA does not depend on the scale."""
    exact = features.astype(np.float64)
    if not np.isfinite(exact).all():
        raise UserError(f"the features of network {index + 1} hold NaN or infinity", "CKA", "check its weights")
    scaled = _scaled(exact)
    centred = scaled - scaled.mean(axis=0)
    # What is left of a constant column is rounding; as features they would align with anything.
    centred[:, np.ptp(scaled, axis=0) == 0.0] = 0.0
    return np.asarray(_scaled(centred))


def _scaled(values: Floats) -> Floats:
    largest = float(np.abs(values).max(initial=0.0))
    return values / largest if largest > 0.0 else values


def _frobenius_of_product(x: Floats, y: Floats) -> float:
    """||y' x||_F^2 through whichever of the (p, q) product and the (n, n) Gram matrices is smaller."""
    if x.shape[1] * y.shape[1] <= len(x) ** 2:
        return float(np.square(y.T @ x).sum())
    return float(((x @ x.T) * (y @ y.T)).sum())


def _hsic(batch: Sequence[Floats]) -> Floats:
    """HSIC1 of every two of N networks on one batch: (N, N)."""
    images = len(batch[0])
    grams = np.stack([network @ network.T for network in batch])  # (N, n, n)
    grams[:, np.arange(images), np.arange(images)] = 0.0
    flat, rows = grams.reshape(len(grams), -1), grams.sum(axis=2)  # (N, n^2), (N, n)
    totals = rows.sum(axis=1)
    trace = flat @ flat.T  # tr(K L) of symmetric K and L
    constant = np.outer(totals, totals) / ((images - 1) * (images - 2))
    crossed = 2.0 / (images - 2) * (rows @ rows.T)
    return np.asarray((trace + constant - crossed) / (images * (images - 3)))


def _normalised(alignment: Floats) -> Floats:
    """A_ij / sqrt(A_ii A_jj), 1 on the diagonal; NaN where A_ii or A_jj is not positive."""
    own = np.diagonal(alignment)
    scale = np.sqrt(np.where(own > 0.0, own, np.nan))
    ratio = alignment / np.outer(scale, scale)
    np.fill_diagonal(ratio, np.where(own > 0.0, 1.0, np.nan))
    return _symmetric(ratio)


def _symmetric(matrix: Floats) -> Floats:
    """The mean of both triangles: matrix products are symmetric only up to rounding."""
    return (matrix + matrix.T) / 2.0
