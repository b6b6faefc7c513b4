"""SOLOv2 weights of others in our form: of mmdet (github.com/WXinlong/SOLO), and of AdelaiDet as PointWSSIS has them
(github.com/clovaai/PointWSSIS).

AdelaiDet's backbones are the first ResNets: blue comes first, pixels are 0 to 255 less their mean, and a bottleneck has
its stride in its first convolution. Their mean is 255 times ours, so the first convolution sees the same when its
weights are put in our order and multiplied by 255 std.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from timm.data import IMAGENET_DEFAULT_STD
from torch import Tensor

from vtk_cli.errors import UserError
from vtk_cli.models.weights import mismatch
from vtk_cli.segment.solov2.configurations import SEGMENTERS, Role, SegmenterConfig, segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2

_STEM = "backbone.body.conv1.weight"
_RESNETS = {(False, 2): "r18", (False, 6): "r34", (True, 6): "r50", (True, 23): "r101"}
"""(whether blocks are bottlenecks, blocks of the third stage) -> ResNet."""
_LIGHT_DEPTH = 2
_UNUSED = ("num_batches_tracked", "pixel_mean", "pixel_std")
_MMDET = (
    (r"backbone\.(.+)", r"backbone.body.\1"),
    (r"neck\.lateral_convs\.(\d)\.conv\.(\w+)", r"fpn.inner_blocks.\1.0.\2"),
    (r"neck\.fpn_convs\.(\d)\.conv\.(\w+)", r"fpn.layer_blocks.\1.0.\2"),
    (r"bbox_head\.solo_(cate|kernel)\.(\w+)", r"ins_head.\1_pred.\2"),
    (r"mask_feat_head\.conv_pred\.0\.conv\.(\w+)", r"mask_head.conv_pred.0.\1"),
    (r"mask_feat_head\.conv_pred\.0\.gn\.(\w+)", r"mask_head.conv_pred.1.\1"),
    (r"mask_feat_head\.(convs_all_levels\.\d\.conv\d)\.conv\.(\w+)", r"mask_head.\1.0.\2"),
    (r"mask_feat_head\.(convs_all_levels\.\d\.conv\d)\.gn\.(\w+)", r"mask_head.\1.1.\2"),
)
_MMDET_TOWER = re.compile(r"bbox_head\.(cate|kernel)_convs\.(\d)\.(conv|gn)\.(\w+)")
_ADELAIDET = (
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.(\w+)", r"backbone.body.bn1.\1"),
    (r"backbone\.bottom_up\.stem\.conv1\.(\w+)", r"backbone.body.conv1.\1"),
    (r"((?:ins|mask)_head\..+)", r"\1"),
)
_ADELAIDET_BLOCK = re.compile(r"backbone\.bottom_up\.res(\d)\.(\d+)\.(conv(\d)|shortcut)\.(norm\.)?(\w+)")
_ADELAIDET_FPN = re.compile(r"backbone\.fpn_(lateral|output)(\d)\.(\w+)")


@dataclass(frozen=True)
class Converted:
    """Published weights in our form.

    Args:
        config: what they are for, as far as shapes tell, with the grids of the role asked for.
        state: the state dict for `SOLOv2(config)`.
    """

    config: SegmenterConfig
    state: dict[str, Tensor]


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether these look like SOLOv2 weights of mmdet or AdelaiDet, rather than ours or another network's."""
    return _is_mmdet(state) or _is_adelaidet(state)


