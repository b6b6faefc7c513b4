from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from vtk_cli.detect.backbone import Block, PatchEmbedding, PatchMerging, RamSwin
from vtk_cli.detect.backbone_weights import swin_state
from vtk_cli.detect.configurations import BACKBONES, BackboneConfig
from vtk_cli.detect.predictions import PaddedImages

Padded = Callable[..., PaddedImages]
SMALL = BackboneConfig("swin", 12, (1, 2, 1, 2), (1, 2, 2, 4), window=3)


def random_swin(config: BackboneConfig = SMALL, seed: int = 0, **changes: Any) -> RamSwin:
    torch.manual_seed(seed)
    given: dict[str, Any] = {"queries": 5, "dim": 16, "cross_stages": (3,), "merge_last": True, **changes}
    backbone = RamSwin(config, **given)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.2)
    return backbone.eval()


def test_maps_have_strides_8_16_32_and_64_rounded_up(padded: Padded) -> None:
    batch = padded((70, 130))
    features = random_swin()(batch.images, batch.mask)
    assert [tuple(each.shape) for each in features.maps] == [
        (1, 24, 9, 17),
        (1, 48, 5, 9),
        (1, 96, 3, 5),
        (1, 16, 2, 3),
    ]
    assert features.tokens.shape == (1, 5, 96)


def test_patches_do_not_depend_on_det_tokens(padded: Padded) -> None:
    backbone, batch = random_swin(), padded((64, 96), (50, 70))
    before = backbone(batch.images, batch.mask)
    with torch.no_grad():
        for parameter in (backbone.det_token, backbone.det_pos_embed):
            parameter.normal_()
    after = backbone(batch.images, batch.mask)
    assert all(torch.equal(a, b) for a, b in zip(before.maps, after.maps, strict=True))
    assert not torch.equal(before.tokens, after.tokens)


def test_det_tokens_entering_the_last_stage_do_not_depend_on_the_image(padded: Padded) -> None:
    """Not even by one bit; and with them given, nothing of the output changes."""
    backbone = random_swin()
    entering = []
    backbone.layers[3].blocks[0].register_forward_pre_hook(lambda _, inputs: entering.append(inputs[1].clone()))
    batches = [padded((64, 96), (50, 70), seed=seed) for seed in (0, 1)]
    outputs = [backbone(batch.images, batch.mask) for batch in batches]
    assert torch.equal(entering[0], entering[1])
    assert torch.equal(entering[0], backbone.constant_tokens())
    assert not torch.equal(outputs[0].tokens, outputs[1].tokens)
    given = backbone(batches[0].images, batches[0].mask, backbone.constant_tokens())
    assert torch.equal(given.tokens, outputs[0].tokens)
    assert all(torch.equal(a, b) for a, b in zip(given.maps, outputs[0].maps, strict=True))


def test_without_cross_attention_det_tokens_are_the_same_for_every_image(padded: Padded) -> None:
    backbone = random_swin(cross_stages=(), merge_last=False)
    outputs = [backbone(batch.images, batch.mask).tokens for batch in (padded((64, 96)), padded((32, 32), seed=1))]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], backbone.constant_tokens())


def test_with_cross_attention_in_the_first_stage_nothing_is_constant_but_the_tokens_themselves(padded: Padded) -> None:
    backbone, batch = random_swin(cross_stages=(0, 3)), padded((64, 96), (50, 70))
    assert torch.equal(backbone.constant_tokens(), backbone.det_token)
    tokens = backbone(batch.images, batch.mask).tokens
    assert not torch.equal(tokens[0], tokens[1])


def test_a_sample_does_not_depend_on_its_neighbours(padded: Padded) -> None:
    backbone, batch = random_swin(), padded((64, 96), (50, 70), (33, 96))
    together = backbone(batch.images, batch.mask)
    for index in range(3):
        alone = backbone(batch.images[index : index + 1], batch.mask[index : index + 1])
        torch.testing.assert_close(alone.tokens[0], together.tokens[index], atol=1e-5, rtol=1e-5)
        for a, b in zip(alone.maps, together.maps, strict=True):
            torch.testing.assert_close(a[0], b[index], atol=1e-5, rtol=1e-5)


def test_padding_by_whole_windows_changes_nothing_where_no_window_is_shifted(padded: Padded) -> None:
    """`micro` has windows of 4 cells, 128 pixels in the last stage, and one block a stage."""
    backbone = random_swin(BACKBONES["micro"])
    alone, within = padded((128, 128)), padded((128, 128), extent=(256, 384))
    tight, loose = (backbone(batch.images, batch.mask) for batch in (alone, within))
    torch.testing.assert_close(loose.tokens, tight.tokens, atol=1e-5, rtol=1e-5)
    for a, b in zip(tight.maps, loose.maps, strict=True):
        torch.testing.assert_close(b[..., : a.shape[2], : a.shape[3]], a, atol=1e-5, rtol=1e-5)


def test_det_tokens_do_not_see_padded_patches(padded: Padded) -> None:
    """What stands in padding far from the image reaches no DET token: windows end, and the mask hides the rest."""
    backbone, batch = random_swin(BACKBONES["micro"]), padded((128, 128), extent=(128, 384))
    noisy = batch.images.clone()
    noisy[..., 128:] = torch.randn(1, 3, 128, 256)
    a, b = (backbone(images, batch.mask).tokens for images in (batch.images, noisy))
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    unmasked = torch.zeros_like(batch.mask)
    a, b = (backbone(images, unmasked).tokens for images in (batch.images, noisy))
    assert not torch.allclose(a, b, atol=1e-3)


