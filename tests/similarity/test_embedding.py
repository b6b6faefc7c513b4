from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from vtk_cli.errors import UserError
from vtk_cli.similarity.embedding import embed, mds
from vtk_cli.similarity.sat import MAX_SAT, Floats

pytestmark = pytest.mark.filterwarnings("error")


def blocks(sizes: tuple[int, ...]) -> tuple[Floats, Floats]:
    block = np.repeat(np.arange(len(sizes)), sizes)
    score = np.where(block[:, None] == block[None, :], 4.0, 1.0).astype(np.float64)
    np.fill_diagonal(score, MAX_SAT)
    return score, block


def test_mds_reproduces_distances_that_fit_a_plane() -> None:
    points = np.random.default_rng(0).normal(size=(7, 2))
    distance = cdist(points, points)
    np.testing.assert_allclose(cdist(*2 * [mds(distance)]), distance, atol=1e-3)


def test_mds_is_centred_and_widest_from_left_to_right() -> None:
    points = np.random.default_rng(0).normal(size=(7, 2)) * [1.0, 5.0]
    placed = mds(cdist(points, points))
    np.testing.assert_allclose(placed.mean(axis=0), 0.0, atol=1e-12)
    assert placed[:, 0].std() > placed[:, 1].std()
    assert abs(placed[:, 0] @ placed[:, 1]) < 1e-9 * (placed[:, 0] @ placed[:, 0])  # principal axes


@pytest.mark.parametrize(("sizes", "method"), [((3, 3, 3), "MDS"), ((4, 3, 3), "t-SNE"), ((20, 25, 24), "t-SNE")])
def test_networks_of_one_block_lie_closer_than_those_of_two(sizes: tuple[int, ...], method: str) -> None:
    score, block = blocks(sizes)
    placed = embed(score)
    assert placed.method == method
    assert placed.points.shape == (sum(sizes), 2)
    distance = cdist(placed.points, placed.points)
    np.fill_diagonal(distance, np.inf)
    assert (block[distance.argmin(axis=1)] == block).all()


def test_the_same_seed_gives_the_same_map() -> None:
    score, _ = blocks((6, 6))
    assert np.array_equal(embed(score, 1).points, embed(score, 1).points)
    assert not np.array_equal(embed(score, 1).points, embed(score, 2).points)


def test_three_networks_have_a_map_and_two_have_none() -> None:
    assert embed(blocks((2, 1))[0]).points.shape == (3, 2)
    with pytest.raises(UserError, match="a map of 2 networks; give at least 3"):
        embed(blocks((1, 1))[0])
