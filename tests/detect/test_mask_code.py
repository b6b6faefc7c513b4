from __future__ import annotations

import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from vtk_cli.detect.mask_code import (
    above_half,
    above_midrange,
    crop_masks,
    dct_matrix,
    decode_masks,
    encode_masks,
    paste_masks,
    zigzag,
)


def disk(side: int = 128, radius: float = 0.45) -> Tensor:
    """(1, side, side): a filled circle around the middle, its radius in parts of the side."""
    at = (torch.arange(side) + 0.5) / side - 0.5
    return (at[:, None] ** 2 + at**2 < radius**2)[None]


def iou(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_the_transform_is_orthonormal() -> None:
    matrix = dct_matrix(128)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(128, dtype=torch.float64), atol=1e-12, rtol=0)


def test_all_coefficients_of_a_mask_are_scipys() -> None:
    masks = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    rows, columns = zigzag(8, 64)
    codes = encode_masks(masks.double(), 64)
    for mask, code in zip(masks, codes, strict=True):
        expected = dctn(mask.double().numpy(), type=2, norm="ortho")
        torch.testing.assert_close(code, torch.from_numpy(expected)[rows, columns], atol=1e-12, rtol=0)


def test_the_code_of_a_full_mask_is_its_side() -> None:
    code = encode_masks(torch.ones(1, 128, 128), 256)[0]
    assert float(code[0]) == pytest.approx(128)
    torch.testing.assert_close(code[1:], torch.zeros(255), atol=1e-4, rtol=0)


def test_the_zigzag_begins_as_jpegs() -> None:
    rows, columns = zigzag(128, 256)
    assert (rows * 128 + columns)[:12].tolist() == [0, 1, 128, 256, 129, 2, 3, 130, 257, 384, 512, 385]
    assert (int(rows.max()), int(columns.max())) == (22, 21)


def test_the_whole_zigzag_visits_every_cell_once_and_each_beside_the_last() -> None:
    rows, columns = zigzag(7, 49)
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == 49
    assert int(torch.maximum(rows.diff().abs(), columns.diff().abs()).max()) == 1
    assert (int(rows[-1]), int(columns[-1])) == (6, 6)


def test_a_code_of_full_length_is_the_mask() -> None:
    masks = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(decode_masks(encode_masks(masks, 64), 8), masks, atol=1e-12, rtol=0)


def test_a_disk_survives_its_code() -> None:
    decoded = decode_masks(encode_masks(disk(), 256))
    assert iou(above_half(decoded), disk()) > 0.98
    assert iou(above_midrange(decoded), disk()) > 0.98


def test_a_shorter_code_never_holds_more_energy() -> None:
    """Parseval: the energy of the code is that of what it decodes to, at most that of the mask."""
    energy = float(disk().sum())
    before = 0.0
    for length in (1, 16, 64, 256, 1024):
        code = encode_masks(disk().double(), length)
        assert float(code.square().sum()) == pytest.approx(float(decode_masks(code).square().sum()))
        assert before < float(code.square().sum()) <= energy
        before = float(code.square().sum())


def test_a_mask_that_fills_its_box_is_lost_above_the_midrange_alone() -> None:
    code = torch.zeros(1, 256)
    code[0, 0] = 128
    assert bool(above_half(decode_masks(code)).all())
    assert not bool(above_midrange(decode_masks(code)).any())


def test_a_crop_at_cells_of_whole_pixels_is_the_mask() -> None:
    mask = torch.rand(1, 20, 24, generator=torch.Generator().manual_seed(2)) > 0.5
    crop = crop_masks(mask, torch.tensor([[4.0, 6.0, 12.0, 14.0]]), 16)
    inside = mask[:, 6:14, 4:12]
    # A cell's centre is a quarter from its pixel's: (3/4)^2 of it is that pixel's, so that pixel alone decides.
    assert torch.equal(crop, inside.repeat_interleave(2, 1).repeat_interleave(2, 2))


def test_each_mask_is_cropped_by_its_own_box_however_many_there_are() -> None:
    masks, boxes = torch.zeros(37, 16, 40, dtype=torch.bool), torch.zeros(37, 4)
    for number in range(37):
        masks[number, 4:12, number : number + 2] = True
        boxes[number] = torch.tensor([number, 4, number + 2, 12])
    assert bool(crop_masks(masks, boxes, 8).all())
    assert crop_masks(masks[:0], boxes[:0], 8).shape == (0, 8, 8)
    assert encode_masks(masks[:0, :8, :8], 9).shape == (0, 9)


def test_a_full_crop_covers_the_pixels_whose_centre_is_in_the_box() -> None:
    boxes = torch.tensor([[3.0, 2.0, 9.0, 5.0], [3.2, 1.8, 8.4, 5.3], [-5.0, 4.0, 2.0, 90.0], [20.0, 1.0, 30.0, 4.0]])
    pasted = paste_masks(torch.ones(4, 128, 128, dtype=torch.bool), boxes, (10, 12))
    y, x = torch.arange(10)[:, None] + 0.5, torch.arange(12) + 0.5
    for mask, (left, top, right, bottom) in zip(pasted, boxes.tolist(), strict=True):
        assert torch.equal(mask, (x >= left) & (x <= right) & (y >= top) & (y <= bottom))


def test_masks_are_pasted_as_by_sampling_the_whole_image() -> None:
    """The slow way: every pixel of the image reads its place in the crop, 0 outside."""
    generator = torch.Generator().manual_seed(3)
    crops = torch.rand(6, 16, 16, generator=generator) > 0.4
    corner = torch.rand(6, 2, generator=generator) * 30 - 8
    boxes = torch.cat((corner, corner + torch.rand(6, 2, generator=generator) * 25 + 0.3), 1)
    pasted = paste_masks(crops, boxes, (33, 29))
    y, x = torch.arange(33.0) + 0.5, torch.arange(29.0) + 0.5
    for mask, crop, (left, top, right, bottom) in zip(pasted, crops, boxes, strict=True):
        ys, xs = (y - top) / (bottom - top) * 2 - 1, (x - left) / (right - left) * 2 - 1
        grid = torch.stack(torch.broadcast_tensors(xs, ys[:, None]), -1)[None]
        sampled = torch.nn.functional.grid_sample(crop[None, None].float(), grid, align_corners=False)
        assert torch.equal(mask, sampled[0, 0] >= 0.5)


@pytest.mark.parametrize("box", [[5.0, 5.0, 5.0, 9.0], [float("nan")] * 4, [9.0, 2.0, 3.0, 8.0]])
def test_a_box_of_no_area_has_no_pixels(box: list[float]) -> None:
    assert not bool(paste_masks(disk(), torch.tensor([box]), (12, 12)).any())


def test_a_mask_comes_back_where_it_was() -> None:
    mask = disk(90, 0.3)
    box = torch.tensor([[18.0, 18.0, 72.0, 72.0]])
    back = paste_masks(above_half(decode_masks(encode_masks(crop_masks(mask, box), 256))), box, (90, 90))
    assert iou(back, mask) > 0.97
