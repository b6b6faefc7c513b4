from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.reports.scatter import boxes_area, boxes_overlap, draw_scatter, place_names

pytestmark = pytest.mark.filterwarnings("error")

FRAME = np.array([0.0, 0.0, 600.0, 500.0])


def test_the_overlap_of_two_boxes_is_the_area_they_share() -> None:
    boxes = np.array([[0.0, 0.0, 4.0, 2.0], [10.0, 10.0, 11.0, 11.0]])
    others = np.array([[3.0, 1.0, 9.0, 9.0], [4.0, 0.0, 5.0, 1.0], [-1.0, -1.0, 20.0, 20.0]])
    assert boxes_overlap(boxes, others).tolist() == [[1.0, 0.0, 8.0], [0.0, 0.0, 1.0]]
    assert boxes_area(boxes).tolist() == [8.0, 1.0]


def test_names_of_scattered_points_cover_neither_each_other_nor_a_marker() -> None:
    random = np.random.default_rng(0)
    columns, rows = np.meshgrid(np.arange(80.0, 560.0, 80.0), np.arange(40.0, 480.0, 40.0))
    centres = np.column_stack([columns.ravel(), rows.ravel()]) + random.uniform(-12, 12, (66, 2))
    boxes, far = place_names(centres, np.tile([60.0, 9.0], (66, 1)), FRAME)
    shared = boxes_overlap(boxes, boxes)
    np.fill_diagonal(shared, 0.0)
    assert shared.sum() == 0.0
    markers = np.hstack([centres - 3.5, centres + 3.5])
    assert boxes_overlap(boxes, markers).sum() == 0.0
    assert not far.any()
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], np.tile([60.0, 9.0], (66, 1)))


def test_names_stay_inside_the_frame() -> None:
    corners = np.array([[4.0, 4.0], [596.0, 4.0], [4.0, 496.0], [596.0, 496.0]])
    boxes, _ = place_names(corners, np.tile([80.0, 9.0], (4, 1)), FRAME)
    np.testing.assert_allclose(boxes_overlap(boxes, FRAME[None])[:, 0], 80.0 * 9.0)


def test_names_in_a_clump_go_further_out_and_get_a_line() -> None:
    centres = 300.0 + np.random.default_rng(0).uniform(-15, 15, (12, 2))
    boxes, far = place_names(centres, np.tile([50.0, 9.0], (12, 1)), FRAME)
    assert far.any()
    shared = boxes_overlap(boxes, boxes)
    np.fill_diagonal(shared, 0.0)
    assert shared.max() < 0.4 * 50.0 * 9.0  # no name hides another


def test_a_lonely_name_stands_beside_its_point() -> None:
    boxes, far = place_names(np.array([[300.0, 250.0]]), np.array([[50.0, 9.0]]), FRAME)
    assert boxes[0].tolist() == [306.0, 245.5, 356.0, 254.5]
    assert not far[0]


def test_all_names_and_groups_are_written(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(12, 2))
    names = [f"net{i}" for i in range(12)]
    picture = draw_scatter(
        tmp_path / "s", points, names, title="A title", subtitle="t-SNE", groups=["cluster 1", "cluster 2"] * 6
    )
    written = re.findall(r"<!-- (.*?) -->", picture.svg.read_text(encoding="utf-8"))
    assert sorted(written) == sorted([*names, "cluster 1", "cluster 2", "A title", "t-SNE"])


@pytest.mark.parametrize(
    "points", [np.zeros((3, 2)), np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 3.0]]), np.array([[1.0, 2.0]])]
)
def test_points_in_one_place_or_on_a_line_can_be_drawn(tmp_path: Path, points: np.ndarray) -> None:
    draw_scatter(tmp_path / "s", points, ["a", "b", "c"][: len(points)], title="t")
