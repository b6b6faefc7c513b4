from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtk_cli.reports.contact_sheet import Tile, _font, _shortened, contact_sheet, write_contact_sheet

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], dtype=np.uint8)


def test_small_images_keep_their_pixels_square_and_exact() -> None:
    sheet = np.asarray(contact_sheet([Tile(COLOURS)], cell=100))
    left = top = 24 + 4
    assert np.array_equal(sheet[top : top + 100, left : left + 100], COLOURS.repeat(50, axis=0).repeat(50, axis=1))
    outside = sheet.copy()
    outside[top : top + 100, left : left + 100] = 255
    assert (outside == 255).all()


def test_a_factor_that_does_not_fit_leaves_an_even_margin() -> None:
    sheet = np.asarray(contact_sheet([Tile(np.zeros((30, 30), dtype=np.uint8))], cell=100))
    rows, columns = np.nonzero((sheet == 0).all(axis=-1))
    assert (rows.min(), rows.max() + 1 - rows.min()) == (24 + 4 + 5, 90)
    assert (columns.min(), columns.max() + 1 - columns.min()) == (24 + 4 + 5, 90)


def test_large_images_are_scaled_down_with_their_proportions() -> None:
    sheet = np.asarray(contact_sheet([Tile(np.zeros((400, 200, 3), dtype=np.uint8))], cell=100))
    rows, columns = np.nonzero((sheet == 0).all(axis=-1))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (100, 50)


def test_tiles_fill_row_by_row() -> None:
    greys = [Tile(np.full((1, 1), 40 * i, dtype=np.uint8)) for i in range(5)]
    sheet = np.asarray(contact_sheet(greys, columns=3, cell=10))
    pitch = 10 + 8 + 14
    centre = 24 + 4 + 5
    found = [
        int(sheet[centre + pitch * row, centre + pitch * column, 0])
        for row, column in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    ]
    assert found == [0, 40, 80, 120, 160]
    assert sheet[centre + pitch, centre + 2 * pitch].tolist() == [255, 255, 255]


def test_fewer_tiles_than_columns_make_a_narrow_sheet() -> None:
    tile = Tile(COLOURS)
    assert contact_sheet([tile], columns=6).width < contact_sheet([tile] * 2, columns=6).width


def test_a_frame_is_drawn_round_the_image_in_its_colour() -> None:
    sheet = np.asarray(contact_sheet([Tile(np.zeros((10, 10), dtype=np.uint8), frame="#D55E00")], cell=10))
    framed = (sheet == [0xD5, 0x5E, 0x00]).all(axis=-1)
    rows, columns = np.nonzero(framed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (24, 41, 24, 41)
    assert not framed[28:38, 28:38].any()


def test_captions_and_titles_take_their_room_and_no_more() -> None:
    bare = contact_sheet([Tile(COLOURS)])
    one = contact_sheet([Tile(COLOURS, "one")])
    two = contact_sheet([Tile(COLOURS, "one\ntwo")])
    titled = contact_sheet([Tile(COLOURS)], title="A title")
    assert bare.height < one.height < two.height
    assert two.height - one.height == one.height - bare.height
    assert titled.height > bare.height


def test_a_long_caption_ends_in_an_ellipsis_within_its_cell() -> None:
    shown = _shortened("a caption much too long for the cell it stands in", 120)
    assert shown.endswith("…")
    assert _font(13).getlength(shown) <= 120
    assert _shortened("short", 120) == "short"


def test_pil_images_of_any_mode_become_rgb() -> None:
    sheet = np.asarray(contact_sheet([Tile(Image.new("RGBA", (10, 10), (1, 2, 3, 255)))], cell=10))
    assert sheet[30, 30].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), dtype=np.uint8), np.zeros(4, dtype=np.uint8)]
)
def test_arrays_that_are_no_image_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an image must be uint8"):
        contact_sheet([Tile(image)])


def test_nothing_to_lay_out_is_refused() -> None:
    with pytest.raises(ValueError, match="0 tiles"):
        contact_sheet([])
    with pytest.raises(ValueError, match="0 columns"):
        contact_sheet([Tile(COLOURS)], columns=0)


def test_a_sheet_is_written_whole(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "out" / "sheet.png", [Tile(COLOURS, "caption")], title="t")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.size == contact_sheet([Tile(COLOURS, "caption")], title="t").size
