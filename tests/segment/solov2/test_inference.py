from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from vtk_cli.segment.solov2.configurations import LevelConfig
from vtk_cli.segment.solov2.inference import InferenceSettings, find_instances, masks_of_objects
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.predictions import Frame, LevelOutput, Outputs, Target
from vtk_cli.segment.solov2.suppression import greedy_nms
from vtk_cli.segment.solov2.targets import assign

LEVELS = (LevelConfig(16, 1, 40, 8), LevelConfig(8, 40, 1000, 16))
CANVAS = (128, 160)
FRAME = Frame(CANVAS, CANVAS, CANVAS)


@pytest.fixture
def scene(target: Callable[..., Target]) -> Target:
    """Three bars across the whole canvas, two of a class."""
    masks = torch.zeros(3, *CANVAS, dtype=torch.bool)
    masks[0, :, 8:24], masks[1, :, 40:80], masks[2, :, 100:140] = True, True, True
    return target(masks, [1, 1, 0])


def noise(seed: int, K: int = 3, E: int = 8) -> Outputs:
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(
        LevelOutput(
            torch.randn(1, K, each.grid, each.grid, generator=generator) * 2 - 1,
            torch.randn(1, E, each.grid, each.grid, generator=generator),
        )
        for each in LEVELS
    )
    return Outputs(levels, torch.randn(1, E, CANVAS[0] // 4, CANVAS[1] // 4, generator=generator).relu())


def slow_inference(outputs: Outputs, *, most: int) -> list[tuple[float, int, torch.Tensor]]:
    """Normal inference one candidate at a time: score, label and soft mask on the mask features."""
    M = outputs.mask_features[0]
    found = []
    for level, output in zip(LEVELS, outputs.levels, strict=True):
        chances = output.category[0].sigmoid()
        for row in range(level.grid):
            for column in range(level.grid):
                for k in range(chances.shape[0]):
                    window = chances[k, max(0, row - 1) : row + 1, max(0, column - 1) : column + 1]
                    s = chances[k, row, column]
                    if s < window.max() or s <= 0.1:
                        continue
                    p = torch.einsum("e,ehw->hw", output.kernels[0, :, row, column], M).sigmoid()
                    b = p > 0.5
                    if b.sum() <= level.stride:
                        continue
                    found.append((float(s * p[b].mean()), k, p))
    found.sort(key=lambda each: -each[0])
    found = found[:500]
    decayed = []
    ious = torch.zeros(len(found), len(found))
    for i, (_, a, p) in enumerate(found):
        for j, (_, b, q) in enumerate(found[:i]):
            if a == b:
                ious[j, i] = ((p > 0.5) & (q > 0.5)).sum() / ((p > 0.5) | (q > 0.5)).sum()
    for j, (score, k, p) in enumerate(found):
        factors = [
            math.exp(-2 * float(ious[i, j]) ** 2) / math.exp(-2 * float(ious[:, i].max()) ** 2) for i in range(j)
        ]
        decayed.append((score * min([1.0, *factors]), k, p))
    decayed = [each for each in sorted(decayed, key=lambda each: -each[0]) if each[0] >= 0.05]
    return decayed[:most]


@pytest.mark.parametrize("seed", [0, 1])
def test_normal_inference_equals_a_slow_reference(seed: int) -> None:
    outputs = noise(seed)
    expected = slow_inference(outputs, most=60)
    found = find_instances(outputs, FRAME, LEVELS, InferenceSettings(most=60))
    assert len(found) == len(expected) == 60
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _, _ in expected]), rtol=1e-3, atol=1e-5)
    assert found.labels.tolist() == [label for _, label, _ in expected]
    for mask, (_, _, p) in zip(found.masks, expected, strict=True):
        large = F.interpolate(p[None, None], scale_factor=4, mode="bilinear")[0, 0]
        assert int((mask != (large > 0.5)).sum()) <= 2  # pixels at 0.5 to the last bit


def test_what_is_drawn_by_hand_is_found_exactly(scene: Target, hand_set: Callable[..., Outputs]) -> None:
    outputs = hand_set(scene, LEVELS, CANVAS, 4, 3)
    everything = find_instances(outputs, FRAME, LEVELS)
    found = everything.select(everything.scores > 0.5)
    order = [int((found.masks == mask).flatten(1).all(1).nonzero()[0, 0]) for mask in scene.masks]
    assert sorted(order) == [0, 1, 2] == list(range(len(found)))
    assert torch.equal(found.labels[order], scene.labels)
    assert torch.equal(found.boxes[order], scene.boxes)
    assert bool((found.scores > 0.99).all())
    # An object's other cells make the same mask, and matrix NMS leaves them exp(-2) of their score.
    assert everything.scores[3:].tolist() == pytest.approx([math.exp(-2)] * (len(everything) - 3), rel=1e-2)


