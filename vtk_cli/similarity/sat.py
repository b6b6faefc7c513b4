"""Similarity by Attack Transferability (SAT): the score, its interval and its controls, from bits.

Hwang et al., "Similarity of Neural Architectures using Adversarial Attack Transferability", arXiv 2210.11407. With
X_AB the images that A and B both classify correctly and t(A->B) the fraction of X_AB on which B is wrong once the
image was attacked against A,

    SAT(A, B) = ln max(eps_s, 100 (t(A->B) + t(B->A)) / 2).

Everything here is a pure function of `TransferBits`: merging, sub-setting and resampling need no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vtk_cli.errors import UserError

FLOOR_PERCENT = 0.1
"""eps_s: the transfer in percent below which a pair is scored as this much (one flip among 2 x 500 trials)."""
MAX_SAT = float(np.log(100.0))
"""The score when every attacked image fools both networks."""

FEW_IMAGES = 50
FEWEST_TO_CENTER = 4
"""Networks from which on centred scores say something: with 3 the fit is exact and nothing is left."""
WEAK_ATTACK = 0.95
HIGH_NOISE_FLOOR = 0.05
ACCURACY_GAP = 0.05

Bits = NDArray[np.bool_]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class TransferBits:
    """What N networks did on n images, one bit a question.

    Args:
        names: the N names, in the order of every first axis below.
        correct: (N, n); network i is right on the clean image.
        wrong: (N, N, n); [i, j] says whether network j is wrong on the image that was attacked against network i.
        noisy_wrong: (N, n); network i is wrong on the image plus eps times random signs.

    Raises:
        ValueError: the shapes disagree or a dtype is not bool.
    """

    names: tuple[str, ...]
    correct: Bits
    wrong: Bits
    noisy_wrong: Bits

    def __post_init__(self) -> None:
        networks, images = len(self.names), self.correct.shape[-1]
        expected = {"correct": (networks, images), "wrong": (networks, networks, images)}
        expected["noisy_wrong"] = expected["correct"]
        for field, shape in expected.items():
            bits = getattr(self, field)
            if bits.shape != shape or bits.dtype != np.bool_:
                raise ValueError(f"{field} must be bool of shape {shape}, got {bits.dtype} {bits.shape}")

    def of(self, networks: Sequence[int]) -> TransferBits:
        """The bits of some of the networks only, by position."""
        chosen = np.asarray(networks, dtype=np.intp)
        return TransferBits(
            names=tuple(self.names[i] for i in chosen),
            correct=self.correct[chosen],
            wrong=self.wrong[np.ix_(chosen, chosen)],
            noisy_wrong=self.noisy_wrong[chosen],
        )


@dataclass(frozen=True)
class SatMatrix:
    """SAT between N networks.

    Args:
        names: the N names.
        score: (N, N) in [ln eps_s, ln 100], symmetric to the last bit; NaN where no image is common.
        transfer: (N, N) in [0, 1]; row = the network attacked, column = the network fooled; NaN where none is common.
        n_common: (N, N); |X_ij|, the images both classify correctly.
        floored: (N, N); the transfer was below eps_s and the score is ln eps_s.
    """

    names: tuple[str, ...]
    score: Floats
    transfer: Floats
    n_common: Counts
    floored: Bits

    @property
    def undefined_pairs(self) -> list[tuple[str, str]]:
        """The pairs with no image that both classify correctly: their score is NaN."""
        rows, columns = np.nonzero(np.triu(self.n_common == 0))
        return [(self.names[i], self.names[j]) for i, j in zip(rows, columns, strict=True)]

    def require_complete(self) -> None:
        """Insist that every pair has a score.

        Raises:
            NothingInCommon: naming the first pair without one.
        """
        if self.undefined_pairs:
            raise NothingInCommon(self.undefined_pairs)


class NothingInCommon(UserError):
    """No image is classified correctly by both networks of a pair, so SAT between them is not defined."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self.pairs = list(pairs)
        first, second = self.pairs[0]
        others = f" (and {len(self.pairs) - 1} more pairs)" if len(self.pairs) > 1 else ""
        super().__init__(
            f"no image is classified correctly by both{others}",
            f"{first}, {second}",
            "check the labels and the class order, give more images, or leave the network out",
        )


def sat_matrix(bits: TransferBits, eps_s: float = FLOOR_PERCENT) -> SatMatrix:
    """SAT of every pair (arXiv 2210.11407); both directions of a pair are pooled over the same X_ij.

    Args:
        bits: what the networks did.
        eps_s: the floor of the mean transfer, in percent, in (0, 100].

    Raises:
        UserError: `eps_s` is out of range.
    """
    floor = _checked_floor(eps_s)
    common, flips = _common_and_flips(bits)
    transfer = _ratio(flips, common)
    percent = _ratio(100.0 * (flips + flips.T), 2.0 * common)
    score = np.log(np.maximum(percent, floor))  # `maximum` hands NaN on, so an undefined pair is not floored
    return SatMatrix(bits.names, score, transfer, common, percent < floor)


