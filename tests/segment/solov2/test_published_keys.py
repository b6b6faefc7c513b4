from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.errors import UserError
from vtk_cli.segment.solov2.checkpoint import read_segmenter
from vtk_cli.segment.solov2.configurations import segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.published_keys import from_published, is_published

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def mmdet_name(name: str) -> str:
    """A name of ours as mmdet has it."""
    tower = re.fullmatch(r"ins_head\.(cate|kernel)_tower\.(\d+)\.(\w+)", name)
    if tower:
        branch, index, end = tower.group(1), int(tower.group(2)), tower.group(3)
        return f"bbox_head.{branch}_convs.{index // 3}.{'conv' if index % 3 == 0 else 'gn'}.{end}"
    for ours, theirs in (
        ("backbone.body.", "backbone."),
        ("ins_head.cate_pred.", "bbox_head.solo_cate."),
        ("ins_head.kernel_pred.", "bbox_head.solo_kernel."),
        ("mask_head.conv_pred.0.", "mask_feat_head.conv_pred.0.conv."),
        ("mask_head.conv_pred.1.", "mask_feat_head.conv_pred.0.gn."),
    ):
        if name.startswith(ours):
            return name.replace(ours, theirs)
    name = re.sub(r"fpn\.inner_blocks\.(\d)\.0\.", r"neck.lateral_convs.\1.conv.", name)
    name = re.sub(r"fpn\.layer_blocks\.(\d)\.0\.", r"neck.fpn_convs.\1.conv.", name)
    name = re.sub(r"mask_head\.(convs_all_levels\.\d\.conv\d)\.0\.", r"mask_feat_head.\1.conv.", name)
    return re.sub(r"mask_head\.(convs_all_levels\.\d\.conv\d)\.1\.", r"mask_feat_head.\1.gn.", name)


def adelaidet_state(classes: int) -> dict[str, Tensor]:
    """AdelaiDet's SOLOv2 on ResNet-50, name by name, without memory but for the first convolution."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int, *, frozen: bool) -> None:
        for end in ("weight", "bias", *(("running_mean", "running_var") if frozen else ())):
            shapes[f"{name}.{end}"] = (width,)

    body = "backbone.bottom_up."
    norm(f"{body}stem.conv1.norm", 64, frozen=True)
    inside = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 2):
        for block in range(blocks):
            name = f"{body}res{stage}.{block}."
            parts = {"conv1": (width, inside, 1, 1), "conv2": (width, width, 3, 3), "conv3": (4 * width, width, 1, 1)}
            if block == 0:
                parts["shortcut"] = (4 * width, inside, 1, 1)
            for part, shape in parts.items():
                shapes[f"{name}{part}.weight"] = shape
                norm(f"{name}{part}.norm", shape[0], frozen=True)
            inside = 4 * width
        shapes |= {
            f"backbone.fpn_lateral{stage}.weight": (256, inside, 1, 1),
            f"backbone.fpn_lateral{stage}.bias": (256,),
        }
        shapes |= {f"backbone.fpn_output{stage}.weight": (256, 256, 3, 3), f"backbone.fpn_output{stage}.bias": (256,)}
    for branch, first, out in (("cate", 256, classes), ("kernel", 258, 256)):
        for index in range(4):
            shapes[f"ins_head.{branch}_tower.{3 * index}.weight"] = (512, 512 if index else first, 3, 3)
            norm(f"ins_head.{branch}_tower.{3 * index + 1}", 512, frozen=False)
        shapes |= {f"ins_head.{branch}_pred.weight": (out, 512, 3, 3), f"ins_head.{branch}_pred.bias": (out,)}
    for level in range(4):
        for index in range(max(1, level)):
            name = f"mask_head.convs_all_levels.{level}.conv{index}"
            shapes[f"{name}.0.weight"] = (128, 128 if index else 258 if level == 3 else 256, 3, 3)
            norm(f"{name}.1", 128, frozen=False)
    shapes["mask_head.conv_pred.0.weight"] = (256, 128, 1, 1)
    norm("mask_head.conv_pred.1", 256, frozen=False)
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return state | {f"{body}stem.conv1.weight": torch.randn(64, 3, 7, 7) * 0.01, "pixel_mean": torch.zeros(3, 1, 1)}


def test_a_file_of_mmdet_gives_the_network_back(tmp_path: Path) -> None:
    config = segmenter_config("solov2-light-r18", 80)
    network = SOLOv2(config).eval()
    theirs = {mmdet_name(name): tensor for name, tensor in network.state_dict().items()}
    assert not [name for name in theirs if name.startswith(("ins_head", "mask_head", "fpn"))]
    theirs["backbone.bn1.num_batches_tracked"] = torch.tensor(7)
    torch.save({"state_dict": theirs, "meta": {}}, tmp_path / "SOLOv2_LIGHT_448_R18_3x.pth")
    saved = read_segmenter(tmp_path / "SOLOv2_LIGHT_448_R18_3x.pth")
    assert saved.config == config
    assert saved.classes.names[:2] == ("person", "bicycle")
    assert (saved.classes.ids[-1], len(saved.classes.names)) == (90, 80)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, again = network(images), saved.build()(images)
    assert torch.equal(ours.mask_features, again.mask_features)
    assert torch.equal(ours.levels[0].category, again.levels[0].category)
    assert read_segmenter(tmp_path / "SOLOv2_LIGHT_448_R18_3x.pth", "teacher").config.grids == (80, 64, 32, 24, 12)


def test_the_names_and_shapes_of_adelaidet_fit_completely() -> None:
    state = adelaidet_state(80)
    assert is_published(state)
    converted = from_published(state, "teacher", "model_final.pth")
    assert converted.config == segmenter_config("solov2-r50", 80, "teacher", stride_in_1x1=True)
    learnt = {name for name in converted.state if name.startswith(("ins_head", "mask_head", "fpn"))}
    assert sum(converted.state[name].numel() for name in learnt) == 18_081_104 + 1_659_392 + 3_344_384


def test_the_first_convolution_of_adelaidet_sees_the_same_from_our_pixels() -> None:
    state = adelaidet_state(8)
    stem = state["backbone.bottom_up.stem.conv1.weight"]
    ours = from_published(state, "student", "file").state["backbone.body.conv1.weight"]
    rgb = torch.rand(1, 3, 32, 32)
    blue_first = (255 * rgb - torch.tensor([123.675, 116.28, 103.53])[:, None, None]).flip(1)
    normalised = (rgb - MEAN[:, None, None]) / STD[:, None, None]
    a, b = F.conv2d(blue_first, stem, stride=2, padding=3), F.conv2d(normalised, ours, stride=2, padding=3)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("ins_head.kernel_tower.3.weight"), "ins_head.kernel_tower.3.weight"),
        (lambda state: state.update({"backbone.bottom_up.res3.0.conv2_offset.weight": torch.zeros(1)}), "conv2_offset"),
        (lambda state: state.pop("ins_head.kernel_pred.bias"), "ins_head.kernel_pred.bias"),
    ],
)
def test_what_does_not_fit_is_named(change: object, named: str) -> None:
    state = adelaidet_state(80)
    change(state)  # type: ignore[operator]
    with pytest.raises(UserError, match=re.escape(named)):
        from_published(state, "student", "model_final.pth")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet\.pth: holds no SOLOv2"):
        read_segmenter(tmp_path / "resnet.pth")
