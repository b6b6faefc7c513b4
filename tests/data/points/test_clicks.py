from __future__ import annotations

import numpy as np
import pytest

from vtk_cli.data.points.clicks import click_of_box, click_of_mask


def test_the_centroid_is_the_mean_pixel_index_x_first() -> None:
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:8] = True
    assert click_of_mask(mask, "centroid").tolist() == [5.5, 3.0]


def test_the_centroid_of_a_ring_lies_in_its_hole_and_the_inside_click_on_it() -> None:
    rows, columns = np.mgrid[:21, :21]
    ring = np.abs(np.hypot(rows - 10, columns - 10) - 7) < 1
    x, y = click_of_mask(ring, "centroid")
    assert (x, y) == (10.0, 10.0)
    assert not ring[10, 10]
    x, y = click_of_mask(ring, "inside").astype(int)
    assert ring[y, x]
    assert np.hypot(x - 10, y - 10) == np.hypot(*(np.argwhere(ring) - 10).T).min()


def test_a_random_click_is_on_the_mask_and_depends_on_seed_and_annotation_alone() -> None:
    mask = np.random.default_rng(0).random((30, 30)) < 0.1
    clicks = [tuple(click_of_mask(mask, "random", seed=1, identity=number)) for number in range(40)]
    assert all(mask[int(y), int(x)] for x, y in clicks)
    assert len(set(clicks)) > 20
    assert clicks[7] == tuple(click_of_mask(mask, "random", seed=1, identity=7))
    assert clicks != [tuple(click_of_mask(mask, "random", seed=2, identity=number)) for number in range(40)]


def test_random_clicks_are_uniform_over_the_mask() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, :2] = mask[3, 2:] = True
    drawn = [tuple(click_of_mask(mask, "random", identity=number)) for number in range(4000)]
    counts = [drawn.count((column, row)) for row, column in np.argwhere(mask)]
    assert sum(counts) == 4000
    # 4 standard deviations of a binomial with n = 4000, p = 1/4
    assert max(abs(count - 1000) for count in counts) < 4 * (4000 * 0.25 * 0.75) ** 0.5


def test_an_empty_mask_has_no_click() -> None:
    with pytest.raises(ValueError, match="empty"):
        click_of_mask(np.zeros((3, 3), bool), "inside")


def test_the_click_of_a_box_is_the_centroid_of_its_pixels() -> None:
    mask = np.zeros((10, 20), bool)
    mask[2:5, 4:8] = True
    assert click_of_box(np.array([4.0, 2.0, 8.0, 5.0])).tolist() == click_of_mask(mask, "centroid").tolist()
