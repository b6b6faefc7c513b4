from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.segment.solov2.configurations import LevelConfig, segmenter_config
from vtk_cli.segment.solov2.predictions import Target
from vtk_cli.segment.solov2.targets import (
    BACKGROUND,
    ImageTargets,
    assign,
    cells_of,
    ignore_around,
    mass_centres,
    on_mask_cells,
    one_mask_a_cell,
)

CANVAS = (800, 800)


def rectangle(top: int, left: int, height: int, width: int, size: tuple[int, int] = CANVAS) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def cells(targets: ImageTargets) -> dict[int, set[tuple[int, int]]]:
    """By grid, rows and columns of the cells that have a mask to predict."""
    return {
        len(level.category): {divmod(cell, len(level.category)) for cell in level.cells.tolist()}
        for level in targets.levels
        if len(level.cells)
    }


def slow_assign(
    target: Target, levels: tuple[LevelConfig, ...], sigma: float, canvas: tuple[int, int]
) -> list[tuple[np.ndarray, list[tuple[int, int]]]]:
    """Cell by cell, as the paper tells it: categories, and (cell, object) pairs in order."""
    made = []
    for level in levels:
        S = level.grid
        category, pairs = np.full((S, S), BACKGROUND), []
        for index, (mask, box) in enumerate(zip(target.masks.numpy(), target.boxes.tolist(), strict=True)):
            width, height = box[2] - box[0], box[3] - box[1]
            if not mask.any() or not level.low <= math.sqrt(width * height) < level.high:
                continue
            ys, xs = np.nonzero(mask)
            cy, cx = ys.mean(), xs.mean()
            spans = []
            for centre, half, length in (
                (cy, sigma * height / 2, canvas[0]),
                (cx, sigma * width / 2, canvas[1]),
            ):
                at = math.floor(centre / length * S)
                low, high = (math.floor((centre + side) / length * S) for side in (-half, half))
                spans.append([k for k in range(S) if max(0, low, at - 1) <= k <= min(S - 1, high, at + 1)])
            for row in spans[0]:
                for column in spans[1]:
                    category[row, column] = int(target.labels[index])
                    pairs.append((row * S + column, index))
        made.append((category, pairs))
    return made


def test_a_100_pixel_box_in_the_middle_has_the_cells_of_the_paper(target: Callable[..., Target]) -> None:
    """Its centre of mass is at (400, 400): mean of the pixels 350..450."""
    one = target(rectangle(350, 350, 101, 101)[None], [7])
    one = Target(one.labels, one.masks, torch.tensor([[350.0, 350, 450, 450]]))
    teacher, student = (segmenter_config("solov2-r50", 80, role).levels for role in ("teacher", "student"))
    found = assign(one, teacher, 0.2, CANVAS, 4)
    assert cells(found) == {64: {(31, 31), (31, 32), (32, 31), (32, 32)}}
    assert set(found.levels[1].category[31:33, 31:33].flatten().tolist()) == {7}
    assert int((found.levels[1].category != BACKGROUND).sum()) == 4
    assert cells(assign(one, student, 0.2, CANVAS, 4)) == {
        36: {(17, 17), (17, 18), (18, 17), (18, 18)},
        24: {(11, 11), (11, 12), (12, 11), (12, 12)},
    }


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_targets_equal_a_slow_reference(role: str, target: Callable[..., Target]) -> None:
    levels = segmenter_config("solov2-r50", 80, role).levels  # type: ignore[arg-type]
    rng = np.random.default_rng(5)
    canvas, size = (416, 640), (401, 622)
    for sigma in (0.2, 0.5, 1.0):
        masks = []
        for _ in range(12):
            height, width = (int(side) for side in rng.integers(8, 330, 2))
            box = rectangle(int(rng.integers(-5, 390)) % 400, int(rng.integers(0, 600)), height, width, size)
            masks.append(box & torch.from_numpy(rng.random(size) < 0.7))
        many = target(torch.stack(masks), rng.integers(0, 80, 12).tolist())
        found = assign(many, levels, sigma, canvas, 4)
        for level, (category, pairs) in zip(found.levels, slow_assign(many, levels, sigma, canvas), strict=True):
            assert np.array_equal(level.category.numpy(), category)
            assert list(zip(level.cells.tolist(), level.objects.tolist(), strict=True)) == pairs


