from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from vtk_cli.errors import UserError
from vtk_cli.similarity.clusters import (
    dendrogram,
    sat_affinity,
    sat_distance,
    spectral_clusters,
    transfer_affinity,
)
from vtk_cli.similarity.sat import MAX_SAT, Floats

BLOCKS = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2])


def block_matrix(within: float = 4.0, between: float = 1.0) -> Floats:
    score = np.where(BLOCKS[:, None] == BLOCKS[None, :], within, between)
    np.fill_diagonal(score, MAX_SAT)
    return score


@pytest.mark.parametrize("affinity", ["sat", "exp"])
@pytest.mark.parametrize("seed", range(10))
def test_three_blocks_are_found_with_every_seed(affinity: str, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(len(BLOCKS))
    found = spectral_clusters(block_matrix()[np.ix_(shuffled, shuffled)], 3, affinity, seed)
    assert adjusted_rand_score(BLOCKS[shuffled], found.labels) == 1.0
    assert found.stability == 1.0


def test_clusters_are_numbered_from_the_largest() -> None:
    found = spectral_clusters(block_matrix()[::-1, ::-1], 3)
    assert found.labels.tolist() == BLOCKS[::-1].tolist()
    names = tuple("lkjihgfedcba")
    assert found.members(names) == [["e", "d", "c", "b", "a"], ["i", "h", "g", "f"], ["l", "k", "j"]]


@pytest.mark.filterwarnings("error")
def test_blocks_without_a_single_edge_between_them_are_found_without_a_warning() -> None:
    found = spectral_clusters(block_matrix(between=-2.3), 3)
    assert adjusted_rand_score(BLOCKS, found.labels) == 1.0


def test_a_matrix_without_structure_is_unstable() -> None:
    random = np.random.default_rng(0)
    noise = random.uniform(2.0, 2.2, (30, 30))
    assert spectral_clusters((noise + noise.T) / 2, 10).stability < 0.6


@pytest.mark.parametrize("count", [0, 1, 12, 13])
def test_an_impossible_number_of_clusters_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"{count} clusters of 12 networks; give 2 to 11"):
        spectral_clusters(block_matrix(), count)


def test_two_networks_cannot_be_clustered() -> None:
    with pytest.raises(UserError, match="at least 3 networks"):
        spectral_clusters(np.full((2, 2), 3.0), 2)


def test_three_networks_can_be_clustered() -> None:
    score = np.array([[4.6, 4.0, 1.0], [4.0, 4.6, 1.0], [1.0, 1.0, 4.6]])
    assert spectral_clusters(score, 2).labels.tolist() == [0, 0, 1]


def test_an_unknown_affinity_is_refused() -> None:
    with pytest.raises(UserError, match="unknown affinity 'expo'; did you mean exp"):
        spectral_clusters(block_matrix(), 3, "expo")


def test_affinities_are_never_negative() -> None:
    score = np.array([[MAX_SAT, -2.3], [-2.3, MAX_SAT]])
    assert sat_affinity(score)[0, 1] == 0.0
    assert transfer_affinity(score)[0, 1] == pytest.approx(0.100259, rel=1e-4)
    assert transfer_affinity(score)[0, 0] == pytest.approx(100.0)


def test_distance_is_zero_to_itself_and_where_every_image_transfers() -> None:
    distance = sat_distance(np.array([[4.5, MAX_SAT, 1.0], [MAX_SAT, 4.6, 2.0], [1.0, 2.0, 4.0]]))
    assert np.diagonal(distance).tolist() == [0.0, 0.0, 0.0]
    assert distance[0, 1] == 0.0
    assert distance[0, 2] == MAX_SAT - 1.0


def test_distance_leaves_its_argument_alone() -> None:
    score = block_matrix()
    before = score.copy()
    sat_distance(score)
    assert np.array_equal(score, before)


def test_the_tree_keeps_blocks_together_and_merges_at_their_distances() -> None:
    shuffled = np.random.default_rng(3).permutation(len(BLOCKS))
    tree = dendrogram(block_matrix()[np.ix_(shuffled, shuffled)])
    in_order = BLOCKS[shuffled][tree.order]
    assert np.count_nonzero(np.diff(in_order)) == 2
    assert sorted(tree.order.tolist()) == list(range(12))
    np.testing.assert_allclose(tree.linkage[:, 2], [MAX_SAT - 4.0] * 9 + [MAX_SAT - 1.0] * 2)


def test_two_networks_make_a_tree() -> None:
    tree = dendrogram(np.array([[MAX_SAT, 2.0], [2.0, MAX_SAT]]))
    assert tree.linkage.shape == (1, 4)
    assert tree.linkage[0, 2] == pytest.approx(MAX_SAT - 2.0)
