from __future__ import annotations

import math

import pytest
import torch

from vtk_cli.detect.positions import relative_index, resize_mask, shift_mask, sine_positions, windows_of


def valid(height: int, width: int, extent: tuple[int, int]) -> torch.Tensor:
    mask = torch.ones(1, *extent, dtype=torch.bool)
    mask[:, :height, :width] = False
    return mask


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (8, 2)])
def test_the_last_valid_row_and_column_have_the_angle_two_pi(height: int, width: int) -> None:
    encoding = sine_positions(valid(height, width, (9, 7)), 16)[0]
    row, column = 2 * math.pi * height / (height + 1e-6), 2 * math.pi * width / (width + 1e-6)
    last = encoding[height - 1, width - 1]
    frequencies = [10000 ** (2 * (k // 2) / 8) for k in range(8)]
    expected = [
        (math.sin if k % 2 == 0 else math.cos)(angle / f) for angle in (row, column) for k, f in enumerate(frequencies)
    ]
    torch.testing.assert_close(last, torch.tensor(expected), atol=2e-6, rtol=0)


def test_one_valid_row_has_the_angle_6_283179() -> None:
    angle = torch.asin(sine_positions(valid(1, 4, (1, 4)), 8)[0, 0, 0, 2])  # sin(angle / 100)
    assert float(angle) * 100 == pytest.approx(6.283179, abs=2e-5)


def test_the_encoding_of_a_padded_map_is_that_of_the_map_in_its_valid_part() -> None:
    alone = sine_positions(valid(5, 6, (5, 6)), 24)
    within = sine_positions(valid(5, 6, (11, 8)), 24)
    assert torch.equal(within[:, :5, :6], alone)


def test_rows_come_before_columns() -> None:
    encoding = sine_positions(valid(4, 6, (4, 6)), 16)[0]
    assert torch.equal(encoding[2, 0, :8], encoding[2, 5, :8])
    assert torch.equal(encoding[0, 3, 8:], encoding[3, 3, 8:])
    assert not torch.equal(encoding[1, 0, :8], encoding[2, 0, :8])


def test_a_mask_is_resized_by_the_pixel_at_the_start_of_each_cell() -> None:
    mask = valid(40, 60, (64, 96))
    resized = resize_mask(mask, (2, 3))
    assert resized.tolist() == [[[False, False, True], [False, False, True]]]


def test_windows_are_cut_row_by_row() -> None:
    maps = torch.randn(2, 6, 8, 5)
    cut = windows_of(maps, (3, 4))
    assert cut.shape == (2, 4, 12, 5)
    assert torch.equal(cut[1, 2], maps[1, 3:, :4].reshape(12, 5))


def test_the_index_of_a_pair_follows_its_distance() -> None:
    index = relative_index((2, 3), 4)
    for query in range(6):
        for key in range(6):
            dy, dx = query // 3 - key // 3, query % 3 - key % 3
            assert index[query, key] == (dy + 3) * 7 + dx + 3


def test_shifted_windows_show_a_cell_only_those_it_stood_beside() -> None:
    """Against the map itself: two cells of a window see each other if no edge of the map was rolled between them."""
    size, window, shift = (6, 9), (3, 3), (1, 1)
    mask = shift_mask(size, window, shift)
    rolled = torch.stack(torch.meshgrid(torch.arange(6), torch.arange(9), indexing="ij"), -1).roll((-1, -1), (0, 1))
    cells = windows_of(rolled[None], window)[0]  # where each cell of a window stood
    apart = (cells[:, :, None] - cells[:, None, :]).abs().amax(-1)
    assert torch.equal(mask == 0, apart < 3)
    assert set(mask.unique().tolist()) == {0.0, -100.0}


def test_an_axis_that_is_not_shifted_hides_nothing_along_it() -> None:
    mask = shift_mask((4, 8), (4, 4), (0, 2))
    assert bool((mask[0] == 0).all())
    right = mask[1].reshape(4, 4, 4, 4)  # (y, x) of query and key
    assert bool((right[:, :2, :, :2] == 0).all())
    assert bool((right[:, :2, :, 2:] == -100).all())