def test_an_object_has_one_to_nine_cells_on_a_level(target: Callable[..., Target]) -> None:
    levels = (LevelConfig(80, 1, 100_000, 8), LevelConfig(5, 1, 100_000, 8))
    rng = np.random.default_rng(1)
    for sigma in (0.0, 0.2, 1.0):
        for _ in range(20):
            top, left, height, width = (int(each) for each in rng.integers(4, 380, 4))
            one = target(rectangle(top, left, height, width)[None], [0])
            counts = [len(level.cells) for level in assign(one, levels, sigma, CANVAS, 4).levels]
            assert all(1 <= count <= 9 for count in counts)
    whole = target(rectangle(0, 0, 800, 800)[None], [0])
    assert [len(level.cells) for level in assign(whole, levels, 1.0, CANVAS, 4).levels] == [9, 9]


def test_a_size_at_the_border_of_two_ranges_belongs_to_the_upper(target: Callable[..., Target]) -> None:
    levels = (LevelConfig(20, 1, 72, 8), LevelConfig(10, 72, 144, 8))
    assert list(cells(assign(target(rectangle(100, 100, 72, 72)[None], [0]), levels, 0.2, CANVAS, 4))) == [10]
    assert list(cells(assign(target(rectangle(100, 100, 72, 71)[None], [0]), levels, 0.2, CANVAS, 4))) == [20]
    assert cells(assign(target(rectangle(0, 0, 144, 144)[None], [0]), levels, 0.2, CANVAS, 4)) == {}


def test_cells_begin_exactly_at_multiples_of_their_size() -> None:
    """In floating point 3 // (1 / 40 * 40) and its like fall a cell short; there are 304 such borders here."""
    for S in (12, 16, 24, 32, 36, 40, 64, 80):
        borders = torch.arange(S, dtype=torch.float64)
        rows, columns = cells_of(torch.stack([borders * 32, borders * 8], 1), S, (8 * S, 32 * S))
        assert rows.tolist() == columns.tolist() == list(range(S))


def test_points_beyond_the_rim_are_in_the_nearest_cell() -> None:
    rows, columns = cells_of(torch.tensor([[-3.0, 900.0], [805.0, -0.5]]), 40, CANVAS)
    assert (rows.tolist(), columns.tolist()) == ([39, 0], [0, 39])


def test_grids_cover_the_padding(target: Callable[..., Target]) -> None:
    mask = rectangle(40, 40, 20, 20, (100, 100))
    levels = (LevelConfig(16, 1, 1000, 8),)
    near, far = (cells(assign(target(mask[None], [0]), levels, 0.0, canvas, 4)) for canvas in ((128, 128), (128, 256)))
    assert near == {16: {(6, 6)}}
    assert far == {16: {(6, 3)}}


def test_of_two_objects_in_a_cell_the_later_has_the_category_and_both_masks_stay_until_one_is_dropped(
    target: Callable[..., Target],
) -> None:
    levels = (LevelConfig(10, 1, 1000, 8),)
    both = target(torch.stack([rectangle(20, 20, 30, 30), rectangle(10, 10, 50, 50)]), [1, 2])
    found = assign(both, levels, 0.0, CANVAS, 4).levels[0]
    assert found.category[0, 0] == 2
    assert (found.cells.tolist(), found.objects.tolist()) == ([0, 0], [0, 1])
    alone = one_mask_a_cell(assign(both, levels, 0.0, CANVAS, 4)).levels[0]
    assert (alone.cells.tolist(), alone.objects.tolist()) == ([0], [1])


