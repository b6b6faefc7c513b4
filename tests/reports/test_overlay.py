from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from vtk_cli.reports.overlay import LEAST_SIDE, Mark, colour_of, draw_overlay

BLACK = Image.new("RGB", (600, 500))


def rgb(group: int) -> list[int]:
    return [round(255 * channel) for channel in to_rgb(colour_of(group))]


def painted(drawn: Image.Image) -> tuple[int, int, int, int]:
    """Where anything is: left, top, right and bottom edges."""
    inked = np.asarray(drawn).any(axis=2)
    rows, columns = np.nonzero(inked.any(axis=1))[0], np.nonzero(inked.any(axis=0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def test_a_box_is_drawn_on_its_outermost_pixels():
    drawn = draw_overlay(BLACK, [Mark("", 1, (30, 40, 130, 90))])
    assert drawn.size == BLACK.size
    assert painted(drawn) == (30, 40, 130, 90)
    pixels = np.asarray(drawn)
    assert pixels[40, 30].tolist() == rgb(1)
    assert not pixels[50:80, 50:110].any()


def test_small_images_are_enlarged_by_a_whole_factor_and_their_boxes_with_them():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 100, 3), dtype=np.uint8))
    plain = draw_overlay(noise, [])
    factor = LEAST_SIDE // 100
    assert plain.size == (100 * factor, 64 * factor)
    np.testing.assert_array_equal(np.asarray(plain)[::factor, ::factor], np.asarray(noise))
    drawn = draw_overlay(Image.new("RGB", (100, 64)), [Mark("", 0, (10, 20, 30, 50))])
    assert painted(drawn) == tuple(factor * value for value in (10, 20, 30, 50))
    assert draw_overlay(noise, [], least_side=0).size == noise.size


def test_a_mask_is_tinted_inside_and_nothing_is_outside():
    mask = np.zeros((500, 600), bool)
    mask[100:200, 50:300] = True
    pixels = np.asarray(draw_overlay(BLACK, [Mark("", 2, mask=mask)]))
    np.testing.assert_array_equal(pixels.any(axis=2), mask)
    assert pixels[100, 50].tolist() == rgb(2)
    np.testing.assert_allclose(pixels[150, 150], 0.42 * np.array(rgb(2)), atol=1)


def test_the_first_mark_lies_on_top():
    box = (100, 100, 200, 200)
    assert np.asarray(draw_overlay(BLACK, [Mark("", 3, box), Mark("", 4, box)]))[100, 150].tolist() == rgb(3)


def test_labels_stay_inside_the_image_and_off_one_another():
    boxes = [(0, 0, 60, 40), (0, 0, 62, 42), (560, 470, 600, 500), (300, 0, 340, 500)]
    marks = [Mark(f"label {n}", n, box) for n, box in enumerate(boxes)]
    together = draw_overlay(BLACK, marks)
    assert together.size == BLACK.size
    for index in range(4):  # each plate is whole: its colour is where it is when it is alone
        alone = (np.asarray(draw_overlay(BLACK, [marks[index]])) == rgb(index)).all(axis=2).sum()
        seen = (np.asarray(together) == rgb(index)).all(axis=2).sum()
        assert seen > 0.75 * alone


def test_points_boxes_without_area_and_empty_masks_can_be_drawn():
    empty = np.zeros((500, 600), bool)
    drawn = draw_overlay(BLACK, [Mark("a", 0, (5, 5, 5, 5)), Mark("b", 1, mask=empty), Mark("c", 2, point=(300, 250))])
    assert np.asarray(drawn)[250, 300].tolist() == rgb(2)


@pytest.mark.parametrize("group", range(10))
def test_labels_can_be_read_on_every_colour(group):
    pixels = np.asarray(draw_overlay(BLACK, [Mark("MMMM", group, (100, 200, 500, 400))])).astype(float)
    plate = pixels[np.s_[170:198], np.s_[104:150]]

    def luminance(colour: np.ndarray) -> np.ndarray:
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    seen = luminance(plate / 255)
    own = luminance(np.array(rgb(group)) / 255)
    contrasts = (np.maximum(seen, own) + 0.05) / (np.minimum(seen, own) + 0.05)
    assert contrasts[contrasts < 20].max() > 3
