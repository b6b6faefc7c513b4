from __future__ import annotations

import math

import numpy as np
import pytest

from vtk_cli.errors import UserError
from vtk_cli.similarity.statistics import family_means, off_diagonal, rank_correlation, separate_families, summarise

NAMES = ("a", "b", "c", "d", "e", "f")
FAMILIES = ("cnn", "vit", "cnn", "vit", "cnn", "mlp")
# Six networks, all fifteen scores different, so that every statistic below is a count a reader can redo.
SCORE = np.array(
    [
        [4.6, 1.1, 3.0, 1.2, 2.9, 1.3],
        [1.1, 4.6, 1.4, 3.8, 1.5, 2.6],
        [3.0, 1.4, 4.6, 1.6, 2.2, 1.7],
        [1.2, 3.8, 1.6, 4.6, 2.3, 1.8],
        [2.9, 1.5, 2.2, 2.3, 4.6, 1.9],
        [1.3, 2.6, 1.7, 1.8, 1.9, 4.6],
    ]
)


def test_the_summary_leaves_the_diagonal_out() -> None:
    summary = summarise(NAMES, SCORE)
    values = [1.1, 3.0, 1.2, 2.9, 1.3, 1.4, 3.8, 1.5, 2.6, 1.6, 2.2, 1.7, 2.3, 1.8, 1.9]
    assert off_diagonal(SCORE).tolist() == values
    assert summary.mean == pytest.approx(sum(values) / 15)
    assert summary.sd == pytest.approx(math.sqrt(sum((v - sum(values) / 15) ** 2 for v in values) / 15))
    assert summary.median == 1.8
    assert (summary.least.first, summary.least.second, summary.least.value) == ("a", "b", 1.1)
    assert (summary.most.first, summary.most.second, summary.most.value) == ("b", "d", 3.8)


def test_family_separation_is_what_counting_gives() -> None:
    found = separate_families(SCORE, FAMILIES)
    same = [3.0, 2.9, 2.2, 3.8]  # a-c, a-e, c-e, b-d
    other = [1.1, 1.2, 1.3, 1.4, 1.5, 2.6, 1.6, 1.7, 2.3, 1.8, 1.9]
    assert found.within == pytest.approx(sum(same) / 4)
    assert found.between == pytest.approx(sum(other) / 11)
    assert (found.lowest_within, found.highest_between) == (2.2, 2.6)
    assert found.auc == pytest.approx(sum(s > o for s in same for o in other) / 44)


def test_the_nearest_neighbour_counts_networks_with_kin_only() -> None:
    # a -> c, b -> d, c -> a, d -> b are kin, e -> a is kin; f is alone in its family.
    assert separate_families(SCORE, FAMILIES).nearest == 1.0
    worse = SCORE.copy()
    worse[4, 3] = worse[3, 4] = 3.5  # e is now nearest to d
    assert separate_families(worse, FAMILIES).nearest == pytest.approx(4 / 5)


def test_equally_near_neighbours_share_the_credit() -> None:
    score = np.full((4, 4), 0.9)
    assert separate_families(score, ["x", "x", "y", "y"]).nearest == pytest.approx(1 / 3)
    assert separate_families(score, ["x", "x", "y", "y"]).auc == 0.5


@pytest.mark.parametrize("families", [["x"] * 6, list("uvwxyz")])
def test_one_kind_of_pair_cannot_be_compared(families: list[str]) -> None:
    with pytest.raises(UserError, match="no two kinds of pairs"):
        separate_families(SCORE, families)


def test_family_means_leave_a_network_with_itself_out() -> None:
    families, means = family_means(SCORE, FAMILIES)
    assert families == ["cnn", "vit", "mlp"]
    assert means[0, 0] == pytest.approx((3.0 + 2.9 + 2.2) / 3)
    assert means[0, 1] == means[1, 0] == pytest.approx((1.1 + 1.2 + 1.4 + 1.6 + 1.5 + 2.3) / 6)
    assert means[1, 2] == pytest.approx((2.6 + 1.8) / 2)
    assert math.isnan(means[2, 2])


def test_rank_correlation_sees_order_only() -> None:
    assert rank_correlation(SCORE, np.exp(SCORE)) == pytest.approx(1.0)
    assert rank_correlation(SCORE, -SCORE) == pytest.approx(-1.0)
    assert math.isnan(rank_correlation(SCORE, np.ones((6, 6))))


def test_rank_correlation_skips_pairs_that_one_matrix_does_not_define() -> None:
    other = np.exp(SCORE)
    other[0, 1] = other[1, 0] = np.nan
    assert rank_correlation(SCORE, other) == pytest.approx(1.0)
    assert math.isnan(rank_correlation(SCORE[:2, :2], SCORE[:2, :2]))