def bootstrap_interval(
    bits: TransferBits, resamples: int = 1000, seed: int = 0, eps_s: float = FLOOR_PERCENT
) -> tuple[Floats, Floats]:
    """95 % percentile bootstrap interval of every SAT, resampling the images of X_ij.

    An image of X_ij contributes 0, 1/2 or 1 (fooled in no, one or both directions), and the score depends on a resample
    only through how many images of each kind it holds. Drawing |X_ij| images with replacement makes those three counts
    exactly Multinomial(|X_ij|, observed fractions), so the counts are drawn directly: the same distribution as drawing
    indices, at a cost that does not grow with the number of images. Every pair reads the same random stream, so that
    adding a network changes no other interval.

    With no flip at all (or nothing but flips) every resample is alike and the interval has zero width; `floored` and
    `control_warnings` tell the reader.

    Args:
        bits: what the networks did.
        resamples: bootstrap resamples, at least 1.
        seed: of the resampling.
        eps_s: as in `sat_matrix`.

    Returns:
        low, high: (N, N) each, symmetric; NaN where no image is common.

    Raises:
        UserError: `resamples` or `eps_s` is out of range.
    """
    floor = _checked_floor(eps_s)
    if resamples < 1:
        raise UserError(f"{resamples} bootstrap resamples", fix="give at least 1")
    networks = len(bits.names)
    low, high = np.full((2, networks, networks), np.nan)
    for i in range(networks):
        for j in range(i, networks):
            common = bits.correct[i] & bits.correct[j]
            images = int(common.sum())
            if images == 0:
                continue
            fooled = bits.wrong[i, j][common].astype(np.int64) + bits.wrong[j, i][common]
            fractions = np.bincount(fooled, minlength=3) / images
            counts = np.random.default_rng(seed).multinomial(images, fractions, size=resamples)  # (resamples, 3)
            percent = 100.0 * (counts[:, 1] + 2 * counts[:, 2]) / (2.0 * images)
            interval = np.percentile(np.log(np.maximum(percent, floor)), [2.5, 97.5])
            low[i, j], high[i, j] = low[j, i], high[j, i] = interval
    return low, high


@dataclass(frozen=True)
class Controls:
    """The numbers without which a SAT score cannot be read.

    Args:
        accuracy: (N,) clean accuracy in [0, 1].
        n_ok: (N,) images classified correctly.
        whitebox: (N,) the fraction of those that the attack on the network itself turns wrong.
        noise_floor: (N,) the fraction of those that random signs of the attack's size turn wrong.
        corrected: (N, N) transfer beyond noise, max(0, (t - u) / (1 - u)) with u the floor of the column's network.
    """

    accuracy: Floats
    n_ok: Counts
    whitebox: Floats
    noise_floor: Floats
    corrected: Floats


def controls(bits: TransferBits) -> Controls:
    """White-box success, noise floor and noise-corrected transfer of `bits`; NaN where a network is never right."""
    common, flips = _common_and_flips(bits)
    n_ok = np.diagonal(common).copy()
    noise_floor = _ratio((bits.noisy_wrong & bits.correct).sum(axis=1), n_ok)
    beyond = np.maximum(0.0, _ratio(flips, common) - noise_floor)
    # A network that noise alone always fools gives no evidence of transfer: 0, not 0 / 0.
    corrected = beyond / np.where(noise_floor == 1.0, 1.0, 1.0 - noise_floor)
    return Controls(
        accuracy=bits.correct.mean(axis=1),
        n_ok=n_ok,
        whitebox=_ratio(np.diagonal(flips), n_ok),
        noise_floor=noise_floor,
        corrected=corrected,
    )


def control_warnings(matrix: SatMatrix, control: Controls) -> list[str]:
    """What a reader must know before believing `matrix`, one sentence each; empty when all controls pass.

    Warned of: pairs with no or fewer than 50 common images, white-box success below 95 %, a noise floor above 5 % or
    above half of some transfer into the network, floored pairs, and accuracies more than 5 points apart.
    """
    return [
        *_too_few_images(matrix),
        *_weak_attacks(matrix.names, control),
        *_noise(matrix, control),
        *_floored(matrix),
        *_unequal_accuracy(matrix.names, control),
    ]


def center(score: Floats) -> Floats:
    """Double-centred SAT: what is left of a score when each network's own level is taken away.

    A strong source or a fragile target raises its whole row. The least-squares fit of S_ij = m + a_i + a_j over i != j
    (the diagonal, the network with itself, is left out of all means) has m the mean off the diagonal and
    a_i = (N - 1) / (N - 2) (mean of row i - m). Returned is S_ij - m - a_i - a_j: off the diagonal every row sums to 0.
    The diagonal gets the same subtraction.

    Args:
        score: (N, N) symmetric and finite.

    Returns:
        (N, N), symmetric.

    Raises:
        UserError: fewer than `FEWEST_TO_CENTER` networks.
    """
    networks = len(score)
    if networks < FEWEST_TO_CENTER:
        fix = f"give at least {FEWEST_TO_CENTER} networks or the raw scores"
        raise UserError(f"centred scores of {networks} networks", fix=fix)
    off_diagonal = score - np.diag(np.diagonal(score))
    row_mean = off_diagonal.sum(axis=1) / (networks - 1)
    level = (networks - 1) / (networks - 2) * (row_mean - row_mean.mean())
    centred: Floats = score - row_mean.mean() - (level[:, None] + level[None, :])
    return centred


