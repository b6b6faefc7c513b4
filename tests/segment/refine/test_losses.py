from __future__ import annotations

import torch

from vtk_cli.segment.refine.losses import column_dice_loss, soft_dice_loss


def slow_dice(logits: torch.Tensor, targets: torch.Tensor, columns: list[slice]) -> float:
    shares = logits.double().softmax(1)
    losses = []
    for of_class in (0, 1):
        truth = (targets if of_class else ~targets).double()
        for column in columns:
            p, t = shares[:, of_class, :, column], truth[:, :, column]
            losses.append(1 - 2 * float((p * t).sum()) / (float((p + t).sum()) + 1e-7))
    return sum(losses) / len(losses)


def test_dice_equals_its_formula_over_the_batch_and_over_columns() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 2, 5, 7), torch.rand(3, 5, 7) > 0.6
    assert abs(float(soft_dice_loss(logits, targets)) - slow_dice(logits, targets, [slice(None)])) < 1e-6
    by_column = [slice(column, column + 1) for column in range(7)]
    assert abs(float(column_dice_loss(logits, targets)) - slow_dice(logits, targets, by_column)) < 1e-6


def test_dice_is_0_where_the_masks_agree_and_1_where_they_are_opposite() -> None:
    targets = torch.rand(2, 6, 6) > 0.5
    logits = torch.stack([~targets, targets], 1) * 40.0
    assert float(soft_dice_loss(logits, targets)) < 1e-6
    assert float(soft_dice_loss(-logits + 40, targets)) > 1 - 1e-6


def test_dice_of_half_certain_logits_on_half_a_mask_is_a_half() -> None:
    targets = torch.zeros(1, 4, 4, dtype=torch.bool)
    targets[:, :2] = True
    assert abs(float(soft_dice_loss(torch.zeros(1, 2, 4, 4), targets)) - 0.5) < 1e-6


def test_the_gradient_is_finite_where_there_is_no_object_and_in_half_precision() -> None:
    logits = torch.zeros(1, 2, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    for loss in (soft_dice_loss, column_dice_loss):
        value = loss(logits, torch.zeros(1, 4, 4, dtype=torch.bool))
        value.backward()
        assert value.dtype == torch.float32
        assert bool(logits.grad.isfinite().all())