def from_published(state: Mapping[str, Tensor], role: Role, where: str) -> Converted:
    """Published weights in our form.

    Args:
        state: by the published names.
        role: whose grids the network gets: no weight tells of them.
        where: the file, for errors.

    Raises:
        UserError: a tensor is missing, left over or of another shape; deformable convolutions, for example.
    """
    rename = _from_mmdet if _is_mmdet(state) else _from_adelaidet
    ours = {rename(name): tensor for name, tensor in state.items() if not name.endswith(_UNUSED)}
    if _is_adelaidet(state):
        ours[_STEM] = _our_pixels(ours[_STEM])
    try:
        config = _config_of(ours, role, stride_in_1x1=_is_adelaidet(state))
    except KeyError as error:
        what = f"its tensors fit no SOLOv2 on a ResNet ({error})"
        raise UserError(what, where, "take weights of R18, R34, R50 or R101 without deformable convolutions") from error
    with torch.device("meta"):
        network = SOLOv2(config)
    differs = mismatch(network, ours)
    if differs:
        raise UserError(differs, where, "take weights without deformable convolutions, or fetch the file anew")
    return Converted(config, ours)


def _is_mmdet(state: Mapping[str, Tensor]) -> bool:
    return "bbox_head.solo_cate.weight" in state and "backbone.conv1.weight" in state


def _is_adelaidet(state: Mapping[str, Tensor]) -> bool:
    return "ins_head.cate_pred.weight" in state and "backbone.bottom_up.stem.conv1.weight" in state


def _from_mmdet(name: str) -> str:
    tower = _MMDET_TOWER.fullmatch(name)
    if tower:
        branch, index, kind, end = tower.groups()
        return f"ins_head.{branch}_tower.{3 * int(index) + (kind == 'gn')}.{end}"
    return _renamed(name, _MMDET)


def _from_adelaidet(name: str) -> str:
    block = _ADELAIDET_BLOCK.fullmatch(name)
    if block:
        stage, index, _, convolution, norm, end = block.groups()
        part = f"{'bn' if norm else 'conv'}{convolution}" if convolution else f"downsample.{int(bool(norm))}"
        return f"backbone.body.layer{int(stage) - 1}.{index}.{part}.{end}"
    pyramid = _ADELAIDET_FPN.fullmatch(name)
    if pyramid:
        kind, level, end = pyramid.groups()
        return f"fpn.{'inner' if kind == 'lateral' else 'layer'}_blocks.{int(level) - 2}.0.{end}"
    return _renamed(name, _ADELAIDET)


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    """By the first pattern that matches; what none does is left over, and named as such."""
    for pattern, goal in table:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, goal, name)
    return name


def _our_pixels(stem: Tensor) -> Tensor:
    """Weights (64, 3, 7, 7) for blue, green, red of 0 to 255 less the mean, for red, green, blue by mean and std."""
    std = torch.tensor(IMAGENET_DEFAULT_STD, dtype=torch.float64)[:, None, None]
    return (stem.double().flip(1) * 255 * std).to(stem.dtype)


def _config_of(state: Mapping[str, Tensor], role: Role, *, stride_in_1x1: bool) -> SegmenterConfig:
    """What the shapes tell of a network; KeyError where a tensor is missing or the ResNet unknown."""
    blocks = _count(state, r"backbone\.body\.layer3\.(\d+)\.")
    resnet = _RESNETS["backbone.body.layer1.0.conv3.weight" in state, blocks]
    depth = _towers(state)
    name = f"solov2-light-{resnet}" if depth == _LIGHT_DEPTH else f"solov2-{resnet}"
    if name not in SEGMENTERS:
        raise KeyError(name)
    return segmenter_config(
        name,
        state["ins_head.cate_pred.bias"].shape[0],
        role,
        tower_depth=depth,
        tower_width=state["ins_head.cate_tower.0.weight"].shape[0],
        embedding=state["ins_head.kernel_pred.bias"].shape[0],
        mask_width=state["mask_head.conv_pred.0.weight"].shape[1],
        stride_in_1x1=stride_in_1x1,
    )


def _towers(state: Mapping[str, Tensor]) -> int:
    return (_count(state, r"ins_head\.cate_tower\.(\d+)\.") + 1) // 3


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return max(_indices(state, pattern), default=-1) + 1


def _indices(state: Mapping[str, Tensor], pattern: str) -> Iterator[int]:
    for name in state:
        found = re.match(pattern, name)
        if found:
            yield int(found.group(1))
