from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.train.sub import SubDraw, SubModel, SubRatio, choose_sub, kept_count
from vtk_cli.train.sub.beit import KeptBeitPatches
from vtk_cli.train.sub.tokens import KeptPatches, KeptTokens

SMALL: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2, "num_classes": 5,
}  # fmt: skip
CPU = torch.device("cpu")


def vit(kind: type[nn.Module] = VisionTransformer, **arguments: Any) -> Any:
    """A network of 16 patches whose every weight, also those that start at 0 or 1, differs from the others."""
    torch.manual_seed(0)
    return shaken(kind(**SMALL | arguments))


def shaken(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return network


def token_sub(network: nn.Module, ratio: float = 0.5) -> SubModel:
    return choose_sub(network, "mask", "token", ratio, 32, console=Console())


def images(samples: int = 3, side: int = 32) -> Tensor:
    return torch.randn(samples, 3, side, side, generator=torch.Generator().manual_seed(1))


def allowed(keep: Tensor, tokens: int, prefix: int) -> Tensor:
    """(B, 1, 1, P + N) bool: the keys that remain."""
    mask = torch.zeros(len(keep), prefix + tokens, dtype=torch.bool)
    mask[:, :prefix] = True
    return mask.scatter(1, keep + prefix, value=True)[:, None, None]


VARIANTS: dict[str, dict[str, Any]] = {
    "class token": {},
    "class token apart from positions": {"no_embed_class": True},
    "registers": {"reg_tokens": 3},
    "registers apart from positions": {"reg_tokens": 3, "no_embed_class": True},
    "average pooling": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "no position embedding": {"pos_embed": "none"},
    "norm before the blocks": {"pre_norm": True},
    "attention pooling": {"global_pool": "map", "class_token": False},
    "patches that do not fill the image": {"img_size": 37},
    "norm of the embedding": {"pre_norm": True, "embed_norm_layer": nn.LayerNorm},
}


def test_half_of_196_patches_is_98_distinct_ones_each_as_often_as_the_others() -> None:
    sub = KeptPatches(vit(img_size=112), SubRatio(0.5, 0.5))
    keep = sub.draw(10_000, seed=3, step=7, device=CPU).kept
    assert keep.shape == (10_000, 98)
    assert bool((keep.diff(dim=1) > 0).all())
    frequency = keep.flatten().bincount(minlength=196) / 10_000
    assert bool(((frequency - 0.5).abs() < 0.02).all())
    assert len(keep.unique(dim=0)) == 10_000


def test_a_draw_repeats_for_its_seed_and_step_alone() -> None:
    sub = token_sub(vit())
    draws = [sub.draw(4, seed, step, CPU).kept for seed, step in [(1, 2), (1, 2), (1, 3), (2, 2)]]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])


def test_a_changing_ratio_changes_how_many_are_kept() -> None:
    sub = choose_sub(vit(), "mask", "auto", SubRatio(0.25, 0.75), 32, console=Console())
    kept = [sub.draw(1, 0, 0, CPU, progress).kept.shape[1] for progress in (0.0, 0.5, 1.0)]
    assert kept == [kept_count(16, ratio) for ratio in (0.25, 0.5, 0.75)] == [12, 8, 4]