def test_greedy_suppression_leaves_one_mask_of_each_object(scene: Target, hand_set: Callable[..., Outputs]) -> None:
    outputs = hand_set(scene, LEVELS, CANVAS, 4, 3)
    found = find_instances(outputs, FRAME, LEVELS, InferenceSettings(suppress=greedy_nms))
    assert len(found) == 3
    assert bool((found.scores > 0.99).all())


def test_only_classes_known_to_be_present_are_found(scene: Target, hand_set: Callable[..., Outputs]) -> None:
    outputs = hand_set(scene, LEVELS, CANVAS, 4, 3)
    assert set(find_instances(outputs, FRAME, LEVELS, present=[1]).labels.tolist()) == {1}
    assert len(find_instances(outputs, FRAME, LEVELS, present=[2])) == 0
    everything, all_present = (find_instances(outputs, FRAME, LEVELS, present=each) for each in (None, [0, 1, 2]))
    assert torch.equal(everything.masks, all_present.masks)


def test_nothing_confident_gives_nothing() -> None:
    outputs = noise(0)
    levels = tuple(LevelOutput(torch.full_like(each.category, -5), each.kernels) for each in outputs.levels)
    found = find_instances(Outputs(levels, outputs.mask_features), FRAME, LEVELS)
    assert len(found) == 0
    assert found.masks.shape == (0, *CANVAS)
    assert found.boxes.shape == (0, 4)


def test_a_mask_of_no_more_cells_than_its_levels_stride_is_dropped() -> None:
    """8 cells on the first level are too few, 9 are enough."""
    for area, count in ((8, 0), (9, 1)):
        features = torch.ones(1, 2, 32, 40)
        features[0, 0] = 0
        features[0, 0].view(-1)[:area] = 1
        category, kernels = torch.full((1, 1, 16, 16), -20.0), torch.zeros(1, 2, 16, 16)
        category[0, 0, 3, 3] = 5
        kernels[0, :, 3, 3] = torch.tensor([40.0, -20])
        nothing = LevelOutput(torch.full((1, 1, 8, 8), -20.0), torch.zeros(1, 2, 8, 8))
        outputs = Outputs((LevelOutput(category, kernels), nothing), features)
        assert len(find_instances(outputs, FRAME, LEVELS)) == count


def test_a_cell_may_hold_objects_of_two_classes() -> None:
    features = torch.ones(1, 1, 32, 40)
    category, kernels = torch.full((1, 2, 16, 16), -20.0), torch.full((1, 1, 16, 16), 3.0)
    category[0, :, 3, 3] = torch.tensor([2.0, 1.0])
    nothing = LevelOutput(torch.full((1, 2, 8, 8), -20.0), torch.zeros(1, 1, 8, 8))
    found = find_instances(Outputs((LevelOutput(category, kernels), nothing), features), FRAME, LEVELS)
    assert found.labels.tolist() == [0, 1]


def test_known_objects_get_the_masks_of_all_their_cells(scene: Target, hand_set: Callable[..., Outputs]) -> None:
    outputs = hand_set(scene, LEVELS, CANVAS, 4, 3)
    unsure = tuple(LevelOutput(torch.full_like(each.category, -20), each.kernels) for each in outputs.levels)
    targets = assign(scene, LEVELS, 0.2, CANVAS, 4)
    assert sum(len(level.cells) for level in targets.levels) > 3
    found = masks_of_objects(Outputs(unsure, outputs.mask_features), FRAME, LEVELS, targets)
    assert len(found) == 3  # the cells of one object have one mask
    for mask, label in zip(scene.masks, scene.labels, strict=True):
        same = (found.masks == mask).flatten(1).all(1)
        assert found.labels[same].tolist() == [int(label)]
    assert bool((found.scores > 0.99).all())
    assert len(masks_of_objects(Outputs(unsure, outputs.mask_features), FRAME, LEVELS, targets, most=2)) == 2


def test_known_objects_are_looked_for_on_their_own_levels(target: Callable[..., Target]) -> None:
    outputs = noise(0)
    masks = torch.zeros(1, *CANVAS, dtype=torch.bool)
    masks[0, 10:50, 10:50] = True
    targets = assign(target(masks, [2]), LEVELS, 0.0, CANVAS, 4)
    found = masks_of_objects(outputs, FRAME, LEVELS, targets)
    kernel = outputs.levels[1].kernels[0, :, 29 * 8 // 128, 29 * 8 // 160]
    p = torch.einsum("e,ehw->hw", kernel, outputs.mask_features[0]).sigmoid()
    assert found.labels.tolist() == [2]
    assert float(found.scores[0]) == pytest.approx(float(p[p > 0.5].mean()), rel=1e-5)


def test_masks_are_at_the_size_of_the_original(micro_network: SOLOv2) -> None:
    outputs = micro_network(torch.randn(1, 3, 64, 64))
    settings = InferenceSettings(least_category=0.0, least_score=0.0)
    found = find_instances(outputs, Frame((90, 77), (60, 51), (64, 64)), micro_network.config.levels, settings)
    assert len(found) > 0
    assert found.masks.shape[1:] == (90, 77)
