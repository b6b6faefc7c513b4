from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vtk_cli.segment.refine.configurations import RESNET101
from vtk_cli.segment.refine.crops import Window, click_heat, crop_window, refine_input


def mask_of(left: int, top: int, right: int, bottom: int, width: int = 100, height: int = 80) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_crop_at_scale_1_is_the_tight_box_and_at_2_twice_as_large_about_its_centre() -> None:
    mask = mask_of(30, 20, 50, 30)
    assert crop_window(mask, (40, 25), 1.0) == Window(30, 20, 50, 30)
    assert crop_window(mask, (40, 25), 2.0) == Window(20, 15, 60, 35)


def test_the_crop_is_clipped_to_the_image_and_includes_its_last_pixels() -> None:
    assert crop_window(mask_of(90, 70, 100, 80), (95, 75), 2.0) == Window(85, 65, 100, 80)


def test_a_side_the_click_lies_beyond_goes_half_the_scaled_box_beyond_the_click() -> None:
    mask = mask_of(30, 20, 50, 30)
    assert crop_window(mask, (10, 25), 1.0) == Window(0, 20, 50, 30)
    assert crop_window(mask, (75, 25), 1.0) == Window(30, 20, 86, 30)  # 75 + 10, to the edge at 85.5
    assert crop_window(mask, (40, 40), 2.0) == Window(20, 15, 60, 51)


def test_a_line_of_one_pixel_gets_a_crop_of_two() -> None:
    assert crop_window(mask_of(7, 0, 8, 1), (7, 0), 1.0).size == (2, 2)
    assert crop_window(mask_of(0, 3, 1, 4, width=1, height=9), (0, 3), 1.0).size == (2, 1)


def test_an_empty_mask_cannot_be_cropped() -> None:
    with pytest.raises(ValueError, match="empty"):
        crop_window(mask_of(0, 0, 0, 0), (1, 1), 2.0)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_crop_lies_in_the_image_and_holds_the_mask_and_the_click(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(2, 60)), data.draw(st.integers(2, 60))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    click = (data.draw(st.floats(0, width - 1)), data.draw(st.floats(0, height - 1)))
    window = crop_window(mask_of(left, top, right, bottom, width, height), click, data.draw(st.floats(1, 3)))
    assert 0 <= window.left <= min(left, click[0] + 0.5)
    assert 0 <= window.top <= min(top, click[1] + 0.5)
    assert width >= window.right >= max(right, click[0] + 0.5)
    assert height >= window.bottom >= max(bottom, click[1] + 0.5)
    assert min(window.size) >= 2


def test_a_point_of_the_image_keeps_its_place_in_the_crop() -> None:
    window = Window(10, 20, 42, 36)
    assert window.to_crop(10, 20, 16) == (-0.25, 0.0)
    left, top = window.to_crop(9.5, 19.5, 256)
    right, bottom = window.to_crop(41.5, 35.5, 256)
    assert (left, top, right, bottom) == (-0.5, -0.5, 255.5, 255.5)


def test_the_heat_is_1_at_the_click_and_falls_off_to_0_after_19_pixels() -> None:
    heat = click_heat(torch.tensor([[100.2, 60.4]]), torch.tensor([True]), 256, RESNET101.sigma, RESNET101.reach)[0]
    assert heat[60, 100] == 1
    assert heat[60, 106].item() == pytest.approx(math.exp(-0.5), abs=1e-6)
    assert heat[66, 106].item() == pytest.approx(math.exp(-1), abs=1e-6)
    rows, columns = heat.nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (41, 79, 81, 119)
    assert int((heat > 0).sum()) == 39 * 39


def test_heat_of_a_click_at_the_border_is_cut_and_none_is_there_without_a_click() -> None:
    clicks = torch.tensor([[0.0, 255.0], [300.0, -7.0], [9.0, 9.0]])
    heat = click_heat(clicks, torch.tensor([True, True, False]), 256, 6.0, 19)
    assert heat[0, 255, 0] == 1
    assert heat[1, 0, 255] == 1
    assert not heat[2].any()


@pytest.mark.parametrize("label", [0, 2])
def test_the_click_is_in_the_channel_of_its_class_plus_1_alone(label: int) -> None:
    images, heat = torch.randn(1, 3, 8, 8), torch.rand(1, 8, 8)
    rough = torch.rand(1, 8, 8) > 0.5
    whole = refine_input(images, heat, rough, torch.tensor([label]), 3)
    assert whole.shape == (1, 8, 8, 8)
    assert torch.equal(whole[:, :3], images)
    assert torch.equal(whole[:, 3 + label + 1], heat)
    assert torch.equal(whole[:, 7], rough.float())
    others = [channel for channel in range(3, 7) if channel != 3 + label + 1]
    assert not whole[:, others].any()
