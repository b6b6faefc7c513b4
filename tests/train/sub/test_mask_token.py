from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.errors import UserError
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.sub import SubModel, choose_sub
from vtk_cli.train.sub.mask_token import MaskToken, TokenGrid, token_grid

CPU = torch.device("cpu")


def swin() -> Any:
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=224, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=7, num_classes=3
    )


def sub_of(network: Any, image_size: int = 224, **options: Any) -> SubModel:
    return choose_sub(network, "mask", "auto", 0.5, image_size, console=Console(), **options)


def embedded(network: Any) -> list[Tensor]:
    """Filled with what the patch embedding hands on."""
    seen: list[Tensor] = []

    def note(module: Any, inputs: Any, output: Any) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        tokens.retain_grad()
        seen.append(tokens)

    network.patch_embed.register_forward_hook(note)
    return seen


def test_1600_of_swins_3136_tokens_are_the_mask_token_and_the_rest_is_untouched() -> None:
    network = swin()
    sub = sub_of(network)
    assert isinstance(sub, MaskToken)
    seen = embedded(network)
    pixels = torch.randn(2, 3, 224, 224)
    draw = sub.draw(2, 1, 0, CPU)
    assert draw.kept.shape == (2, 24)
    network(pixels)
    sub.logits(network, pixels, draw)
    whole, masked = (tokens.reshape(2, 3136, 8) for tokens in seen)
    replaced = (masked == sub.mask_token).all(dim=2)
    assert replaced.sum(dim=1).tolist() == [1600, 1600]
    assert torch.equal(masked[~replaced], whole[~replaced])
    blocks = replaced.view(2, 7, 8, 7, 8).permute(0, 1, 3, 2, 4).reshape(2, 49, 64)
    assert bool((blocks.all(dim=2) | ~blocks.any(dim=2)).all())
    kept = torch.zeros(2, 49, dtype=torch.bool).scatter(1, draw.kept, value=True)
    assert torch.equal(~blocks.any(dim=2), kept)


def test_the_mask_tokens_gradient_is_the_sum_over_the_masked_tokens() -> None:
    network = swin()
    sub: Any = sub_of(network)
    seen = embedded(network)
    sub.logits(network, torch.randn(2, 3, 224, 224), sub.draw(2, 1, 0, CPU)).square().sum().backward()
    masked = (seen[0] == sub.mask_token).all(dim=-1)
    expected = seen[0].grad[masked].sum(dim=0)
    assert expected.abs().max() > 0
    torch.testing.assert_close(sub.mask_token.grad[0, 0], expected, atol=1e-6, rtol=1e-4)


def test_without_a_draw_the_network_is_as_ever() -> None:
    network, pixels = swin().eval(), torch.randn(1, 3, 224, 224)
    before = network(pixels)
    sub = sub_of(network)
    sub.logits(network, pixels, sub.draw(1, 0, 0, CPU))
    assert torch.equal(network(pixels), before)


def test_after_an_error_inside_nothing_is_masked() -> None:
    network, pixels = swin().eval(), torch.randn(1, 3, 224, 224)
    before = network(pixels)
    sub = sub_of(network)
    with pytest.raises(RuntimeError, match="inside"), sub.applied(network, sub.draw(1, 0, 0, CPU)):
        raise RuntimeError("inside")
    assert torch.equal(network(pixels), before)


def test_a_copy_masks_with_its_own_token() -> None:
    network, pixels = swin().eval(), torch.randn(1, 3, 224, 224)
    classifier = Classifier(network, sub=sub_of(network), image_size=224)
    averaged: Any = copy.deepcopy(classifier)
    draw = averaged.sub.draw(1, 0, 0, CPU)
    before = classifier(pixels, draw)[0]
    assert torch.equal(averaged(pixels, draw)[0], before)
    with torch.no_grad():
        averaged.sub.mask_token.add_(1)
    assert not torch.equal(averaged(pixels, draw)[0], before)
    assert torch.equal(classifier(pixels, draw)[0], before)


def test_making_a_mask_token_draws_from_no_generator() -> None:
    network = swin()
    state = torch.get_rng_state()
    sub: Any = sub_of(network)
    assert torch.equal(torch.get_rng_state(), state)
    assert 0.005 < sub.mask_token.std().item() < 0.05


@pytest.mark.parametrize(
    ("name", "arguments", "grid"),
    [
        ("swinv2_tiny_window8_256", {"img_size": 64, "window_size": 4, "depths": (1, 1)}, TokenGrid("NHWC", 16, 96)),
        ("pvt_v2_b0", {"depths": (1, 1, 1, 1)}, TokenGrid("NHWC", 56, 32)),
        ("nest_tiny", {}, TokenGrid("NCHW", 56, 96)),
        ("mvitv2_tiny", {"img_size": 64}, TokenGrid("NLC", 16, 96)),
        ("hiera_tiny_224", {"stages": (1, 1, 1, 1)}, TokenGrid("NLC", 56, 96)),
    ],
)
def test_networks_that_hand_tokens_out_in_other_ways_are_masked_alike(
    name: str, arguments: dict[str, Any], grid: TokenGrid
) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, **arguments)
    with torch.no_grad():
        for weight in network.parameters():  # some classifiers start at 0, where nothing has a gradient
            weight.add_(torch.randn_like(weight) * 0.02)
    side = arguments.get("img_size", 224)
    assert token_grid(network, side) == grid
    sub: Any = sub_of(network, side)
    seen = embedded(network)
    draw = sub.draw(2, 1, 0, CPU)
    sub.logits(network, torch.randn(2, 3, side, side), draw).sum().backward()
    tokens = seen[0].flatten(2).transpose(1, 2) if grid.layout == "NCHW" else seen[0].flatten(1, -2)
    masked = (tokens == sub.mask_token).all(dim=2)
    cell = grid.side // round(sub.parts**0.5)
    assert masked.sum(dim=1).tolist() == [(sub.parts - draw.kept.shape[1]) * cell**2] * 2
    assert sub.mask_token.grad.abs().sum() > 0


def test_a_network_without_a_grid_of_tokens_is_refused() -> None:
    with pytest.raises(UserError, match="--sub-mask-kind mask-token: a ResNet has no grid of tokens"):
        choose_sub(timm.create_model("resnet10t"), "mask", "mask-token", 0.5, 64, console=Console())


@pytest.mark.parametrize(("block", "message"), [(30, "cannot be cut"), (2, "no whole number")])
def test_a_block_that_does_not_fit_is_refused(block: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sub_of(swin(), block=block)
