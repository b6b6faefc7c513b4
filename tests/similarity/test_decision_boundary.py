from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.similarity.decision_boundary import decision_boundary_similarity, plane


def linear(seed: int, classes: int = 4, pixels: int = 12):  # type: ignore[no-untyped-def]
    weight = torch.randn(classes, pixels, generator=torch.Generator().manual_seed(seed))
    return lambda x: x.flatten(1) @ weight.T


IMAGES = torch.rand(10, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def points_of(corners: Tensor, grid: int) -> Tensor:
    return torch.cat(list(plane(corners, grid, batch=7)))


def test_a_network_draws_the_same_boundaries_as_itself() -> None:
    matrix = decision_boundary_similarity([linear(0), linear(1), linear(0)], IMAGES, triplets=5, grid=8)
    assert np.diagonal(matrix).tolist() == [1.0] * 3
    assert matrix[0, 2] == 1.0
    assert 0.0 < matrix[0, 1] < 1.0
    assert np.array_equal(matrix, matrix.T)


def test_renamed_classes_share_no_region() -> None:
    first = linear(0)
    assert decision_boundary_similarity([first, lambda x: -first(x)], IMAGES, triplets=5, grid=8)[0, 1] == 0.0


def test_a_scaled_network_draws_the_same_boundaries() -> None:
    first = linear(0)
    assert decision_boundary_similarity([first, lambda x: 4.0 * first(x)], IMAGES, triplets=5, grid=8)[0, 1] == 1.0


def test_the_similarity_is_the_area_two_half_planes_share() -> None:
    """On the plane of (0,0), (1,0), (0,1) thresholds at a <= s and a <= t differ on the strip between s and t."""
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).reshape(3, 2, 1, 1)

    def threshold(at: float):  # type: ignore[no-untyped-def]
        return lambda x: torch.stack([x[:, 0, 0, 0] - at, torch.zeros(len(x))], dim=1)

    # Three images give one plane however they are drawn; its area is 1.2 x 1.2 when the right angle is drawn first.
    seed = next(s for s in range(100) if np.random.default_rng(s).choice(3, 3, replace=False).tolist() == [0, 1, 2])
    found = decision_boundary_similarity(
        [threshold(0.2), threshold(0.8)], corners, triplets=1, grid=121, seed=seed
    )  # 121 points 0.01 apart from -0.1 to 1.1, of which those with 0.2 < a <= 0.8 disagree
    assert found[0, 1] == pytest.approx(1 - 0.6 / 1.2, abs=0.01)


def test_the_plane_spans_a_tenth_beyond_its_images() -> None:
    corners = torch.tensor([[0.0, 0.0], [2.0, 0.0], [1.0, 4.0]], dtype=torch.float64).reshape(3, 2, 1, 1)
    points = points_of(corners, 13).flatten(1)
    assert points.shape == (169, 2)
    np.testing.assert_allclose(points.min(dim=0).values, [-0.2, -0.4], atol=1e-12)
    np.testing.assert_allclose(points.max(dim=0).values, [2.2, 4.4], atol=1e-12)
    # Grid steps are 0.2 and 0.4 here, so all three corners and the middle of the third side are grid points.
    for corner in ([0.0, 0.0], [2.0, 0.0], [1.0, 4.0], [1.0, 2.0]):
        assert torch.linalg.vector_norm(points - torch.tensor(corner), dim=1).min() < 1e-12


@pytest.mark.parametrize(("third", "left", "right"), [(-1.0, -1.2, 1.2), (3.0, -0.3, 3.3)])
def test_the_plane_reaches_an_image_that_projects_outside_the_first_side(
    third: float, left: float, right: float
) -> None:
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [third, 1.0]], dtype=torch.float64).reshape(3, 2, 1, 1)
    points = points_of(corners, 25).flatten(1)
    np.testing.assert_allclose(points.min(dim=0).values, [left, -0.1], atol=1e-12)
    np.testing.assert_allclose(points.max(dim=0).values, [right, 1.1], atol=1e-12)


def test_every_point_lies_on_the_plane_of_its_images() -> None:
    corners = IMAGES[:3].double()
    points = points_of(corners, 6).flatten(1)
    spanned = torch.cat([corners.flatten(1), points])
    assert torch.linalg.matrix_rank(spanned - spanned[0], atol=1e-9) == 2


def test_coinciding_images_make_a_line_and_not_a_nan() -> None:
    line = torch.stack([IMAGES[0], IMAGES[0], IMAGES[1]])
    assert torch.isfinite(points_of(line, 5)).all()
    point = torch.stack([IMAGES[0]] * 3)
    np.testing.assert_allclose(points_of(point, 3), IMAGES[:1].expand(9, 3, 2, 2), atol=1e-7)


def test_the_batch_size_changes_nothing_and_the_seed_chooses_the_planes() -> None:
    networks = [linear(0), linear(1)]
    one = decision_boundary_similarity(networks, IMAGES, triplets=6, grid=9, batch=7, seed=1)
    assert np.array_equal(one, decision_boundary_similarity(networks, IMAGES, triplets=6, grid=9, batch=81, seed=1))
    assert not np.array_equal(one, decision_boundary_similarity(networks, IMAGES, triplets=6, grid=9, seed=2))


def test_two_images_span_no_plane() -> None:
    with pytest.raises(UserError, match="through 2 images; give at least 3"):
        decision_boundary_similarity([linear(0)], IMAGES[:2])


@pytest.mark.parametrize("wrong", [{"triplets": 0}, {"grid": 1}, {"batch": 0}])
def test_impossible_sizes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match="give at least 1 triplet"):
        decision_boundary_similarity([linear(0)], IMAGES, **wrong)
