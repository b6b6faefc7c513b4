from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.train.sub import SubModel, choose_sub
from vtk_cli.train.sub.pixels import MaskedBlocks, default_block

CPU = torch.device("cpu")


def sub_of(ratio: float, **options: Any) -> SubModel:
    return choose_sub(timm.create_model("resnet10t"), "mask", "auto", ratio, 224, console=Console(), **options)


@pytest.mark.parametrize(("ratio", "dropped"), [(0.5, 25), (0.75, 37), (0.0, 0)])
def test_blocks_are_exactly_0_and_the_rest_is_untouched(ratio: float, dropped: int) -> None:
    sub = sub_of(ratio)
    assert isinstance(sub, MaskedBlocks)
    pixels = torch.randn(3, 3, 224, 224)
    masked = sub.masked(pixels, sub.draw(3, 0, 0, CPU))
    blocks = (masked == 0).view(3, 3, 7, 32, 7, 32).permute(0, 2, 4, 1, 3, 5).reshape(3, 49, -1)
    assert blocks.all(dim=2).sum(dim=1).tolist() == [dropped] * 3
    rest = masked != 0
    assert torch.equal(masked[rest], pixels[rest])
    assert not bool((~blocks.all(dim=2) & blocks.any(dim=2)).any())


def test_the_images_themselves_are_not_changed() -> None:
    sub, pixels = sub_of(0.5), torch.randn(2, 3, 224, 224)
    before = pixels.clone()
    sub.masked(pixels, sub.draw(2, 0, 0, CPU))
    assert torch.equal(pixels, before)


def test_the_network_gets_the_masked_images() -> None:
    network = timm.create_model("resnet10t", num_classes=3).eval()
    sub, pixels = sub_of(0.5), torch.randn(2, 3, 224, 224)
    draw = sub.draw(2, 0, 0, CPU)
    assert torch.equal(sub.logits(network, pixels, draw), network(sub.masked(pixels, draw)))


@pytest.mark.parametrize(("side", "block"), [(224, 32), (160, 32), (64, 8), (32, 4), (7, 1)])
def test_the_default_block_is_32_or_an_eighth_of_a_small_image(side: int, block: int) -> None:
    assert default_block(side) == block


@pytest.mark.parametrize(("side", "block"), [(240, 30), (208, 26), (299, 23), (380, 38), (50, 5)])
def test_where_that_does_not_divide_the_image_the_nearest_divisor_is_taken(side: int, block: int) -> None:
    assert default_block(side) == block


def test_a_default_block_holds_whole_tokens() -> None:
    """30 divides 240 too, but is no whole number of patches of 4 pixels."""
    assert default_block(240, tokens=60) == 24
    assert default_block(224, tokens=56) == 32


@pytest.mark.parametrize("side", [159, 211])
def test_an_image_without_a_divisor_of_that_order_has_no_default_block(side: int) -> None:
    with pytest.raises(UserError, match=f"--sub-block: images of {side} x {side} pixels cannot be cut"):
        choose_sub(timm.create_model("resnet10t"), "mask", "auto", 0.5, side, console=Console())


def test_a_block_that_does_not_divide_the_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"--sub-block: images of 224 x 224 pixels cannot be cut into blocks of 50"):
        sub_of(0.5, block=50)