def test_prefix_tokens_enter_the_blocks_as_ever() -> None:
    network = vit(reg_tokens=2)
    entered: list[Tensor] = []
    network.blocks[0].register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    sub = token_sub(network)
    network(images())
    sub.logits(network, images(), sub.draw(3, 0, 0, CPU))
    assert entered[0].shape == (3, 19, 32)
    assert entered[1].shape == (3, 11, 32)
    assert torch.equal(entered[0][:, :3], entered[1][:, :3])


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropping_tokens_is_attention_among_the_kept_ones(variant: str) -> None:
    network, pixels = vit(**VARIANTS[variant]), images(side=VARIANTS[variant].get("img_size", 32))
    sub = token_sub(network)
    assert isinstance(sub, KeptPatches)
    draw = sub.draw(3, 5, 0, CPU)
    prefix = network.num_prefix_tokens
    mask = allowed(draw.kept, 16, prefix).expand(-1, -1, prefix + 16, -1)
    full = network.forward_features(pixels, attn_mask=mask)
    index = torch.cat((torch.arange(prefix).expand(3, -1), draw.kept + prefix), dim=1)
    expected = full.gather(1, index[:, :, None].expand(-1, -1, 32))
    torch.testing.assert_close(sub.features(network, pixels, draw), expected, atol=1e-5, rtol=1e-5)
    logits = network.forward_head(expected)
    torch.testing.assert_close(sub.logits(network, pixels, draw), logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gathering_before_the_embedding_is_gathering_after_it(variant: str) -> None:
    network, pixels = vit(**VARIANTS[variant]), images(side=VARIANTS[variant].get("img_size", 32))
    before = KeptPatches(network, SubRatio(0.5, 0.5))
    after = KeptTokens(network, SubRatio(0.5, 0.5), 16, indexed=False)
    draw = before.draw(3, 5, 0, CPU)
    outputs, gradients = [], []
    for sub in (before, after):
        network.zero_grad()
        logits = sub.logits(network, pixels, draw)
        logits.square().sum().backward()
        outputs.append(logits)
        gradients.append({name: weight.grad.clone() for name, weight in network.named_parameters()})
    torch.testing.assert_close(*outputs, atol=1e-6, rtol=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=2e-5, rtol=1e-4)


def test_pixels_that_fill_no_patch_are_left_out_as_by_the_convolution() -> None:
    """DeiT-III's ViT-H/14 trains at 160 pixels: 11 x 11 patches, 6 pixels over."""
    network = vit(img_size=36)
    before = KeptPatches(network, SubRatio(0.5, 0.5))
    after = KeptTokens(network, SubRatio(0.5, 0.5), 16, indexed=False)
    draw = before.draw(3, 5, 0, CPU)
    torch.testing.assert_close(
        before.logits(network, images(3, 36), draw), after.logits(network, images(3, 36), draw), atol=1e-6, rtol=1e-5
    )


def test_a_distilled_network_keeps_both_of_its_tokens() -> None:
    network = vit(VisionTransformerDistilled)
    before = KeptPatches(network, SubRatio(0.5, 0.5))
    after = KeptTokens(network, SubRatio(0.5, 0.5), 16, indexed=False)
    draw = before.draw(3, 5, 0, CPU)
    assert isinstance(token_sub(network), KeptPatches)
    torch.testing.assert_close(
        before.logits(network, images(), draw), after.logits(network, images(), draw), atol=1e-6, rtol=1e-5
    )


def test_a_position_that_no_sample_keeps_gets_no_gradient() -> None:
    network = vit()
    sub = token_sub(network, 0.75)
    draw = sub.draw(2, 9, 0, CPU)
    sub.logits(network, images(2), draw).sum().backward()
    gradient = network.pos_embed.grad[0, 1:].abs().sum(dim=1)
    kept = torch.zeros(16, dtype=torch.bool).scatter(0, draw.kept.flatten().unique(), value=True)
    assert bool((gradient[kept] > 0).all())
    assert bool((gradient[~kept] == 0).all())
    assert 0 < int(kept.sum()) < 16


def test_at_ratio_0_the_sub_model_is_the_model() -> None:
    network = vit()
    sub = token_sub(network, 0.0)
    torch.testing.assert_close(
        sub.logits(network, images(), sub.draw(3, 0, 0, CPU)), network(images()), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("mixed", [False, True])
def test_evas_rotary_embedding_goes_with_its_token(mixed: bool) -> None:
    network = vit(Eva, use_rot_pos_emb=True, rope_type="mixed" if mixed else "cat").eval()
    sub = token_sub(network)
    assert isinstance(sub, KeptTokens)
    draw = sub.draw(3, 5, 0, CPU)
    full = network.forward_features(images(), attn_mask=allowed(draw.kept, 16, 1).expand(-1, -1, 17, -1))
    index = torch.cat((torch.zeros(3, 1, dtype=torch.long), draw.kept + 1), dim=1)
    expected = full.gather(1, index[:, :, None].expand(-1, -1, 32))
    torch.testing.assert_close(sub.features(network, images(), draw), expected, atol=1e-5, rtol=1e-5)


def naflexvit() -> Any:
    torch.manual_seed(0)
    return timm.create_model("naflexvit_base_patch16_gap", depth=1, embed_dim=32, num_heads=2, num_classes=3).train()


@pytest.mark.parametrize("make", [lambda: vit(Eva), naflexvit])
def test_the_slot_is_as_before_after_the_sub_model_and_after_an_error(make: Any) -> None:
    network = make()
    slot, sub = network.patch_drop, KeptTokens(network, SubRatio(0.5, 0.5), 16, indexed=True)
    side = 32 if isinstance(network, Eva) else 64
    sub.logits(network, images(3, side), sub.draw(3, 0, 0, CPU))
    assert network.patch_drop is slot
    with pytest.raises(ValueError, match="keep"):
        sub.logits(network, images(2, side), sub.draw(3, 0, 0, CPU))  # a draw for three samples
    assert network.patch_drop is slot


def test_naflexvit_sees_the_kept_tokens_alone_in_training() -> None:
    network = naflexvit()
    sub = choose_sub(network, "mask", "auto", 0.5, 64, console=Console())
    assert sub.parts == 16
    entered: list[int] = []
    network.blocks[0].register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0].shape[1]))
    sub.logits(network, images(2, side=64), sub.draw(2, 0, 0, CPU))
    assert entered == [8 + network.num_prefix_tokens]


