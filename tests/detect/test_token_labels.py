from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.detect.predictions import Target
from vtk_cli.detect.token_labels import token_dice, token_focal, token_targets

ONE = torch.tensor(1.0)


def target(labels: list[int], masks: Tensor | None) -> Target:
    n = len(labels)
    crowd = torch.zeros(n, dtype=torch.bool)
    return Target(torch.tensor(labels).long(), torch.rand(n, 4), masks, torch.ones(n), crowd, 5, (9, 9), (9, 9))


def by_one_hot(one: Target, extent: tuple[int, int], shape: tuple[int, int], channels: int, offset: int) -> Tensor:
    """The slow way: a one-hot map of the whole padded image, pixel by pixel, then pooled."""
    assert one.masks is not None
    whole = torch.zeros(channels, *extent)
    for y in range(one.masks.shape[1]):
        for x in range(one.masks.shape[2]):
            for label, mask in zip(one.labels.tolist(), one.masks, strict=True):
                if mask[y, x]:
                    whole[0, y, x] = whole[label + offset, y, x] = 1
                    break
    return F.adaptive_avg_pool2d(whole, shape)


@pytest.mark.parametrize("offset", [0, 1])
def test_targets_are_pooled_maps_of_the_first_object_at_each_pixel(offset: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = [
        target([2, 1, 2], torch.rand(3, 13, 9, generator=generator) > 0.6),
        target([], torch.zeros(0, 10, 17, dtype=torch.bool)),
        target([3] * 20, torch.rand(20, 5, 17, generator=generator) > 0.9),
    ]
    extent, shapes = (13, 17), ((2, 3), (4, 5), (7, 9))
    levels = token_targets(images, extent, shapes, 4 + offset, offset)
    for level, shape in zip(levels, shapes, strict=True):
        expected = torch.stack([by_one_hot(one, extent, shape, 4 + offset, offset) for one in images])
        torch.testing.assert_close(level, expected, atol=1e-6, rtol=0)


def test_the_first_channel_is_any_object() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :4], masks[1, :, 2:] = True, True
    (level,) = token_targets([target([0, 1], masks)], (8, 8), [(1, 2)], 3, 1)
    assert level[0, 0].tolist() == [[1, 1]]
    assert level[0, 1].tolist() == [[1, 0]]
    assert level[0, 2].tolist() == [[0, 1]]


def test_objects_without_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="image 5 has no masks"):
        token_targets([target([1], None)], (8, 8), [(2, 2)], 3, 1)


def test_the_focal_loss_is_a_mean_over_cells_and_a_sum_over_channels_and_images() -> None:
    wanted = torch.zeros(2, 3, 4, 5)
    loss = token_focal(torch.zeros(2, 3, 4, 5), wanted, torch.tensor(2.0))
    assert float(loss) == pytest.approx(2 * 3 * 0.75 / 4 * math.log(2) / 2)


def test_soft_targets_weigh_both_sides_of_the_focal_loss() -> None:
    """At y: alpha_t = 1/4 y + 3/4 (1 - y), the modulation (1 - p_t)^2 with p_t = p y + (1 - p)(1 - y)."""
    p, y = 0.8, 0.3
    logit = torch.full((1, 1, 1, 1), math.log(p / (1 - p)))
    entropy = -(y * math.log(p) + (1 - y) * math.log(1 - p))
    together = p * y + (1 - p) * (1 - y)
    expected = (0.25 * y + 0.75 * (1 - y)) * (1 - together) ** 2 * entropy
    assert float(token_focal(logit, torch.full((1, 1, 1, 1), y), ONE)) == pytest.approx(expected, rel=1e-5)


def test_the_dice_loss_is_over_cells_and_channels_of_each_image() -> None:
    wanted = torch.zeros(2, 2, 2, 3)
    wanted[0, 0] = 1
    loss = token_dice(torch.zeros(2, 2, 2, 3), wanted, ONE)
    first = 1 - (2 * 6 * 0.5 + 1) / (12 * 0.5 + 6 + 1)
    second = 1 - 1 / (12 * 0.5 + 1)
    assert float(loss) == pytest.approx(first + second, rel=1e-5)


def test_the_dice_loss_of_sure_right_cells_is_zero() -> None:
    wanted = (torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert float(token_dice(wanted * 60 - 30, wanted, ONE)) == pytest.approx(0, abs=1e-6)
