from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vtk_cli.segment.solov2.configurations import LevelConfig
from vtk_cli.segment.solov2.losses import dice_losses, focal_loss, solo_losses
from vtk_cli.segment.solov2.predictions import LevelOutput, Outputs, Target
from vtk_cli.segment.solov2.targets import BACKGROUND, ImageTargets, assign, ignore_around, one_mask_a_cell

CANVAS = (64, 64)
LEVELS = (LevelConfig(8, 1, 30, 4), LevelConfig(5, 20, 100, 8))
K, E = 3, 4


@pytest.fixture
def batch(target: Callable[..., Target]) -> list[ImageTargets]:
    """Two images with overlapping objects and one with none."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for count in (4, 2, 0):
        masks = torch.zeros(count, 60, 61, dtype=torch.bool)
        for mask in masks:
            y, x, h, w = (int(each) for each in torch.randint(5, 30, (4,), generator=generator))
            mask[y : y + h, x : x + w] = True
        images.append(assign(target(masks, [index % K for index in range(count)]), LEVELS, 0.5, CANVAS, 4))
    return images


def noise(seed: int = 1, batch: int = 3) -> Outputs:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    levels = tuple(
        LevelOutput(draw(batch, K, each.grid, each.grid), draw(batch, E, each.grid, each.grid)) for each in LEVELS
    )
    return Outputs(levels, draw(batch, E, 16, 16))


def test_dice_of_a_mask_with_itself_is_only_its_epsilon() -> None:
    for n in (1, 10, 500):
        mask = torch.zeros(1, 30, 30, dtype=torch.bool)
        mask.view(-1)[:n] = True
        assert float(dice_losses(mask.double(), mask)) == pytest.approx(0.002 / (2 * n + 0.002), rel=1e-9)


def test_dice_of_disjoint_masks_is_1_and_its_gradient_at_0_is_finite() -> None:
    wanted = torch.zeros(2, 4, 4, dtype=torch.bool)
    wanted[0, :2] = True
    predicted = (~wanted).float() * torch.tensor([1.0, 0.0])[:, None, None]
    predicted.requires_grad_()
    losses = dice_losses(predicted, wanted)
    assert losses.tolist() == [1.0, 1.0]
    losses.sum().backward()
    assert predicted.grad is not None
    assert bool(predicted.grad.isfinite().all())


def test_focal_loss_at_the_start_is_the_closed_form() -> None:
    logits = torch.full((2, 80, 12, 12), math.log(0.01 / 0.99), dtype=torch.float64)
    category = torch.full((2, 12, 12), BACKGROUND)
    negative = 0.75 * 0.01**2 * -math.log(0.99)
    positive = 0.25 * 0.99**2 * -math.log(0.01)
    assert negative == pytest.approx(7.5378e-7, rel=1e-4)
    assert positive == pytest.approx(1.12838, rel=1e-5)
    assert float(focal_loss(logits, category)) == pytest.approx(2 * 144 * 80 * negative, rel=1e-6)
    category[1, 3, 4] = 79
    assert float(focal_loss(logits, category)) == pytest.approx((2 * 144 * 80 - 1) * negative + positive, rel=1e-6)


def test_an_all_negative_batch_is_divided_by_1(target: Callable[..., Target]) -> None:
    empty = assign(target(torch.zeros(0, 60, 60, dtype=torch.bool), []), LEVELS, 0.2, CANVAS, 4)
    outputs = noise(batch=1)
    expected = sum(
        float(focal_loss(level.category.detach(), torch.full((1, each.grid, each.grid), BACKGROUND)))
        for level, each in zip(outputs.levels, LEVELS, strict=True)
    )
    losses = solo_losses(outputs, [empty])
    assert losses.category.item() == pytest.approx(expected, rel=1e-6)
    assert losses.mask.item() == 0
    losses.total.backward()
    for level in outputs.levels:
        assert level.kernels.grad is not None
        assert not level.kernels.grad.any()
    assert outputs.mask_features.grad is not None


@pytest.mark.parametrize("keep", [lambda each: each, one_mask_a_cell], ids=["both masks", "one mask"])
def test_losses_equal_a_slow_reference(batch: list[ImageTargets], keep: Callable[[ImageTargets], ImageTargets]) -> None:
    outputs, targets = noise(), [keep(image) for image in batch]
    dice, focal, positive = [], 0.0, 0
    for b, image in enumerate(targets):
        for level, wanted in zip(outputs.levels, image.levels, strict=True):
            S = level.category.shape[-1]
            for cell, which in zip(wanted.cells.tolist(), wanted.objects.tolist(), strict=True):
                kernel = level.kernels[b, :, cell // S, cell % S]
                p = torch.einsum("e,ehw->hw", kernel, outputs.mask_features[b]).sigmoid()
                g = image.masks[which].float()
                dice.append(1 - 2 * (p * g).sum() / ((p * p).sum() + 1e-3 + (g * g).sum() + 1e-3))
            for row in range(S):
                for column in range(S):
                    right = int(wanted.category[row, column])
                    positive += right >= 0
                    for k in range(K):
                        p = level.category[b, k, row, column].sigmoid().item()
                        focal += -0.25 * (1 - p) ** 2 * math.log(p) if k == right else -0.75 * p**2 * math.log(1 - p)
    losses = solo_losses(outputs, targets)
    assert len(dice) > 10
    assert losses.mask.item() == pytest.approx(3 * torch.stack(dice).mean().item(), rel=1e-5)
    assert losses.category.item() == pytest.approx(focal / (positive + 1), rel=1e-5)
    assert losses.total.item() == pytest.approx(losses.mask.item() + losses.category.item(), rel=1e-6)


def test_the_two_ways_with_shared_cells_differ(batch: list[ImageTargets]) -> None:
    both, one = (solo_losses(noise(), targets) for targets in (batch, [one_mask_a_cell(each) for each in batch]))
    assert both.mask.item() != one.mask.item()
    assert both.category.item() == one.category.item()


def test_ignored_cells_have_no_gradient_and_all_others_keep_theirs(batch: list[ImageTargets]) -> None:
    click = torch.tensor([[40.0, 50.0]])
    ignoring = [ignore_around(batch[0], click, CANVAS), *batch[1:]]
    gradients = []
    for targets in (batch, ignoring):
        outputs = noise()
        solo_losses(outputs, targets).category.backward()
        gradients.append([level.category.grad for level in outputs.levels])
    for plain, without, level in zip(*gradients, ignoring[0].levels, strict=True):
        assert plain is not None
        assert without is not None
        assert level.ignored is not None
        assert bool(level.ignored.any())
        assert not without[0, :, level.ignored].any()
        assert torch.equal(without[0, :, ~level.ignored], plain[0, :, ~level.ignored])
        assert torch.equal(without[1:], plain[1:])


def test_losses_are_in_float32_whatever_the_network_computes_in(batch: list[ImageTargets]) -> None:
    outputs = noise()
    half = Outputs(
        tuple(LevelOutput(level.category.bfloat16(), level.kernels.bfloat16()) for level in outputs.levels),
        outputs.mask_features.bfloat16(),
    )
    with torch.autocast("cpu", torch.bfloat16):
        losses = solo_losses(half, batch)
    again = solo_losses(half.float(), batch)
    assert losses.mask.dtype == losses.category.dtype == torch.float32
    assert (losses.mask.item(), losses.category.item()) == (again.mask.item(), again.category.item())
