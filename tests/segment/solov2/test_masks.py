from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vtk_cli.segment.solov2 import masks as module
from vtk_cli.segment.solov2.masks import binary_masks, image_masks, mask_logits, measure, pairwise_iou
from vtk_cli.segment.solov2.predictions import Frame, Instances, tight_boxes


def noise(n: int, E: int = 6, H: int = 9, W: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, E, generator=generator), torch.randn(E, H, W, generator=generator)


def test_masks_are_1x1_convolutions() -> None:
    kernels, features = noise(700, 256, 10, 13)
    found = mask_logits(kernels, features)
    torch.testing.assert_close(found, F.conv2d(features[None], kernels[..., None, None])[0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found, torch.einsum("ne,ehw->nhw", kernels, features), atol=1e-4, rtol=1e-5)
    double = mask_logits(kernels.double(), features.double())
    torch.testing.assert_close(
        double, torch.einsum("ne,ehw->nhw", kernels.double(), features.double()), atol=1e-12, rtol=0
    )


def test_measures_equal_a_loop_over_more_than_a_chunk() -> None:
    kernels, features = noise(module.CHUNK + 30)
    rows, columns = torch.arange(len(kernels)) % 9, torch.arange(len(kernels)) % 11
    found = measure(kernels, features, (rows, columns))
    for index in range(0, len(kernels), 7):
        p = torch.einsum("e,ehw->hw", kernels[index], features).sigmoid()
        inside = p > 0.5
        assert found.areas[index] == inside.sum()
        expected = float(p[inside].mean()) if inside.any() else 0.0
        assert float(found.maskness[index]) == pytest.approx(expected, rel=1e-5)
        r, c = int(rows[index]), int(columns[index])
        assert bool(found.covers[index]) == bool(inside[max(0, r - 1) : r + 2, max(0, c - 1) : c + 2].any())
        assert torch.equal(binary_masks(kernels[index : index + 1], features)[0], inside)


def test_an_empty_mask_has_no_maskness_and_covers_nothing() -> None:
    found = measure(-torch.ones(2, 3), torch.ones(3, 4, 4), (torch.tensor([1, 2]), torch.tensor([1, 2])))
    assert found.areas.tolist() == found.maskness.tolist() == [0, 0]
    assert found.covers.tolist() == [False, False]


def test_image_masks_equal_the_three_steps_for_one_mask_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, features = noise(5, 6, 16, 24)
    frame = Frame(original=(123, 187), resized=(61, 93), padded=(64, 96))
    expected = []
    for kernel in kernels:
        p = torch.einsum("e,ehw->hw", kernel, features).sigmoid()[None, None]
        p = F.interpolate(p, scale_factor=4, mode="bilinear")[..., :61, :93]
        expected.append(F.interpolate(p, size=(123, 187), mode="bilinear")[0, 0] > 0.5)
    assert torch.equal(image_masks(kernels, features, frame), torch.stack(expected))
    monkeypatch.setattr(module, "PIXELS", 123 * 187 * 2)  # two at a time
    assert torch.equal(image_masks(kernels, features, frame), torch.stack(expected))


def test_a_small_image_on_a_large_canvas_is_not_stretched() -> None:
    """33 pixels padded to 64: the left half of the features is the left half of the canvas."""
    features = torch.cat([torch.ones(1, 16, 8), -torch.ones(1, 16, 8)], 2)
    mask = image_masks(torch.full((1, 1), 20.0), features, Frame((33, 64), (33, 64), (64, 64)))[0]
    assert mask.shape == (33, 64)
    assert bool(mask[:, :32].all())
    assert not mask[:, 32:].any()


def test_iou_equals_sets() -> None:
    masks = torch.rand(6, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.4
    for i in range(6):
        for j in range(6):
            a, b = masks[i], masks[j]
            assert float(pairwise_iou(masks)[i, j]) == pytest.approx(float((a & b).sum() / (a | b).sum()))


def test_boxes_are_tight_and_hold_their_last_pixel() -> None:
    masks = torch.zeros(3, 10, 12, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[2, 9, 11] = True
    assert tight_boxes(masks).tolist() == [[3, 2, 9, 5], [0, 0, 0, 0], [11, 9, 12, 10]]
    assert tight_boxes(masks[:0]).shape == (0, 4)


def test_certain_instances_differ_in_their_scores_alone() -> None:
    masks = torch.ones(2, 3, 3, dtype=torch.bool)
    found = Instances.of_masks(torch.tensor([0.3, 0.1]), torch.tensor([1, 0]), masks)
    certain = found.certain()
    assert certain.scores.tolist() == [1, 1]
    assert certain.masks is found.masks
    assert len(found.select(torch.tensor([True, False]))) == 1
