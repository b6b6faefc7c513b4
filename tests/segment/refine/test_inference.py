from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vtk_cli.data.detection.outlines import outline_of_mask
from vtk_cli.segment.pseudo.labels import PseudoLabel
from vtk_cli.segment.refine.configurations import MICRO, RESNET101
from vtk_cli.segment.refine.crops import Window
from vtk_cli.segment.refine.inference import KEPT_ROUGH, pasted, refine_labels

from ..scenes_with_masks import box_mask, pseudo


def identity(crops: Tensor) -> Tensor:
    """Certain of the rough mask."""
    return torch.stack([10 - 20 * crops[:, -1], 20 * crops[:, -1] - 10], dim=1)


def refined(labels: list[PseudoLabel], network=identity, config=RESNET101, size: tuple[int, int] | None = None):
    height, width = size or (labels[0].mask.height, labels[0].mask.width)
    return list(refine_labels(network, config, 2, torch.zeros(3, height, width), labels))


@pytest.mark.parametrize("side", [2, 7, 31, 64, 85])
def test_a_network_that_returns_the_rough_mask_reproduces_it_exactly_up_to_85_pixels(side: int) -> None:
    mask = np.random.default_rng(side).random((side, side)) < 0.5
    mask[0, 0] = mask[-1, -1] = True
    assert refined([pseudo(1, 1, mask)])[0].iou_rough_refined == 1


def test_larger_crops_lose_little_of_noise_and_next_to_nothing_of_a_disc() -> None:
    rows, columns = np.mgrid[:250, :250]
    noise = np.random.default_rng(0).random((250, 250)) < 0.5
    disc = np.hypot(rows - 125, columns - 125) < 60
    labels = refined([pseudo(1, 1, noise), pseudo(1, 2, disc)])
    assert 0.85 < labels[0].iou_rough_refined < 1
    assert labels[1].iou_rough_refined > 0.99


def test_the_rest_of_a_label_stays_and_their_order_too() -> None:
    masks = [box_mask(40, 60, left, 5, left + 9, 20) for left in range(0, 40, 4)]
    labels = [pseudo(1, number, mask, number % 2, flags=("a",)) for number, mask in enumerate(masks)]
    out = refined(labels, config=MICRO)
    kept = ("image_id", "annotation_id", "label", "point", "level", "score", "maskness", "flags")
    for one, other, mask in zip(labels, out, masks, strict=True):
        assert all(getattr(one, name) == getattr(other, name) for name in kept)
        assert (other.pixels() == mask).all()


def test_an_empty_result_keeps_the_rough_mask_with_a_flag() -> None:
    label = pseudo(1, 1, box_mask(40, 60, 4, 5, 20, 20))
    out = refined([label], network=lambda crops: torch.stack([crops[:, 0] + 9, crops[:, 0]], 1))[0]
    assert out.mask == label.mask
    assert out.flags == (KEPT_ROUGH,)
    assert out.iou_rough_refined == 1


def test_nothing_outside_the_crop_is_ever_object() -> None:
    label = pseudo(1, 1, box_mask(80, 90, 30, 30, 40, 50))
    out = refined([label], network=lambda crops: torch.stack([crops[:, 0], crops[:, 0] + 9], 1))[0]
    assert (out.pixels() == box_mask(80, 90, 25, 20, 45, 60)).all()


def test_the_network_sees_the_crop_the_click_in_its_class_and_the_rough_mask() -> None:
    seen = []

    def network(crops: Tensor) -> Tensor:
        seen.append(crops)
        return identity(crops)

    image = torch.zeros(3, 64, 64)
    image[0, 16:48, 16:48] = 1.0
    label = PseudoLabel(1, 1, 1, (24.0, 31.5), outline_of_mask(box_mask(64, 64, 24, 24, 40, 40)), 0, 1.0, 1.0)
    list(refine_labels(network, RESNET101, 2, image, [label]))
    (crops,) = seen
    assert crops.shape == (1, 3 + 3 + 1, 256, 256)
    assert bool((crops[0, 0] == 1).all())  # the box twice as large is the 32 pixels from 16 on
    assert crops[0, 3:5].abs().sum() == 0
    row, column = divmod(int(crops[0, 5].argmax()), 256)
    assert (row, column) == (128, 68)  # (31.5 - 15.5) * 8 - 0.5 and (24 - 15.5) * 8 - 0.5, to the nearest even
    assert torch.equal(crops[0, 6] > 0, torch.from_numpy(box_mask(256, 256, 64, 64, 192, 192)))


def test_masks_of_an_image_are_refined_in_batches_of_a_bounded_size() -> None:
    sizes = []

    def network(crops: Tensor) -> Tensor:
        sizes.append(len(crops))
        return identity(crops)

    labels = [pseudo(1, number, box_mask(30, 40, number % 30, 3, number % 30 + 6, 12)) for number in range(60)]
    assert len(refined(labels, network, MICRO)) == 60
    assert sizes == [24, 24, 12]


def test_a_pasted_mask_equals_the_likelier_of_two_at_each_pixel() -> None:
    shares = torch.tensor([[[0.4, 0.6], [0.4, 0.6]], [[0.6, 0.4], [0.6, 0.4]]])
    whole = pasted(shares, Window(3, 2, 7, 6), torch.ones(8, 9, dtype=torch.bool))
    assert torch.equal(whole, torch.from_numpy(box_mask(8, 9, 3, 2, 5, 6)))
