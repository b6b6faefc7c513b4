from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.segment.solov2.configurations import LevelConfig, SegmenterConfig, segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.padding import pad_images, padded_size
from vtk_cli.segment.solov2.point_inference import (
    ClickScores,
    PointMasks,
    PointSettings,
    by_score,
    clicked_cells,
    covering_first,
    masks_at_points,
    neighbouring_cells,
    to_canvas,
)
from vtk_cli.segment.solov2.predictions import Frame, LevelOutput, Outputs, PointPrompt, Target
from vtk_cli.segment.solov2.targets import mass_centres, on_mask_cells

LEVELS = segmenter_config("solov2-r50", 1, "teacher").levels
CANVAS = (128, 160)
FRAME = Frame(CANVAS, CANVAS, CANVAS)
K, E = 3, 8
FAITHFUL = PointSettings(clicked_cells, by_score)
EVERY_ONE = PointSettings(clicked_cells, by_score, most_iou=None, most=None)


def click(x: float, y: float, label: int = 0) -> PointPrompt:
    return PointPrompt(x, y, label, 1)


def noise(seed: int = 0, canvas: tuple[int, int] = CANVAS, levels: Sequence[LevelConfig] = LEVELS) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    made = tuple(
        LevelOutput(
            torch.randn(1, K, each.grid, each.grid, generator=generator) * 3,
            torch.randn(1, E, each.grid, each.grid, generator=generator),
        )
        for each in levels
    )
    return Outputs(made, torch.randn(1, E, canvas[0] // 4, canvas[1] // 4, generator=generator).relu())


def random_clicks(count: int, seed: int = 0) -> list[PointPrompt]:
    rng = np.random.default_rng(seed)
    return [
        click(float(x), float(y), int(label))
        for x, y, label in zip(
            rng.uniform(0, 159, count), rng.uniform(0, 127, count), rng.integers(0, K, count), strict=True
        )
    ]


def with_category(outputs: Outputs, change: Callable[[int, Tensor], Tensor]) -> Outputs:
    levels = [LevelOutput(change(index, each.category), each.kernels) for index, each in enumerate(outputs.levels)]
    return Outputs(tuple(levels), outputs.mask_features)


def slow_choice(outputs: Outputs, prompt: PointPrompt, frame: Frame) -> tuple[int, float, float, Tensor]:
    """Level, score, maskness and soft mask of a click, level by level."""
    best: tuple[int, float, float, Tensor] | None = None
    height, width = frame.padded
    x = (prompt.x + 0.5) * frame.resized[1] / frame.original[1] - 0.5
    y = (prompt.y + 0.5) * frame.resized[0] / frame.original[0] - 0.5
    for index, output in enumerate(outputs.levels):
        S = output.category.shape[-1]
        row, column = min(S - 1, max(0, int(y / height * S))), min(S - 1, max(0, int(x / width * S)))
        p = torch.einsum("e,ehw->hw", output.kernels[0, :, row, column], outputs.mask_features[0]).sigmoid()
        q = float((p * (p > 0.5)).sum() / ((p > 0.5).sum() + 1e-8))
        score = q * float(output.category[0, prompt.label, row, column].sigmoid())
        if best is None or score > best[1]:
            best = index, score, q, p
    assert best is not None
    return best


def test_each_click_gets_the_level_of_the_greatest_product() -> None:
    outputs, prompts = noise(), random_clicks(60)
    frame = Frame(original=(250, 301), resized=(107, 129), padded=CANVAS)
    prompts = [replace(each, x=each.x * 1.8, y=each.y * 1.9) for each in prompts]
    chosen = set()
    for prompt in prompts:
        level, score, maskness, p = slow_choice(outputs, prompt, frame)
        found = masks_at_points(outputs, frame, LEVELS, [prompt], EVERY_ONE)
        if found.unresolved:
            assert found.unresolved == ((0, "area"),)
            assert (p > 0.5).sum() <= LEVELS[level].stride
            continue
        chosen.add(level)
        assert found.levels.tolist() == [level]
        assert float(found.confidence[0]) == pytest.approx(score, rel=1e-4)
        assert float(found.instances.scores[0]) == pytest.approx(maskness, rel=1e-4)
        assert found.instances.labels.tolist() == [prompt.label]
        large = F.interpolate(p[None, None], scale_factor=4, mode="bilinear")[..., :107, :129]
        expected = F.interpolate(large, size=(250, 301), mode="bilinear")[0, 0] > 0.5
        assert int((found.instances.masks[0] != expected).sum()) <= 3  # pixels at 0.5 to the last bit
    assert chosen == {0, 1, 2, 3, 4}


def test_with_all_other_levels_impossible_the_remaining_one_is_chosen() -> None:
    prompts = random_clicks(10)
    for only in range(5):
        outputs = with_category(
            noise(), lambda index, each, only=only: each if index == only else torch.full_like(each, -torch.inf)
        )
        found = masks_at_points(outputs, FRAME, LEVELS, prompts, EVERY_ONE)
        assert len(found.clicks) > 0
        assert set(found.levels.tolist()) == {only}


def test_of_equal_levels_the_finer_is_chosen() -> None:
    outputs = noise()
    kernels = torch.randn(E).abs()
    same = [
        LevelOutput(torch.zeros_like(each.category), kernels[None, :, None, None].expand_as(each.kernels))
        for each in outputs.levels
    ]
    for first in range(5):
        levels = [
            LevelOutput(torch.full_like(each.category, -9.0 if index < first else 0.0), each.kernels)
            for index, each in enumerate(same)
        ]
        found = masks_at_points(
            Outputs(tuple(levels), outputs.mask_features), FRAME, LEVELS, [click(30.3, 60.2)], FAITHFUL
        )
        assert found.levels.tolist() == [first]


@pytest.mark.parametrize("cells", [clicked_cells, neighbouring_cells])
@pytest.mark.parametrize("prefer", [by_score, covering_first])
def test_permuting_clicks_permutes_masks(cells: object, prefer: object) -> None:
    settings = PointSettings(cells, prefer, most_iou=0.5)  # type: ignore[arg-type]
    outputs = noise()
    prompts = random_clicks(40)
    prompts += [replace(each, x=each.x + 0.01) for each in prompts[:12]]  # in the cells of others
    order = np.random.default_rng(1).permutation(len(prompts)).tolist()
    plain = masks_at_points(outputs, FRAME, LEVELS, prompts, settings)
    mixed = masks_at_points(outputs, FRAME, LEVELS, [prompts[index] for index in order], settings)
    assert {(order[index], reason) for index, reason in mixed.unresolved} == set(plain.unresolved)
    by_click = {int(index): at for at, index in enumerate(plain.clicks)}
    for at, index in enumerate(mixed.clicks.tolist()):
        other = by_click[order[index]]
        assert torch.equal(mixed.instances.masks[at], plain.instances.masks[other])
        assert mixed.levels[at] == plain.levels[other]


def test_each_click_has_a_mask_of_its_class_or_a_reason() -> None:
    prompts = random_clicks(150)
    found = masks_at_points(noise(), FRAME, LEVELS, prompts, FAITHFUL)
    lost = [index for index, _ in found.unresolved]
    assert sorted([*found.clicks.tolist(), *lost]) == list(range(150))
    assert len(found.clicks) <= 100
    assert found.instances.labels.tolist() == [prompts[index].label for index in found.clicks.tolist()]
    assert lost == sorted(lost)


def test_how_sure_normal_inference_would_be_does_not_matter() -> None:
    outputs, prompts = noise(), random_clicks(30)
    plain = masks_at_points(outputs, FRAME, LEVELS, prompts, FAITHFUL)
    faint = masks_at_points(
        with_category(outputs, lambda _, each: (each.double().sigmoid() * 0.01).logit().float()),
        FRAME,
        LEVELS,
        prompts,
        FAITHFUL,
    )
    assert torch.equal(plain.levels, faint.levels)
    assert torch.equal(plain.clicks, faint.clicks)
    assert torch.equal(plain.instances.masks, faint.instances.masks)
    assert float(faint.confidence.max()) < 0.1


@pytest.fixture
def bars(target: Callable[..., Target]) -> Target:
    """Bars across the whole canvas, on whole cells of the mask features."""
    masks = torch.zeros(4, *CANVAS, dtype=torch.bool)
    masks[0, :, 8:24], masks[1, :, 40:80], masks[2, :, 100:116], masks[3, :, 116:152] = True, True, True, True
    return target(masks, [1, 1, 0, 2])


def at_centres(scene: Target) -> list[PointPrompt]:
    centres = mass_centres(scene.masks).tolist()
    return [click(x, y, int(label)) for (x, y), label in zip(centres, scene.labels, strict=True)]


def test_a_network_whose_kernels_are_the_masks_gives_them_back(bars: Target, hand_set: Callable[..., Outputs]) -> None:
    outputs = hand_set(bars, LEVELS, CANVAS, 4, K)
    found = masks_at_points(outputs, FRAME, LEVELS, at_centres(bars), FAITHFUL)
    assert found.clicks.tolist() == [0, 1, 2, 3]
    assert torch.equal(found.instances.masks, bars.masks)
    assert torch.equal(found.instances.boxes, bars.boxes)
    assert found.unresolved == ()
    assert bool(found.covers.all())


def test_rectangles_come_back_but_for_their_corner_pixels(
    target: Callable[..., Target], hand_set: Callable[..., Outputs]
) -> None:
    """Interpolated in both directions, the outermost pixel of a corner is 0.625^2 < 1/2."""
    masks = torch.zeros(2, *CANVAS, dtype=torch.bool)
    masks[0, 8:40, 12:60], masks[1, 60:100, 80:120] = True, True
    scene = target(masks, [0, 2])
    found = masks_at_points(hand_set(scene, LEVELS, CANVAS, 4, K), FRAME, LEVELS, at_centres(scene), FAITHFUL)
    assert torch.equal(on_mask_cells(found.instances.masks, CANVAS, 4), on_mask_cells(masks, CANVAS, 4))
    lost = [{tuple(place) for place in each.nonzero().tolist()} for each in masks & ~found.instances.masks]
    assert lost == [set(itertools.product((8, 39), (12, 59))), set(itertools.product((60, 99), (80, 119)))]
    assert not (found.instances.masks & ~masks).any()


def test_a_click_where_nothing_is_gives_at_most_a_mask_and_no_click_none(
    bars: Target, hand_set: Callable[..., Outputs]
) -> None:
    outputs = hand_set(bars, LEVELS, CANVAS, 4, K)
    found = masks_at_points(outputs, FRAME, LEVELS, [click(30, 5, 2)], FAITHFUL)
    assert len(found.clicks) + len(found.unresolved) == 1
    assert found.unresolved == ((0, "area"),)
    nothing = masks_at_points(outputs, FRAME, LEVELS, [], PointSettings(neighbouring_cells, covering_first))
    assert nothing.instances.masks.shape == (0, *CANVAS)
    assert nothing.unresolved == ()
    assert len(nothing.clicks) == 0


def test_clicks_are_placed_on_the_padded_canvas() -> None:
    """The middle of the first pixel of an image at twice its size lies between the first two pixels."""
    frame = Frame((50, 40), (100, 80), (128, 96))
    found = to_canvas(torch.tensor([[0.0, 0.0], [39.0, 49.0], [-0.5, 49.5]]), frame)
    assert found.tolist() == [[0.5, 0.5], [78.5, 98.5], [-0.5, 99.5]]
    cells = clicked_cells(found, (LevelConfig(16, 1, 2, 8),), frame.padded)
    assert [divmod(cell, 16) for cell in cells.cells[:, 0].tolist()] == [(0, 0), (12, 13), (12, 0)]


def test_neighbours_are_the_nine_cells_centre_first_and_stay_on_the_grid() -> None:
    levels = (LevelConfig(8, 1, 2, 8), LevelConfig(4, 1, 2, 8))
    found = neighbouring_cells(torch.tensor([[70.0, 35.0], [0.0, 0.0]]), levels, (128, 128))
    assert found.levels.tolist() == [0] * 9 + [1] * 9
    first = [divmod(cell, 8) for cell in found.cells[0, :9].tolist()]
    assert first[0] == (2, 4)
    assert set(first) == set(itertools.product((1, 2, 3), (3, 4, 5)))
    corner = {divmod(cell, 8) for cell in found.cells[1, :9].tolist()}
    assert corner == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_a_click_at_the_rim_of_an_object_is_helped_by_its_neighbours(
    bars: Target, hand_set: Callable[..., Outputs]
) -> None:
    levels = (LevelConfig(16, 1, 1000, 8),)  # cells 10 pixels wide; only those at the centre know their bar
    outputs = hand_set(bars, levels, CANVAS, 4, K)
    rim = [click(45, 63.5, 1)]
    assert masks_at_points(outputs, FRAME, levels, rim, FAITHFUL).unresolved == ((0, "area"),)
    found = masks_at_points(outputs, FRAME, levels, rim, PointSettings(neighbouring_cells, by_score))
    assert torch.equal(found.instances.masks, bars.masks[1:2])


def scores_of(scores: list[list[float]], covers: list[list[bool]]) -> ClickScores:
    given = torch.tensor(scores)
    return ClickScores(given, given, given, torch.tensor(covers))


def test_masks_that_cover_their_click_come_first_where_there_are_any() -> None:
    given = scores_of([[0.9, 0.1, 0.2], [0.9, 0.1, 0.2]], [[False, True, True], [False] * 3])
    assert covering_first(given).argmax(1).tolist() == [2, 0]
    assert by_score(given).argmax(1).tolist() == [0, 0]


@pytest.fixture
def halves() -> Callable[..., Outputs]:
    """The left and the right half of the canvas as masks, on two levels of one cell each."""

    def make(kernels: Sequence[int], chances: Sequence[float]) -> Outputs:
        features = torch.zeros(1, 2, 32, 40)
        features[0, 0, :, :20], features[0, 1, :, 20:] = 1, 1
        sides = torch.tensor([[20.0, -20.0], [-20.0, 20.0]])
        levels = tuple(
            LevelOutput(torch.full((1, 1, 1, 1), chance), sides[which][None, :, None, None])
            for which, chance in zip(kernels, chances, strict=True)
        )
        return Outputs(levels, features)

    return make


ONE_CELL = (LevelConfig(1, 1, 2, 8), LevelConfig(1, 1, 2, 8))


def test_a_mask_away_from_its_click_is_chosen_only_as_published_and_said_so(halves: Callable[..., Outputs]) -> None:
    outputs = halves([0, 1], [2.0, -2.0])
    right = [click(120, 60)]
    faithful = masks_at_points(outputs, FRAME, ONE_CELL, right, FAITHFUL)
    assert (faithful.levels.tolist(), faithful.covers.tolist()) == ([0], [False])
    inside = masks_at_points(outputs, FRAME, ONE_CELL, right, PointSettings(clicked_cells, covering_first))
    assert (inside.levels.tolist(), inside.covers.tolist()) == ([1], [True])
    nowhere = masks_at_points(
        halves([0, 0], [2.0, -2.0]), FRAME, ONE_CELL, right, PointSettings(clicked_cells, covering_first)
    )
    assert (nowhere.levels.tolist(), nowhere.covers.tolist()) == ([0], [False])


def test_who_loses_a_cell_takes_its_next_one_that_covers_it(halves: Callable[..., Outputs]) -> None:
    """Both want the left half; the click on the left lies in it, so the other takes the right one."""
    both = [click(120, 60), click(20, 60)]
    found = masks_at_points(halves([0, 1], [2.0, -2.0]), FRAME, ONE_CELL, both, FAITHFUL)
    assert found.levels.tolist() == [1, 0]
    assert found.unresolved == ()
    nowhere = masks_at_points(halves([0, 0], [2.0, -2.0]), FRAME, ONE_CELL, both, EVERY_ONE)
    assert nowhere.unresolved == ((0, "collision"),)
    assert nowhere.clicks.tolist() == [1]


def test_a_cell_serves_clicks_of_two_classes() -> None:
    outputs = Outputs((LevelOutput(torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, 1)),), torch.ones(1, 1, 32, 40))
    level = (LevelConfig(1, 1, 2, 8),)
    found = masks_at_points(outputs, FRAME, level, [click(5, 5, 0), click(9, 9, 1)], FAITHFUL)
    assert found.instances.labels.tolist() == [0, 1]
    again = masks_at_points(outputs, FRAME, level, [click(5, 5, 0), click(9, 9, 0)], FAITHFUL)
    assert again.unresolved == ((1, "collision"),)


def test_clicks_whose_masks_overlap_lose_the_worse_unless_all_are_wanted(halves: Callable[..., Outputs]) -> None:
    outputs = halves([0, 0], [2.0, -2.0])
    both = [click(20, 60), click(30, 90)]  # the second takes the second level, whose mask is the same
    found = masks_at_points(outputs, FRAME, ONE_CELL, both, FAITHFUL)
    assert found.unresolved == ((1, "overlap"),)
    kept = masks_at_points(outputs, FRAME, ONE_CELL, both, EVERY_ONE)
    assert kept.clicks.tolist() == [0, 1]


def test_of_too_many_masks_the_best_stay() -> None:
    prompts = random_clicks(30)
    every = masks_at_points(noise(), FRAME, LEVELS, prompts, EVERY_ONE)
    few = masks_at_points(noise(), FRAME, LEVELS, prompts, replace(EVERY_ONE, most=5))
    best = every.instances.scores.sort(descending=True)[0][:5]
    assert torch.equal(few.instances.scores.sort(descending=True)[0], best)
    assert sum(reason == "count" for _, reason in few.unresolved) == len(every.clicks) - 5


def same(a: PointMasks, b: PointMasks) -> bool:
    pairs = ((a.instances.masks, b.instances.masks), (a.clicks, b.clicks), (a.levels, b.levels))
    return a.unresolved == b.unresolved and all(torch.equal(x, y) for x, y in pairs)


def test_masks_of_a_batch_equal_those_of_each_image_alone_on_the_same_canvas(micro_network: SOLOv2) -> None:
    config: SegmenterConfig = micro_network.config
    sizes = [(60, 90), (80, 64), (33, 33)]
    generator = torch.Generator().manual_seed(3)
    images = [torch.randn(3, *size, generator=generator) for size in sizes]
    canvas = padded_size(sizes, config.padding_multiple)
    assert canvas == (80, 96)
    together = micro_network(pad_images(images, canvas))
    settings = PointSettings(clicked_cells, covering_first)
    for index, (image, size) in enumerate(zip(images, sizes, strict=True)):
        frame = Frame((size[0] * 2, size[1] * 2), size, canvas)
        prompts = [click(x, y, label) for x, y, label in ((5, 9, 0), (40, 40, 2), (60, 11, 1), (61, 12, 1))]
        alone = micro_network(pad_images([image], canvas))
        results = [
            masks_at_points(outputs, frame, config.levels, prompts, settings)
            for outputs in (together.of_image(index), alone)
        ]
        assert same(*results)


def test_extra_padding_moves_the_cells_of_the_clicks(micro_network: SOLOv2) -> None:
    levels = micro_network.config.levels
    at = torch.tensor([[63.0, 63.0]])
    near, far = (clicked_cells(at, levels, canvas).cells[0].tolist() for canvas in ((64, 64), (64, 128)))
    assert near == [S * S - 1 for S in (16, 12, 8)]
    assert far == [(S - 1) * S + S // 2 - 1 for S in (16, 12, 8)]
