"""The published layout, written out here from the modules that published it, against what the converter makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from vtk_cli.detect.configurations import DetectorConfig, detector_config
from vtk_cli.detect.network import build_detector, first_layers, parameter_count
from vtk_cli.detect.official_keys import from_official, is_official, to_official
from vtk_cli.errors import UserError

Make = Callable[..., Any]
Shapes = dict[str, tuple[int, ...]]
COPIES = ("transformer.decoder.bbox_embed.", *(f"vector_embed.{level}." for level in range(1, 7)))


def linear(name: str, out: int, *inner: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, *inner), **({f"{name}.bias": (out,)} if bias else {})}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def mlp(name: str, *widths: int) -> Shapes:
    keys: Shapes = {}
    for layer, (inner, out) in enumerate(pairwise(widths)):
        keys |= linear(f"{name}.layers.{layer}", out, inner)
    return keys


def backbone_keys(C: int, depths: tuple[int, ...], heads: tuple[int, ...], queries: int) -> Shapes:
    keys: Shapes = {"backbone.det_token": (1, queries, C), "backbone.det_pos_embed": (1, queries, 256)}
    keys |= linear("backbone.patch_embed.proj", C, 3, 4, 4) | norm("backbone.patch_embed.norm", C)
    for i, depth in enumerate(depths):
        width = C * 2**i
        for j in range(depth):
            block = f"backbone.layers.{i}.blocks.{j}"
            keys |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
            keys |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
            keys |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
            keys |= linear(f"{block}.det_pos_linear", width, 256)
            keys[f"{block}.attn.relative_position_bias_table"] = (169, heads[i])
            keys[f"{block}.attn.relative_position_index"] = (49, 49)
        down, out = f"backbone.layers.{i}.downsample", 2 * width if i < 3 else 256
        keys |= norm(f"{down}.norm", 4 * width) | linear(f"{down}.reduction", out, 4 * width, bias=False)
        keys |= norm(f"{down}.norm2", width) | linear(f"{down}.expansion", out, width, bias=False)
        if i:
            keys |= norm(f"backbone.norm{i}", width)
    return keys


def published_keys(size: str, *, plus: bool, heads_of_training: bool) -> Shapes:
    C, deep, first = {"nano": (48, 6, 3), "tiny": (96, 6, 3), "small": (96, 18, 3), "base": (128, 18, 4)}[size]
    keys = backbone_keys(C, (2, 2, deep, 2), (first, 2 * first, 4 * first, 8 * first), 300 if plus else 100)
    for k, width in enumerate((2 * C, 4 * C, 8 * C, 256)):
        if plus:
            top = f"fusion.multi_scaler.refinenet_{k}"
            keys |= linear(f"fusion.multi_scaler.layer_{k}_rn", 256, width, 1, 1)
            keys |= norm(f"fusion.multi_scaler.p_norm_{k}", 256) | linear(f"{top}.smoothing", 256, 256, 1, 1)
            for unit in ("resConfUnit1", "resConfUnit2"):
                keys |= linear(f"{top}.{unit}.conv1", 64, 256, 1, 1) | linear(f"{top}.{unit}.conv2", 64, 64, 3, 3)
                keys |= linear(f"{top}.{unit}.conv3", 256, 64, 1, 1)
        else:
            keys |= linear(f"input_proj.{k}.0", 256, width, 1, 1) | norm(f"input_proj.{k}.1", 256)
    keys |= linear("tgt_proj.0", 256, 8 * C, 1, 1) | norm("tgt_proj.1", 256)
    keys |= linear("query_pos_proj.0", 256, 256, 1, 1) | norm("query_pos_proj.1", 256)
    keys |= linear("transformer.reference_points", 2, 256) | {"transformer.level_embed": (4, 256)}
    for n in range(6):
        layer = f"transformer.decoder.layers.{n}"
        keys |= linear(f"{layer}.cross_attn.sampling_offsets", 256, 256)
        keys |= linear(f"{layer}.cross_attn.attention_weights", 128, 256)
        keys |= linear(f"{layer}.cross_attn.value_proj", 256, 256) | linear(f"{layer}.cross_attn.output_proj", 256, 256)
        keys |= {f"{layer}.self_attn.in_proj_weight": (768, 256), f"{layer}.self_attn.in_proj_bias": (768,)}
        keys |= linear(f"{layer}.self_attn.out_proj", 256, 256)
        keys |= linear(f"{layer}.linear1", 1024, 256) | linear(f"{layer}.linear2", 256, 1024)
        keys |= norm(f"{layer}.norm1", 256) | norm(f"{layer}.norm2", 256) | norm(f"{layer}.norm3", 256)
    for level in range(7):
        keys |= linear(f"class_embed.{level}", 91, 256) | mlp(f"bbox_embed.{level}", 256, 256, 256, 4)
        keys |= mlp(f"transformer.decoder.bbox_embed.{level}", 256, 256, 256, 4)
        if heads_of_training:
            keys |= mlp(f"iou_embed.{level}", 256, 256, 256, 1) | mlp(f"vector_embed.{level}", 256, 256, 256, 256)
    if heads_of_training:
        keys |= linear("transformer.enc_output", 256, 256) | norm("transformer.enc_output_norm", 256)
        keys |= linear("transformer.token_embed", 91, 256)
    return keys


def published_config(size: str, *, plus: bool, heads_of_training: bool) -> DetectorConfig:
    config = detector_config(f"vidt-{'plus-' if plus else ''}{size}", 91)
    return replace(config, token_offset=0) if heads_of_training else config.box_only()


def learned(keys: Shapes) -> int:
    """Parameters of the published module: no tables, and a module counted once however often it is named."""
    return sum(
        torch.Size(shape).numel()
        for name, shape in keys.items()
        if not name.endswith("_index") and not name.startswith(COPIES)
    )


VARIANTS = [
    ("nano", False, False, 485, 15_728_677),
    ("nano", True, False, 541, 16_612_773),
    ("nano", True, True, 631, 17_822_727),
    ("tiny", False, False, 485, 37.96e6),
    ("tiny", True, False, 541, 38.86e6),
    ("small", False, False, None, 60.47e6),
    ("small", True, False, None, 61.36e6),
    ("base", False, False, None, 99.96e6),
    ("base", True, False, None, 100.86e6),
]


@pytest.mark.parametrize(("size", "plus", "heads", "names", "parameters"), VARIANTS)
def test_the_published_layout_has_the_published_counts_and_is_what_the_converter_writes(
    size: str, plus: bool, heads: bool, names: int | None, parameters: float
) -> None:
    keys = published_keys(size, plus=plus, heads_of_training=heads)
    assert names is None or len(keys) == names
    assert learned(keys) == parameters if size == "nano" else abs(learned(keys) - parameters) < 0.01e6
    config = published_config(size, plus=plus, heads_of_training=heads)
    with torch.device("meta"):
        network = build_detector(config)
        theirs = to_official(network.state_dict(), config)
    assert {name: tuple(tensor.shape) for name, tensor in theirs.items()} == keys


@pytest.mark.parametrize(("size", "plus", "heads", "names", "parameters"), VARIANTS)
def test_a_detector_has_all_published_parameters_but_the_dead(
    size: str, plus: bool, heads: bool, names: int | None, parameters: float
) -> None:
    config = published_config(size, plus=plus, heads_of_training=heads)
    with torch.device("meta"):
        network = build_detector(config)
    C = config.backbone.width
    widths = (C, 2 * C, 4 * C, 8 * C)
    merging = sum(width * out + 2 * width for width, out in zip(widths, (*widths[1:], 256), strict=True))
    norms = sum(2 * width for width in widths[1:])
    fusion = 256 * 256 + 256 + (256 * 64 + 64) + (9 * 64 * 64 + 64) + (64 * 256 + 256)
    dead = merging + norms + 4 * 256 + (fusion if plus else 0)
    total = parameter_count(network) + dead
    assert total == parameters if size == "nano" else abs(total - parameters) < 0.01e6


def test_four_layers_of_nano_vidt_plus_are_14_million_parameters() -> None:
    with torch.device("meta"):
        network = build_detector(published_config("nano", plus=True, heads_of_training=False))
    dead = 334_688
    assert abs(parameter_count(first_layers(network, 4)) + dead - 14.26e6) < 0.01e6


def random_published(keys: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors by the published names; names of one module hold the same."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in keys.items()}
    for name in list(state):
        parts = name.split(".")
        if name.startswith("transformer.decoder.bbox_embed."):
            state[name] = state[name.removeprefix("transformer.decoder.")]
        if parts[0] == "vector_embed":
            state[name] = state[".".join(("vector_embed", "0", *parts[2:]))]
    return state


@pytest.mark.parametrize(("plus", "heads"), [(False, False), (True, False), (True, True)])
def test_published_weights_become_the_detector_their_shapes_tell(plus: bool, heads: bool) -> None:
    state = random_published(published_keys("nano", plus=plus, heads_of_training=heads))
    converted = from_official(state, "vidt.pth")
    assert converted.config == published_config("nano", plus=plus, heads_of_training=heads)
    network = build_detector(converted.config)
    network.load_state_dict(converted.state)
    back = to_official(network.state_dict(), converted.config)
    assert set(back) == set(state)
    alive = set(state) - set(converted.dropped)
    assert all(torch.equal(back[name], state[name]) for name in alive)
    assert all(
        name.endswith("_index")
        or "downsample" in name
        or "norm" in name
        or "level_embed" in name
        or "refinenet_3" in name
        for name in converted.dropped
    )


def test_a_tensor_goes_where_the_published_module_uses_it() -> None:
    """One of each kind, by hand."""
    state = random_published(published_keys("nano", plus=True, heads_of_training=True))
    ours = from_official(state, "vidt.pth").state
    for mine, theirs in {
        "backbone.layers.2.blocks.5.attn.qkv.weight": "backbone.layers.2.blocks.5.attn.qkv.weight",
        "backbone.layers.3.downsample.reduction.weight": "backbone.layers.3.downsample.reduction.weight",
        "neck.reduce.2.0.weight": "fusion.multi_scaler.layer_2_rn.weight",
        "neck.reduce.2.1.bias": "fusion.multi_scaler.p_norm_2.bias",
        "neck.smooth.1.bias": "fusion.multi_scaler.refinenet_1.smoothing.bias",
        "neck.lateral.0.conv2.weight": "fusion.multi_scaler.refinenet_0.resConfUnit1.conv2.weight",
        "neck.refine.3.conv3.weight": "fusion.multi_scaler.refinenet_3.resConfUnit2.conv3.weight",
        "reference_points.weight": "transformer.reference_points.weight",
        "decoder.4.norm2.weight": "transformer.decoder.layers.4.norm2.weight",
        "decoder.4.self_attn.in_proj_weight": "transformer.decoder.layers.4.self_attn.in_proj_weight",
        "heads.class_embed.6.bias": "class_embed.6.bias",
        "heads.bbox_embed.3.layers.1.weight": "bbox_embed.3.layers.1.weight",
        "heads.iou_embed.5.layers.2.bias": "iou_embed.5.layers.2.bias",
        "heads.vector_embed.layers.0.weight": "vector_embed.4.layers.0.weight",
        "token_head.project.weight": "transformer.enc_output.weight",
        "token_head.norm.bias": "transformer.enc_output_norm.bias",
        "token_head.classify.weight": "transformer.token_embed.weight",
    }.items():
        assert torch.equal(ours[mine], state[theirs]), mine


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vidt-nano", {}),
        ("vidt-nano", {"refine": False}),
        ("vidt-plus-nano", {}),
        ("vidt-plus-nano", {"refine": False}),
        ("vidt-neck-free-nano", {}),
    ],
)
def test_a_round_trip_changes_no_prediction(name: str, changes: dict[str, bool], detector: Make, padded: Make) -> None:
    network = detector(name, queries=5, **changes)
    converted = from_official(to_official(network.state_dict(), network.config), "vidt.pth")
    assert converted.config == network.config
    again = build_detector(converted.config).eval()
    again.load_state_dict(converted.state)
    batch = padded((64, 96))
    with torch.no_grad():
        before, after = network(batch).final, again(batch).final
    assert torch.equal(before.boxes, after.boxes)
    assert torch.equal(before.logits, after.logits)


def spoiled(change: Callable[[dict[str, Tensor]], Any]) -> dict[str, Tensor]:
    state = random_published(published_keys("nano", plus=True, heads_of_training=False))
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("tgt_proj.0.weight"), "1 missing.*tgt_proj"),
        (lambda s: s.update(surprise=torch.zeros(1)), "1 unexpected.*surprise"),
        (lambda s: s.update({"class_embed.3.weight": torch.zeros(80, 256)}), "of another shape.*class_embed.3"),
        (lambda s: s.update({"transformer.decoder.bbox_embed.1.layers.0.bias": torch.ones(256)}), "differs from"),
        (lambda s: s.pop("backbone.patch_embed.proj.bias"), "fit no ViDT"),
        (lambda s: s.pop("backbone.det_token"), "no weights of ViDT"),
        (
            lambda s: s.update(
                {k: torch.zeros(121, v.shape[1]) for k, v in s.items() if k.endswith("relative_position_bias_table")}
            ),
            "windows of 6, not 7",
        ),
    ],
)
def test_what_does_not_fit_is_said(change: Callable[[dict[str, Tensor]], Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        from_official(spoiled(change), "vidt_nano_50.pth")
    assert str(error.value).startswith("vidt_nano_50.pth: ")


def test_our_own_weights_are_not_taken_for_published_ones(detector: Make) -> None:
    network = detector("vidt-nano", queries=5)
    assert not is_official(network.state_dict())
    assert is_official(to_official(network.state_dict(), network.config))
    assert not is_official({"layers.0.blocks.0.norm1.weight": torch.zeros(1)})
