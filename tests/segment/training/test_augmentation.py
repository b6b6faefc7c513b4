from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torchvision import tv_tensors

from vtk_cli.data.detection.scenes import Scene
from vtk_cli.segment.solov2.predictions import tight_boxes
from vtk_cli.segment.solov2.targets import mass_centres
from vtk_cli.segment.training.augmentation import DigitsTraining, PaperTraining, Resize


def scene() -> tuple[Scene, Tensor]:
    """An image of 60x80 with two rectangles, whose middles are clicked."""
    masks = torch.zeros(2, 60, 80, dtype=torch.bool)
    masks[0, 10:21, 12:31] = True
    masks[1, 34:49, 50:61] = True
    image = masks.sum(0, keepdim=True).mul(200).clamp(max=255).to(torch.uint8).expand(3, 60, 80)
    whole = Scene(
        tv_tensors.Image(image),
        tv_tensors.BoundingBoxes(tight_boxes(masks), format="XYXY", canvas_size=(60, 80)),
        torch.tensor([0, 1]),
        tv_tensors.Mask(masks),
        torch.ones(2),
        torch.zeros(2, dtype=torch.bool),
        1,
        (60, 80),
    )
    return whole, mass_centres(masks)


def aligned(whole: Scene, clicks: Tensor, tolerance: float) -> None:
    """Pixels, boxes and clicks are where the masks are."""
    assert whole.masks is not None
    masks = whole.masks.as_subclass(Tensor)
    assert (mass_centres(masks) - clicks).abs().max() < tolerance
    assert (whole.boxes.as_subclass(Tensor) - tight_boxes(masks)).abs().max() <= 1.01
    lit = whole.image.as_subclass(Tensor).float().mean(0) > 60
    common = (lit & masks.any(0)).sum() / (lit | masks.any(0)).sum()
    assert common > 0.85


def test_a_resize_keeps_everything_together() -> None:
    whole, clicks = Resize(120)(*scene())
    assert whole.size == (120, 160)
    aligned(whole, clicks, 1.0)


def test_the_published_augmentation_keeps_everything_together() -> None:
    widths = set()
    for seed in range(12):
        torch.manual_seed(seed)
        whole, clicks = PaperTraining(100)(*scene())
        aligned(whole, clicks, 1.0)
        widths.add(min(whole.size))
    assert widths <= {80, 84, 88, 92, 96, 100}
    assert len(widths) > 2


def test_moved_digits_stay_together() -> None:
    moved = 0
    for seed in range(12):
        torch.manual_seed(seed)
        whole, clicks = DigitsTraining(60, scales=(0.8, 1.0), shift=0.05, gains=(1.0, 1.0))(*scene())
        assert len(whole) == 2
        aligned(whole, clicks, 1.0)
        moved += int(abs(float(clicks[0, 0]) - 21) > 1)
    assert moved > 6


def test_digits_that_are_not_moved_stay_as_they_are() -> None:
    before, clicks = scene()
    after, same = DigitsTraining(60, scales=(1.0, 1.0), shift=0.0, gains=(1.0, 1.0))(before, clicks)
    assert torch.equal(after.masks, before.masks)  # type: ignore[arg-type]
    assert torch.equal(after.image, before.image)
    assert torch.allclose(same, clicks)


def test_what_leaves_the_image_is_left_out() -> None:
    whole, clicks = scene()
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        after, left = DigitsTraining(60, scales=(1.3, 1.3), shift=0.6)(whole, clicks)
        assert after.masks is not None
        assert bool(after.masks.flatten(1).any(1).all())
        assert len(left) <= 2
        seen.add(len(after))
    assert len(seen) > 1


def test_an_image_without_objects_is_augmented_too() -> None:
    whole, _ = scene()
    bare = replace(whole, masks=whole.masks).objects(torch.zeros(2, dtype=torch.bool))
    for augment in (Resize(60), PaperTraining(60), DigitsTraining(60)):
        after, clicks = augment(bare, torch.zeros(0, 2))
        assert (len(after), len(clicks)) == (0, 0)