BOTH = {"use_rel_pos_bias": True, "use_shared_rel_pos_bias": True}


@pytest.mark.parametrize("bias", [{"use_rel_pos_bias": True}, {"use_shared_rel_pos_bias": True}, BOTH, {}])
def test_beits_bias_goes_with_its_pair_of_tokens(bias: dict[str, bool]) -> None:
    torch.manual_seed(0)
    wanted = {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": False, "use_abs_pos_emb": not bias} | bias
    network: Any = timm.create_model("beit_base_patch16_224", **SMALL, **wanted)
    network = shaken(network).eval()
    sub = token_sub(network)
    assert isinstance(sub, KeptBeitPatches)
    draw = sub.draw(3, 5, 0, CPU)
    hidden = torch.where(allowed(draw.kept, 16, 1), 0.0, -1e9)
    shared = 0.0 if network.rel_pos_bias is None else network.rel_pos_bias()[None]
    tokens = torch.cat((network.cls_token.expand(3, -1, -1), network.patch_embed(images())), dim=1)
    tokens = tokens if network.pos_embed is None else tokens + network.pos_embed
    for block in network.blocks:
        tokens = block(tokens, shared_rel_pos_bias=hidden + shared)
    index = torch.cat((torch.zeros(3, 1, dtype=torch.long), draw.kept + 1), dim=1)
    expected = network.norm(tokens).gather(1, index[:, :, None].expand(-1, -1, 32))
    torch.testing.assert_close(sub.features(network, images(), draw), expected, atol=1e-5, rtol=1e-5)
    whole = SubDraw(0.0, torch.arange(16).expand(3, -1).contiguous())
    torch.testing.assert_close(sub.logits(network, images(), whole), network(images()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "eva", "beit"])
def test_a_recomputed_forward_drops_the_same_tokens(kind: str) -> None:
    if kind == "beit":
        torch.manual_seed(0)
        network: Any = shaken(timm.create_model("beit_base_patch16_224", **SMALL))
    else:
        network = vit(Eva if kind == "eva" else VisionTransformer)
    sub = token_sub(network)
    draw = sub.draw(3, 5, 0, CPU)
    gradients = []
    for recomputed in (False, True):
        network.set_grad_checkpointing(recomputed)
        network.zero_grad()
        sub.logits(network, images(), draw).square().sum().backward()
        gradients.append([weight.grad.clone() for weight in network.parameters() if weight.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
