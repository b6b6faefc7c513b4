from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.train.sub import choose_sub, kept_count
from vtk_cli.train.sub.beit import KeptBeitPatches
from vtk_cli.train.sub.mask_token import MaskToken
from vtk_cli.train.sub.pixels import MaskedBlocks
from vtk_cli.train.sub.tokens import KeptPatches, KeptTokens


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("vit_tiny_patch16_224", {"depth": 1, "img_size": 64}, KeptPatches),
        ("deit3_small_patch16_224", {"depth": 1, "img_size": 64}, KeptPatches),
        ("deit_tiny_distilled_patch16_224", {"depth": 1, "img_size": 64}, KeptPatches),
        ("vit_tiny_patch16_224", {"depth": 1, "img_size": 64, "dynamic_img_size": True}, KeptTokens),
        ("vit_tiny_patch16_224", {"depth": 1, "img_size": 70}, KeptPatches),
        ("vit_tiny_r_s16_p8_224", {"depth": 1, "img_size": 64}, KeptTokens),
        ("eva02_tiny_patch14_224", {"depth": 1, "img_size": 56}, KeptTokens),
        ("beit_base_patch16_224", {"depth": 1, "img_size": 64}, KeptBeitPatches),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 4, "depths": (1, 1)}, MaskToken),
        ("cait_xxs24_224", {"depth": 1, "img_size": 64}, MaskedBlocks),
        ("convnext_atto", {"depths": (1, 1, 1, 1)}, MaskedBlocks),
        ("resnet10t", {}, MaskedBlocks),
    ],
)
def test_each_network_gets_the_way_that_suits_it(name: str, arguments: dict[str, Any], expected: type) -> None:
    network = timm.create_model(name, num_classes=2, **arguments)
    sub = choose_sub(network, "mask", "auto", 0.5, arguments.get("img_size", 64), console=Console())
    assert type(sub) is expected


def test_a_torchvision_network_is_masked_in_its_pixels() -> None:
    network = torchvision.models.resnet18(weights=None)
    assert isinstance(choose_sub(network, "mask", "auto", 0.5, 64, console=Console()), MaskedBlocks)


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224"])
def test_taking_tokens_out_of_other_networks_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--sub-mask-kind token: tokens cannot be taken out of a"):
        choose_sub(timm.create_model(name), "mask", "token", 0.5, 224, console=Console())


def test_pixels_of_a_transformer_are_masked_on_demand() -> None:
    network = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=64)
    assert isinstance(choose_sub(network, "mask", "pixel", 0.5, 64, console=Console()), MaskedBlocks)


def test_a_ratio_that_would_leave_nothing_is_warned_of_and_one_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    network = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=64)
    choose_sub(network, "mask", "auto", 0.9, 64, console=Console())
    assert not capsys.readouterr().err
    sub = choose_sub(network, "mask", "auto", 0.95, 64, console=Console())
    assert "would leave none of the 16 patches of an image; 1 is kept" in " ".join(capsys.readouterr().err.split())
    assert sub.parts == 16


@pytest.mark.parametrize(
    ("name", "arguments", "side", "tokens"),
    [
        ("vit_tiny_patch16_224", {"img_size": 70}, 70, 16),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, 96, 36),
        ("vit_tiny_r_s16_p8_224", {"img_size": 64}, 64, 4),
        ("eva02_tiny_patch14_224", {"img_size": 56}, 56, 16),
        ("beit_base_patch16_224", {"img_size": 64}, 64, 16),
    ],
)
def test_as_many_tokens_are_drawn_among_as_the_blocks_see(
    name: str, arguments: dict[str, Any], side: int, tokens: int
) -> None:
    network = timm.create_model(name, depth=1, num_classes=2, **arguments)
    sub = choose_sub(network, "mask", "auto", 0.5, side, console=Console())
    entered: list[int] = []
    network.blocks[0].norm1.register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].shape[1]))
    images = torch.zeros(1, 3, side, side)
    network(images)
    sub.logits(network, images, sub.draw(1, 0, 0, torch.device("cpu")))
    assert sub.parts == tokens
    assert entered == [network.num_prefix_tokens + tokens, network.num_prefix_tokens + kept_count(tokens, 0.5)]


@pytest.mark.parametrize("ratio", [-0.1, 1.0])
def test_a_ratio_out_of_range_is_refused(ratio: float) -> None:
    with pytest.raises(UserError, match="sub-ratio must be >= 0 and < 1"):
        choose_sub(timm.create_model("resnet10t"), "mask", "auto", ratio, 64, console=Console())