def test_after_dropping_each_cell_has_the_mask_of_its_category(target: Callable[..., Target]) -> None:
    rng = np.random.default_rng(3)
    corners = rng.integers(0, 300, (20, 2)).tolist()
    many = target(torch.stack([rectangle(y, x, 200, 200) for y, x in corners]), list(range(20)))
    levels = (LevelConfig(12, 1, 1000, 8), LevelConfig(24, 1, 1000, 8))
    full = assign(many, levels, 0.5, CANVAS, 4)
    for before, level in zip(full.levels, one_mask_a_cell(full).levels, strict=True):
        assert len(level.cells) < len(before.cells)
        assert torch.equal(level.cells.sort()[0], (level.category.flatten() >= 0).nonzero()[:, 0])
        assert torch.equal(level.category.flatten()[level.cells], many.labels[level.objects])


def test_an_object_that_vanishes_on_the_mask_cells_is_nobodys(target: Callable[..., Target]) -> None:
    line = rectangle(100, 100, 1, 200)
    pair = target(torch.stack([line, rectangle(300, 300, 40, 40), torch.zeros_like(line)]), [0, 1, 2])
    found = assign(pair, (LevelConfig(40, 0, 1000, 8),), 0.2, CANVAS, 4)
    assert set(found.levels[0].objects.tolist()) == {1}
    assert found.masks.shape == (3, 200, 200)


def test_an_image_without_objects_has_no_targets(target: Callable[..., Target]) -> None:
    levels = segmenter_config("solov2-r50", 80).levels
    found = one_mask_a_cell(assign(target(torch.zeros(0, 90, 90, dtype=torch.bool), []), levels, 0.2, (96, 96), 4))
    assert cells(found) == {}
    assert all(bool((level.category == BACKGROUND).all()) for level in found.levels)


def test_mask_cells_hold_the_mean_of_the_middle_of_each_block() -> None:
    masks = torch.rand(5, 64, 96, generator=torch.Generator().manual_seed(0)) < 0.5
    middle = F.avg_pool2d(masks[:, None].float()[..., 1:-1, 1:-1], 2, stride=4)[:, 0]
    assert torch.equal(on_mask_cells(masks, (64, 96), 4), middle >= 0.5)


def test_mask_cells_of_a_ragged_image_lie_at_the_top_left_of_the_canvas() -> None:
    found = on_mask_cells(torch.ones(1, 50, 33, dtype=torch.bool), (64, 64), 4)[0]
    assert torch.equal(found, rectangle(0, 0, 13, 8, (16, 16)))  # 12.5 and 8.25, rounded


def test_the_centre_of_mass_is_the_mean_pixel() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((4, 31, 47)) < 0.2
    expected = [(np.nonzero(mask)[1].mean(), np.nonzero(mask)[0].mean()) for mask in masks]
    torch.testing.assert_close(mass_centres(torch.from_numpy(masks)), torch.tensor(expected, dtype=torch.float64))


def test_empty_cells_around_an_unresolved_click_are_not_judged(target: Callable[..., Target]) -> None:
    one = target(rectangle(350, 350, 100, 100)[None], [3])
    levels = (LevelConfig(8, 1, 1000, 8),)
    plain = assign(one, levels, 0.0, CANVAS, 4)
    clicks = torch.tensor([[250.0, 350.0], [0.0, 799.0]])  # cells (3, 2) and (7, 0)
    found = ignore_around(plain, clicks, CANVAS).levels[0]
    assert found.ignored is not None
    expected = {(r, c) for r in (2, 3, 4) for c in (1, 2, 3)} | {(6, 0), (6, 1), (7, 0), (7, 1)}
    expected -= {divmod(cell, 8) for cell in found.cells.tolist()}
    assert {(r, c) for r, c in found.ignored.nonzero().tolist()} == expected
    assert torch.equal(found.category, plain.levels[0].category)


def test_targets_move_as_a_whole(target: Callable[..., Target]) -> None:
    one = target(rectangle(350, 350, 100, 100)[None], [3])
    made = assign(one, (LevelConfig(8, 1, 1000, 8), LevelConfig(4, 1, 1000, 8)), 0.2, CANVAS, 4)
    moved = ignore_around(made, torch.zeros(1, 2), CANVAS).to("meta")
    parts = [each for level in moved.levels for each in vars(level).values()]
    assert {each.device.type for each in (moved.masks, *parts)} == {"meta"}
    assert len(parts) == 8
