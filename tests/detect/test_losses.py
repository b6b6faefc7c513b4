from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vtk_cli.detect.losses import (
    box_losses,
    class_error,
    code_loss,
    focal_class_loss,
    iou_aware_loss,
    softmax_class_loss,
)
from vtk_cli.detect.matcher import Matches, Objects

ONE = torch.tensor(1.0)


def objects(labels: list[int], boxes: Tensor, counts: tuple[int, ...]) -> Objects:
    images = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Objects(torch.tensor(labels).long(), boxes, images, counts)


def matched(queries: list[list[int]], of: Objects) -> Matches:
    """On each level object i by query queries[level][i]."""
    chosen = torch.tensor(queries).long()
    everyone = torch.arange(chosen.shape[1]).expand_as(chosen)
    return Matches(of.images[everyone], chosen, everyone)


def from_corners(x1: float, y1: float, x2: float, y2: float) -> Tensor:
    return torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])


def test_the_focal_loss_of_even_chances_is_the_closed_form() -> None:
    """A negative element 0.75 / 4 ln 2, a positive one 0.25 / 4 ln 2; 100 queries, 91 classes, one object."""
    one = objects([3], torch.rand(1, 4), (1,))
    loss = focal_class_loss(torch.zeros(1, 1, 100, 91), one, matched([[17]], one), ONE)
    assert 0.75 / 4 * math.log(2) == pytest.approx(0.129965, abs=1e-6)
    assert float(loss[0]) == pytest.approx(9099 * 0.75 / 4 * math.log(2) + 0.25 / 4 * math.log(2), rel=1e-5)


def test_each_level_and_image_has_its_own_positive() -> None:
    two = objects([0, 2], torch.rand(2, 4), (1, 1))
    logits = torch.full((2, 2, 3, 4), -20.0)
    logits[0, 0, 1, 0], logits[0, 1, 2, 2] = 20.0, 20.0
    logits[1, 0, 0, 0], logits[1, 1, 0, 2] = 20.0, 20.0
    right = focal_class_loss(logits, two, matched([[1, 2], [0, 0]], two), ONE)
    swapped = focal_class_loss(logits, two, matched([[0, 0], [1, 2]], two), ONE)
    torch.testing.assert_close(right, torch.zeros(2), atol=1e-6, rtol=0)
    assert bool((swapped > 10).all())


def test_iou_and_giou_of_overlapping_squares_are_the_closed_form() -> None:
    one = objects([0], from_corners(1, 1, 3, 3)[None], (1,))
    predicted = from_corners(0, 0, 2, 2).expand(1, 1, 1, 4)
    losses = box_losses(predicted, one, matched([[0]], one), ONE)
    assert float(losses.iou) == pytest.approx(1 / 7)
    assert float(losses.giou) == pytest.approx(1 - (1 / 7 - 2 / 9))
    assert float(losses.l1) == pytest.approx(2)


def test_box_losses_are_sums_over_the_boxes() -> None:
    wanted = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.1, 0.2], [0.7, 0.7, 0.2, 0.1]])
    three = objects([0, 0, 0], wanted, (2, 1))
    predicted = torch.rand(2, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.3 + 0.2
    matches = matched([[3, 1, 2], [0, 2, 1]], three)
    losses = box_losses(predicted, three, matches, torch.tensor(6.0))
    for level, queries in enumerate([[3, 1, 2], [0, 2, 1]]):
        found = torch.stack([predicted[level, image, query] for image, query in zip([0, 0, 1], queries, strict=True)])
        assert float(losses.l1[level]) == pytest.approx(float((found - wanted).abs().sum()) / 6)
        single = []
        for index in range(3):
            alone = objects([0], wanted[index][None], (1,))
            single.append(box_losses(found[index].expand(1, 1, 1, 4), alone, matched([[0]], alone), ONE))
        assert float(losses.giou[level]) == pytest.approx(sum(float(each.giou) for each in single) / 6)
        torch.testing.assert_close(losses.iou[level], torch.stack([each.iou[0, 0] for each in single]))


def test_without_objects_boxes_cost_nothing_and_the_gradient_is_zero() -> None:
    none = objects([], torch.zeros(0, 4), (0, 0))
    boxes = torch.rand(2, 2, 5, 4, requires_grad=True)
    logits, vectors = torch.randn(2, 2, 5, 3, requires_grad=True), torch.randn(2, 2, 5, 8, requires_grad=True)
    matches = matched([[], []], none)
    losses = box_losses(boxes, none, matches, ONE)
    codes = code_loss(vectors, torch.zeros(0, 8), matches, torch.tensor(0.0))
    for zero in (losses.l1, losses.giou, codes):
        assert zero.tolist() == [0, 0]
    (losses.l1 + losses.giou + codes).sum().backward()
    assert boxes.grad is not None
    assert vectors.grad is not None
    assert not bool(boxes.grad.any() | vectors.grad.any())
    assert bool(focal_class_loss(logits, none, matches, ONE).isfinite().all())
    assert class_error(logits, none, matches).tolist() == [0, 0]


def test_the_gradient_of_the_iou_that_is_predicted_is_minus_its_logit() -> None:
    one = objects([0], torch.rand(1, 4), (1,))
    logit = torch.tensor([[[1.7]]], requires_grad=True)
    iou = torch.tensor([[0.4]], requires_grad=True)
    loss = iou_aware_loss(logit, iou, matched([[0]], one), torch.tensor(2.0))
    loss.sum().backward()
    p = 1 / (1 + math.exp(-1.7))
    assert float(loss.detach()) == pytest.approx(-(0.4 * math.log(p) + 0.6 * math.log(1 - p)) / 2)
    assert logit.grad is not None
    assert iou.grad is not None
    assert float(logit.grad) == pytest.approx((p - 0.4) / 2)
    assert float(iou.grad) == pytest.approx(-1.7 / 2)


def test_the_code_loss_is_three_times_the_mean_over_matches_and_coefficients() -> None:
    two = objects([0, 0], torch.rand(2, 4), (2,))
    vectors = torch.zeros(1, 1, 3, 4)
    vectors[0, 0, 2], vectors[0, 0, 0] = 1.0, 2.0
    codes = torch.tensor([[0.0, 0, 0, 0], [2.0, 2, 2, 6]])
    loss = code_loss(vectors, codes, matched([[2, 0]], two), torch.tensor(2.0))
    assert loss.tolist() == [3 * (4 * 1 + 4) / 8]


def test_no_object_weighs_a_tenth_in_the_softmax_loss() -> None:
    one = objects([1], torch.rand(1, 4), (1,))
    logits = torch.zeros(1, 1, 4, 3)
    logits[0, 0, 2] = torch.tensor([0.0, 3.0, 0.0])
    first = -math.log(math.exp(3) / (math.exp(3) + 2))
    expected = (first + 3 * 0.1 * math.log(3)) / (1 + 3 * 0.1)
    loss = softmax_class_loss(logits, one, matched([[2]], one), ONE)
    assert loss.tolist() == pytest.approx([expected])


def test_the_class_error_is_the_share_of_wrong_matches() -> None:
    two = objects([1, 0], torch.rand(2, 4), (2,))
    logits = torch.zeros(1, 1, 3, 2)
    logits[0, 0, 0, 1], logits[0, 0, 1, 1] = 5.0, 5.0
    assert class_error(logits, two, matched([[0, 1]], two)).tolist() == [0.5]