def _common_and_flips(bits: TransferBits) -> tuple[Counts, Counts]:
    """|X_ij|, and how many of X_ij network j gets wrong once attacked against network i; (N, N) each."""
    common = [(bits.correct[i] & bits.correct).sum(axis=1) for i in range(len(bits.names))]
    flips = [(bits.wrong[i] & bits.correct[i] & bits.correct).sum(axis=1) for i in range(len(bits.names))]
    return np.asarray(common, dtype=np.int64), np.asarray(flips, dtype=np.int64)


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Floats:
    result = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=result, where=np.asarray(whole) > 0)
    return result


def _checked_floor(eps_s: float) -> float:
    if not 0.0 < eps_s <= 100.0:
        raise UserError(f"the floor eps_s is {eps_s}", fix="give a percentage in (0, 100]")
    return float(eps_s)


def _pairs(names: Sequence[str], chosen: Bits, shown: int = 3) -> str:
    rows, columns = np.nonzero(np.triu(chosen, k=1))
    listed = [f"{names[i]} / {names[j]}" for i, j in zip(rows[:shown], columns[:shown], strict=True)]
    more = f" and {len(rows) - shown} more" if len(rows) > shown else ""
    return ", ".join(listed) + more


def _too_few_images(matrix: SatMatrix) -> list[str]:
    warnings: list[str] = []
    none, few = matrix.n_common == 0, (matrix.n_common > 0) & (matrix.n_common < FEW_IMAGES)
    warnings += [
        f"{name} classifies no image correctly: it has no score"
        for name, never in zip(matrix.names, np.diagonal(none), strict=True)
        if never
    ]
    if np.triu(none, k=1).any():
        warnings.append(f"no image is classified correctly by both: {_pairs(matrix.names, none)}; no score there")
    if np.triu(few, k=1).any():
        fewest = int(matrix.n_common[np.triu(few, k=1)].min())
        warnings.append(
            f"fewer than {FEW_IMAGES} images are classified correctly by both (fewest {fewest}):"
            f" {_pairs(matrix.names, few)}; the intervals are wide"
        )
    return warnings


def _weak_attacks(names: Sequence[str], control: Controls) -> list[str]:
    return [
        f"the attack fools {name} itself on only {100 * success:.1f} % of its images:"
        " its scores are too low; use more steps or --attack apgd"
        for name, success in zip(names, control.whitebox, strict=True)
        if success < WEAK_ATTACK
    ]


def _noise(matrix: SatMatrix, control: Controls) -> list[str]:
    warnings = []
    for j, floor in enumerate(control.noise_floor):
        if floor > HIGH_NOISE_FLOOR:
            warnings.append(
                f"random noise of the attack's size alone fools {matrix.names[j]} on {100 * floor:.1f} % of its images:"
                " it is fragile, and high scores with it need not mean similarity"
            )
        sources = [i for i in np.flatnonzero(floor > matrix.transfer[:, j] / 2) if i != j]
        if sources:
            listed = ", ".join(matrix.names[i] for i in sources[:3])
            more = f" and {len(sources) - 3} more" if len(sources) > 3 else ""
            warnings.append(
                f"noise alone ({100 * floor:.1f} %) accounts for more than half of the transfer to {matrix.names[j]}"
                f" from {listed}{more}: read the noise-corrected transfer"
            )
    return warnings


def _floored(matrix: SatMatrix) -> list[str]:
    if not np.triu(matrix.floored, k=1).any():
        return []
    images = int(matrix.n_common[np.triu(matrix.floored, k=1)].min())
    # The exact one-sided 95 % bound when 0 of n images flip; about 3 / n ("rule of three").
    bound = 100.0 * (1.0 - 0.05 ** (1.0 / images))
    return [
        f"no transfer above the floor: {_pairs(matrix.names, matrix.floored)}; the score there is the floor itself"
        f" (with {images} images a true transfer up to {bound:.1f} % would often look like this)"
    ]


def _unequal_accuracy(names: Sequence[str], control: Controls) -> list[str]:
    best, worst = int(np.argmax(control.accuracy)), int(np.argmin(control.accuracy))
    if control.accuracy[best] - control.accuracy[worst] <= ACCURACY_GAP + 1e-9:  # a gap of 5 points exactly is fine
        return []
    return [
        f"clean accuracies differ: {names[best]} {100 * control.accuracy[best]:.1f} %,"
        f" {names[worst]} {100 * control.accuracy[worst]:.1f} %; weaker networks transfer differently"
    ]