def test_an_image_is_padded_to_whole_patches() -> None:
    embed = PatchEmbedding(6)
    images = torch.randn(1, 3, 9, 14)
    larger = torch.zeros(1, 3, 12, 16)
    larger[..., :9, :14] = images
    assert embed(images).shape == (1, 3, 4, 6)
    assert torch.equal(embed(images), embed(larger))


def test_merging_takes_neighbours_down_the_columns_and_pads_odd_sides() -> None:
    merging = PatchMerging(2, 8)
    merging.norm = nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        merging.reduction.weight.copy_(torch.eye(8))
        patches = torch.arange(1.0, 31.0).reshape(1, 3, 5, 2)
        merged = merging.patches(patches)
    assert merged.shape == (1, 2, 3, 8)
    assert merged[0, 0, 1].tolist() == [*patches[0, 0, 2], *patches[0, 1, 2], *patches[0, 0, 3], *patches[0, 1, 3]]
    assert merged[0, 1, 2].tolist() == [*patches[0, 2, 4], 0, 0, 0, 0, 0, 0]


def test_merging_a_det_token_stands_in_for_four_neighbours() -> None:
    merging = PatchMerging(4, 8)
    token = torch.randn(1, 1, 4)
    same = token.reshape(1, 1, 1, 4).expand(1, 2, 2, 4)
    torch.testing.assert_close(merging.tokens(token)[0, 0], merging.patches(same)[0, 0, 0])


def timm_pair(config: BackboneConfig, side: int) -> tuple[RamSwin, SwinTransformer]:
    torch.manual_seed(0)
    theirs = SwinTransformer(
        img_size=side,
        embed_dim=config.width,
        depths=config.depths,
        num_heads=config.heads,
        window_size=config.window,
        num_classes=5,
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    ours = random_swin(config)
    state = swin_state(theirs.state_dict())
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.startswith(("det_", "layers.3.downsample")) or "det_pos_linear" in name for name in missing)
    return ours, theirs


def timm_stages(theirs: SwinTransformer, images: torch.Tensor) -> list[torch.Tensor]:
    """(B, C, H, W) after the blocks of stages 2, 3, 4; timm merges at the start of a stage."""
    patches, stages = theirs.patch_embed(images), []
    for layer in theirs.layers:
        patches = layer(patches)
        stages.append(patches.permute(0, 3, 1, 2))
    return stages[1:]


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, window=7, depths=(2, 2, 2, 2))])
def test_patches_are_those_of_timms_swin(config: BackboneConfig) -> None:
    """Same weights, same maps: the windows, the order of merging, and the re-indexed names."""
    side = 32 * 2 * config.window
    ours, theirs = timm_pair(config, side)
    images = torch.randn(1, 3, side, side)
    with torch.no_grad():
        maps = ours(images, torch.zeros(1, side, side, dtype=torch.bool)).maps
        for a, b in zip(maps[:3], timm_stages(theirs, images), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_on_a_map_of_one_window_the_shift_stays_where_timm_drops_it() -> None:
    config = replace(SMALL, window=7, depths=(2, 2, 2, 2))
    ours, theirs = timm_pair(config, 224)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        maps = ours(images, torch.zeros(1, 224, 224, dtype=torch.bool)).maps
        stages = timm_stages(theirs, images)
    torch.testing.assert_close(maps[0], stages[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(maps[1], stages[1], atol=1e-4, rtol=1e-4)
    assert float((maps[2] - stages[2]).norm() / stages[2].norm()) > 1e-3  # rounding is below 1e-6


def test_a_window_shrinks_to_a_small_map_only_where_it_may(padded: Padded) -> None:
    backbone = random_swin(BACKBONES["micro"])
    patches = torch.zeros(1, 2, 6, 16)
    assert backbone.layers[0].windows(patches).size == (2, 4)
    assert backbone.layers[0].windows(patches).padded == (2, 8)
    fixed = random_swin(replace(SMALL, depths=(2, 2, 2, 2)))
    assert fixed.layers[0].windows(patches).padded == (3, 6)
    assert fixed.layers[0].windows(patches).shift == (1, 1)
    batch = padded((64, 32))
    assert backbone(batch.images, batch.mask).maps[2].shape == (1, 128, 2, 1)


def test_stochastic_depth_skips_patches_and_det_tokens_of_a_sample_together() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, 2, shifted=False, drop_path=0.5, position_dim=4).train()
    patches, tokens = torch.randn(64, 2, 2, 8), torch.randn(64, 3, 8)
    stage = random_swin(replace(BACKBONES["micro"], width=8, window=2)).layers[0]
    new_patches, new_tokens = block(patches, tokens, torch.randn(1, 3, 4), stage.windows(patches), None)
    same_patches = (new_patches == patches).flatten(1).all(1)
    same_tokens = (new_tokens == tokens).flatten(1).all(1)
    assert torch.equal(same_patches, same_tokens)
    assert 4 < int(same_patches.sum()) < 32  # a quarter skips both branches


def test_stochastic_depth_grows_linearly_over_the_blocks() -> None:
    backbone = random_swin(replace(SMALL, drop_path=0.3))
    rates = [block.drop_path for stage in backbone.layers for block in stage.blocks]
    assert rates == pytest.approx([0, 0.06, 0.12, 0.18, 0.24, 0.3])


def test_recomputing_activations_changes_no_gradient(padded: Padded) -> None:
    batch = padded((64, 96), (50, 70))
    gradients = []
    for recompute in (False, True):
        backbone = random_swin(replace(SMALL, drop_path=0.3), recompute=recompute).train()
        torch.manual_seed(1)
        features = backbone(batch.images, batch.mask)
        (sum(each.square().mean() for each in features.maps) + features.tokens.square().mean()).backward()
        gradients.append({name: parameter.grad for name, parameter in backbone.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
