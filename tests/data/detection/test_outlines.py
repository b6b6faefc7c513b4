"""A mask's border as a polygon covers what the mask covers."""

from __future__ import annotations

import numpy as np

from vtk_cli.data.detection.outlines import Polygons, largest_ring, outline_area, outline_mask, outline_of_mask
from vtk_cli.data.detection.results import Detections, yolo_polygons

Y, X = np.mgrid[:40, :60]
DISC = (X - 30) ** 2 + (Y - 18) ** 2 < 144


def test_the_ring_of_a_rectangle_is_its_border_but_for_the_corners() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[5:15, 8:20] = True
    ring = largest_ring(mask)
    assert (ring.min(0).tolist(), ring.max(0).tolist()) == ([8, 5], [20, 15])
    assert outline_area(Polygons((ring,))) == 120 - 4 / 8  # each corner loses a triangle of half a pixel a side


def test_a_ring_that_is_filled_is_the_mask_again() -> None:
    assert np.array_equal(outline_mask(Polygons((largest_ring(DISC),)), 40, 60), DISC)


def test_a_mask_up_to_the_edge_stays_inside_the_image() -> None:
    ring = largest_ring(np.ones((6, 9), np.bool_))
    assert (ring.min(0).tolist(), ring.max(0).tolist()) == ([0, 0], [9, 6])


def test_of_several_parts_the_largest_is_taken_and_holes_are_filled() -> None:
    mask = DISC.copy()
    mask[15:20, 27:33] = False
    mask[2:5, 2:5] = True
    assert np.array_equal(outline_mask(Polygons((largest_ring(mask),)), 40, 60), DISC)


def test_the_lines_of_an_image_are_in_shares_of_it_and_an_empty_mask_has_none() -> None:
    masks = (outline_of_mask(DISC), outline_of_mask(np.zeros_like(DISC)))
    found = Detections(1, np.zeros((2, 4)), np.ones(2), np.array([3, 4]), masks)
    (line,) = yolo_polygons(found, 60, 40).splitlines()
    label, *values = line.split()
    points = np.array(values, np.float64).reshape(-1, 2) * (60, 40)
    assert label == "3"
    assert np.array_equal(outline_mask(Polygons((points,)), 40, 60), DISC)
