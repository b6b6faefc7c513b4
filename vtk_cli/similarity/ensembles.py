"""What the scores are for: choosing the members of an ensemble, and a teacher (arXiv 2210.11407).

An ensemble averages softmaxes. Its error-reduction rate ERR = 1 - err(ensemble) / mean_i err(member i) says what
fraction of its members' errors averaging removes; the paper's finding is that less similar members gain more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import spearmanr

from vtk_cli.errors import UserError
from vtk_cli.similarity.sat import Counts, Floats

SIZES = (2, 3, 4, 5)
MOST_SUBSETS = 1000

Probabilities = NDArray[Any]  # (N, n, C), any float dtype


def probabilities(logits: NDArray[Any]) -> Probabilities:
    """Softmax over the last axis, in the logits' own float dtype: (N, n, C) to (N, n, C)."""
    return np.asarray(softmax(logits, axis=-1))


def error_reduction(chances: Probabilities, labels: Counts, members: Sequence[int]) -> float:
    """ERR of the ensemble of `members`: 1 = no error is left, 0 = nothing gained, below 0 = worse than the mean member.

    Args:
        chances: (N, n, C) softmax probabilities.
        labels: (n,) in 0..C-1.
        members: positions along the first axis of `chances`.

    Returns:
        ERR; NaN where no member makes an error, for then there is none to reduce.
    """
    single = np.mean([_error(chances[m], labels) for m in members])
    return _reduction(_ensemble_error(chances, labels, members), float(single))


@dataclass(frozen=True)
class EnsemblesOfOneSize:
    """All (or 1,000 random) ensembles of one size.

    Args:
        size: members each.
        members: (M, size) positions.
        exhaustive: every ensemble of this size is among them.
        mean_score: (M,) mean SAT over the pairs of members.
        reduction: (M,) ERR.
        spearman: rank correlation of `mean_score` and `reduction`, negative when diversity pays; NaN below 3 ensembles
            or when one of the two is constant.
    """

    size: int
    members: Counts
    exhaustive: bool
    mean_score: Floats
    reduction: Floats
    spearman: float


def study_ensembles(
    score: Floats, chances: Probabilities, labels: Counts, sizes: Sequence[int] = SIZES, seed: int = 0
) -> list[EnsemblesOfOneSize]:
    """Mean pairwise SAT against error reduction, over all subsets of each size (1,000 random ones where more exist).

    Subsets whose members all make no error are left out: there is no error to reduce.

    Args:
        score: (N, N) SAT, symmetric and finite.
        chances: (N, n, C) softmax probabilities on the same images.
        labels: (n,) in 0..C-1.
        sizes: those above N are skipped.
        seed: of the sampling.
    """
    errors = np.array([_error(network, labels) for network in chances])
    studies = []
    for size in sizes:
        if not 2 <= size <= len(score):
            continue
        subsets, exhaustive = _subsets(len(score), size, seed)
        subsets = subsets[errors[subsets].max(axis=1) > 0.0]
        within = [score[np.ix_(s, s)][np.triu_indices(size, k=1)].mean() for s in subsets]
        gained = [_reduction(_ensemble_error(chances, labels, s), float(errors[s].mean())) for s in subsets]
        mean_score, reduction = np.asarray(within, dtype=np.float64), np.asarray(gained, dtype=np.float64)
        studies.append(
            EnsemblesOfOneSize(size, subsets, exhaustive, mean_score, reduction, _spearman(mean_score, reduction))
        )
    return studies


def pick_ensemble(score: Floats, accuracy: Floats, size: int) -> list[int]:
    """Greedy choice of `size` networks: the most accurate first, then whichever is least similar to those chosen.

    "Least similar" is the lowest mean SAT to the networks chosen so far; of equals the more accurate, then the earlier.

    Args:
        score: (N, N) SAT, symmetric and finite.
        accuracy: (N,) clean accuracy.
        size: 2 <= size <= N.

    Returns:
        The positions, in the order they were chosen.

    Raises:
        UserError: `size` is not possible.
    """
    if not 2 <= size <= len(score):
        raise UserError(f"an ensemble of {size} out of {len(score)} networks", fix=f"give 2 to {len(score)}")
    chosen = [int(np.argmax(accuracy))]
    while len(chosen) < size:
        left = [i for i in range(len(score)) if i not in chosen]
        chosen.append(min(left, key=lambda i: (float(score[i, chosen].mean()), -float(accuracy[i]), i)))
    return chosen


@dataclass(frozen=True)
class TeacherRanking:
    """Candidate teachers for one student, best guess first in each list.

    Args:
        student: its name.
        same_family: (name, SAT) of the student's base architecture, most similar first.
        other_family: (name, SAT) of the others, least similar first.
        guidance: what the ranking rests on, and what it does not promise.
    """

    student: str
    same_family: list[tuple[str, float]]
    other_family: list[tuple[str, float]]
    guidance: str


TEACHER_GUIDANCE = (
    "Guidance, not a promise: with a teacher of the student's own base architecture a more similar one has helped"
    " distillation more, with one of another base architecture a less similar one (arXiv 2210.11407, under its"
    " training recipe). The teacher's accuracy matters as well; try the first of each list."
)


def suggest_teacher(names: Sequence[str], score: Floats, families: Sequence[str], student: str) -> TeacherRanking:
    """Rank the other networks as teachers of `student` by SAT, apart for its own base architecture and for others.

    Args:
        names: the N names.
        score: (N, N) SAT, symmetric and finite.
        families: the N base architectures.
        student: one of `names`.

    Raises:
        UserError: `student` is not one of `names`.
    """
    if student not in names:
        raise UserError(f"the student '{student}' is not among the networks", fix=f"give one of {', '.join(names)}")
    me = list(names).index(student)
    others = [i for i in range(len(names)) if i != me]
    same = sorted((i for i in others if families[i] == families[me]), key=lambda i: -score[me, i])
    different = sorted((i for i in others if families[i] != families[me]), key=lambda i: score[me, i])
    return TeacherRanking(
        student=student,
        same_family=[(names[i], float(score[me, i])) for i in same],
        other_family=[(names[i], float(score[me, i])) for i in different],
        guidance=TEACHER_GUIDANCE,
    )


def _error(chances: Probabilities, labels: Counts) -> float:
    return float(np.mean(chances.argmax(axis=-1) != labels))


def _ensemble_error(chances: Probabilities, labels: Counts, members: Sequence[int] | Counts) -> float:
    total = np.zeros(chances.shape[1:], dtype=np.float64)
    for member in members:
        total += chances[member]
    return _error(total, labels)


def _reduction(ensemble: float, single: float) -> float:
    return 1.0 - ensemble / single if single > 0.0 else float("nan")


def _subsets(networks: int, size: int, seed: int) -> tuple[Counts, bool]:
    """Every subset of `size` networks where there are at most 1,000, else 1,000 distinct ones drawn uniformly."""
    if comb(networks, size) <= MOST_SUBSETS:
        return np.array(list(combinations(range(networks), size)), dtype=np.int64), True
    random = np.random.default_rng(seed)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < MOST_SUBSETS:
        drawn[tuple(sorted(random.choice(networks, size, replace=False).tolist()))] = None
    return np.array(list(drawn), dtype=np.int64), False


def _spearman(one: Floats, other: Floats) -> float:
    if len(one) < 3 or np.ptp(one) == 0.0 or np.ptp(other) == 0.0:
        return float("nan")
    return float(spearmanr(one, other).statistic)
