from __future__ import annotations

import numpy as np
import pytest

from vtk_cli.data.digits import load_glyphs
from vtk_cli.data.painting import CONTRAST, contrasting_colour, draw_glyph, load_photos, paint, photo_crop


@pytest.mark.parametrize(("half", "columns"), [("left", (0, 320)), ("right", (320, 640)), ("whole", (0, 640))])
def test_a_crop_stays_in_its_half(half, columns):
    photo = np.zeros((427, 640, 3), np.uint8)
    photo[:, columns[0] : columns[1]] = 200
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert (photo_crop(photo, 16, rng, smallest=100, largest=320, half=half) == 200).all()


def test_a_crop_as_large_as_the_photo_allows_is_possible():
    crop = photo_crop(load_photos()[0], 32, np.random.default_rng(0), smallest=427, largest=10_000)
    assert crop.shape == (32, 32, 3)


def test_a_colour_stands_out_from_nine_tenths_of_what_is_behind_it():
    photos, rng = load_photos(), np.random.default_rng(0)
    fallen_short = 0
    for index in range(200):
        background = photo_crop(photos[index % 2], 32, rng, smallest=64, largest=256)
        colour = contrasting_colour(background, rng).astype(float)
        far = np.linalg.norm(background.reshape(-1, 3) - colour, axis=1) >= CONTRAST
        fallen_short += far.mean() < 0.89
    assert fallen_short <= 4


def test_a_glyph_is_cut_tight_and_about_as_large_as_asked():
    for ink in load_glyphs("val").ink[:50]:
        glyph = draw_glyph(ink, 40)
        for edge in (glyph.opacity[0], glyph.opacity[-1], glyph.opacity[:, 0], glyph.opacity[:, -1]):
            assert edge.max() > 0
        assert max(glyph.opacity.shape) <= 48
        assert glyph.opacity.shape[0] > 30


def test_paint_replaces_where_opaque_keeps_where_transparent_and_mixes_between():
    canvas = np.full((20, 20, 3), 100, np.uint8)
    glyph = draw_glyph(np.pad(np.ones((4, 4)), 2), 16)
    colour = np.array([200, 0, 50], np.uint8)
    paint(canvas, glyph, colour, 3, 5)
    height, width = glyph.opacity.shape
    region = canvas[5 : 5 + height, 3 : 3 + width]
    assert (region[glyph.opacity == 1] == colour).all()
    assert (region[glyph.opacity == 0] == 100).all()
    expected = 100 + glyph.opacity * (200 - 100)
    assert np.abs(region[..., 0] - expected).max() <= 0.5
    assert (canvas[:5] == 100).all()
