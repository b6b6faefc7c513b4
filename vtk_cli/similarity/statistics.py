"""Numbers about a similarity matrix: its spread, how well it separates families, how it ranks against another one.

All of them look at unordered pairs of different networks; the diagonal is never used. Any symmetric matrix in which
larger means more similar will do, not SAT alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from vtk_cli.errors import UserError
from vtk_cli.similarity.sat import Floats


@dataclass(frozen=True)
class Pair:
    """Two networks and their similarity."""

    first: str
    second: str
    value: float


@dataclass(frozen=True)
class MatrixSummary:
    """The values off the diagonal: mean, standard deviation over pairs (population), median, and the extreme pairs."""

    mean: float
    sd: float
    median: float
    least: Pair
    most: Pair


def off_diagonal(matrix: Floats) -> Floats:
    """The values of the N (N - 1) / 2 unordered pairs, row by row: (1, 2), (1, 3), ..."""
    return matrix[np.triu_indices(len(matrix), k=1)]


def summarise(names: Sequence[str], matrix: Floats) -> MatrixSummary:
    """Describe a symmetric (N, N) matrix, N >= 2, off its diagonal."""
    rows, columns = np.triu_indices(len(matrix), k=1)
    values = matrix[rows, columns]

    def pair(at: np.intp) -> Pair:
        return Pair(names[rows[at]], names[columns[at]], float(values[at]))

    return MatrixSummary(
        mean=float(values.mean()),
        sd=float(values.std()),
        median=float(np.median(values)),
        least=pair(np.argmin(values)),
        most=pair(np.argmax(values)),
    )


@dataclass(frozen=True)
class Separation:
    """How well a similarity tells networks of one family from networks of two.

    Args:
        within, between: mean over pairs of the same family and of different families.
        lowest_within, highest_between: their extremes; families separate entirely when the first exceeds the second.
        auc: ROC-AUC of "same family" with the similarity as the score; 0.5 = chance.
        nearest: the fraction of networks whose most similar other network is of the same family; of several equally
            similar ones each counts its share. Networks alone in their family are not counted.
    """

    within: float
    between: float
    lowest_within: float
    highest_between: float
    auc: float
    nearest: float


def separate_families(matrix: Floats, families: Sequence[str]) -> Separation:
    """Compare pairs of the same family with pairs of different families.

    Args:
        matrix: (N, N) symmetric and finite, larger = more similar.
        families: N names.

    Raises:
        UserError: all pairs, or none, are of the same family.
    """
    kin = _same_family(families)
    same, values = kin[np.triu_indices(len(kin), k=1)], off_diagonal(matrix)
    if same.all() or not same.any():
        raise UserError(
            f"{len(matrix)} networks of {len(set(families))} families: no two kinds of pairs to compare",
            fix="give at least two networks of one family and one of another",
        )
    within, between = values[same], values[~same]
    return Separation(
        within=float(within.mean()),
        between=float(between.mean()),
        lowest_within=float(within.min()),
        highest_between=float(between.max()),
        auc=float(roc_auc_score(same, values)),
        nearest=_nearest_of_same_family(matrix, kin),
    )


def family_means(matrix: Floats, families: Sequence[str]) -> tuple[list[str], Floats]:
    """Mean similarity between every two families, pairs of a network with itself left out.

    Returns:
        The F families in order of appearance, and (F, F) means, symmetric; NaN for a family of one with itself.
    """
    known = list(dict.fromkeys(families))
    member = np.array([[family == f for family in families] for f in known], dtype=np.float64)  # (F, N)
    others = 1.0 - np.eye(len(families))
    pairs = member @ others @ member.T
    totals = member @ (matrix * others) @ member.T
    means = np.full(pairs.shape, np.nan)
    np.divide(totals, pairs, out=means, where=pairs > 0)
    return known, means


def rank_correlation(one: Floats, other: Floats) -> float:
    """Spearman's rho of two (N, N) matrices over the pairs both define; NaN below 3 pairs or where one is constant."""
    a, b = off_diagonal(one), off_diagonal(other)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 3 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def _same_family(families: Sequence[str]) -> NDArray[np.bool_]:
    names = np.asarray(families, dtype=object)
    return np.asarray(names[:, None] == names[None, :], dtype=np.bool_)


def _nearest_of_same_family(matrix: Floats, kin: NDArray[np.bool_]) -> float:
    others = np.where(np.eye(len(matrix), dtype=np.bool_), -np.inf, matrix)
    closest = others == others.max(axis=1, keepdims=True)
    share = (closest & kin).sum(axis=1) / closest.sum(axis=1)
    has_kin = kin.sum(axis=1) > 1
    return float(share[has_kin].mean())
