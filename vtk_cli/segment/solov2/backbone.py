"""Backbones of four maps with strides 4, 8, 16, 32: any timm network that has them, and the micro one with three."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import freeze_batch_norm_2d
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.names import parse_network
from vtk_cli.models.published import timm_weights
from vtk_cli.models.weights import WeightFile, head_classes, read_state_dict
from vtk_cli.segment.solov2.configurations import MICRO_BACKBONE, SegmenterConfig

STRIDES = [4, 8, 16, 32]
_MICRO_WIDTHS = (32, 64, 96)
_MICRO_STEM = 16


class TimmBackbone(nn.Module):
    """The maps C2..C5 of a timm network.

    Args:
        name: timm's, with or without the tag of its weights.
        frozen: batch norms keep their statistics; where there are any, stem and first stage do not learn.
        stride_in_1x1: see `SegmenterConfig`.

    Raises:
        UserError: timm knows no such network, or it has no maps of these strides.
    """

    def __init__(self, name: str, *, frozen: bool, stride_in_1x1: bool) -> None:
        super().__init__()
        self.body = _feature_network(name)
        self.widths: tuple[int, ...] = tuple(self.body.feature_info.channels())
        self.strides = tuple(STRIDES)
        self.channels_last = self.body.output_fmt.value == "NHWC"
        # Detectors norm the maps of a transformer (arXiv 2103.14030): its blocks add to them without bound.
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.widths if self.channels_last)
        if stride_in_1x1:
            _move_strides(self.body)
        if frozen and any(isinstance(module, nn.BatchNorm2d) for module in self.body.modules()):
            self.body = freeze_batch_norm_2d(self.body)
            _freeze_until(self.body, self.body.feature_info.module_name()[0])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), sides multiples of 32, to four maps (B, C_i, H / stride, W / stride)."""
        maps: Sequence[Tensor] = self.body(images)
        if self.channels_last:
            pairs = zip(self.norms, maps, strict=True)
            return tuple(norm(each).permute(0, 3, 1, 2).contiguous() for norm, each in pairs)
        return tuple(maps)


class MicroBackbone(nn.Module):
    """A stem and three stages of two convolutions, for 128-pixel scenes: maps of strides 4, 8, 16."""

    def __init__(self) -> None:
        super().__init__()
        self.widths = _MICRO_WIDTHS
        self.strides = (4, 8, 16)
        self.stem = _convolution(3, _MICRO_STEM, stride=2)
        before = (_MICRO_STEM, *_MICRO_WIDTHS)
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(inside, width, stride=2), _convolution(width, width))
            for inside, width in zip(before, _MICRO_WIDTHS, strict=False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), sides multiples of 16, to three maps (B, C_i, H / stride, W / stride)."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return tuple(maps[1:])


def build_backbone(config: SegmenterConfig) -> TimmBackbone | MicroBackbone:
    """The backbone of a network, with random weights.

    Raises:
        UserError: see `TimmBackbone`.
    """
    if config.backbone == MICRO_BACKBONE:
        return MicroBackbone()
    return TimmBackbone(config.backbone, frozen=config.frozen, stride_in_1x1=config.stride_in_1x1)


def backbone_file(config: SegmenterConfig, *, offline: bool) -> WeightFile:
    """The ImageNet weights published for a backbone: from this machine's caches, else fetched.

    Raises:
        NoWeights: timm publishes none, or they are not here and cannot be fetched.
    """
    return timm_weights(parse_network(config.backbone), offline=offline)


def load_backbone(backbone: TimmBackbone, name: str, path: Path) -> None:
    """Load ImageNet weights; the norms that a transformer's maps get here stay as they are.

    Args:
        backbone: of the timm network `name`.
        name: with or without the tag of its weights.
        path: a weight file of that network, with or without a classifier; timm converts the forms it knows.

    Raises:
        UserError: the file cannot be read, or holds another network.
    """
    state = read_state_dict(path)
    classes = head_classes(state) or 0
    overlay = {"source": None, "state_dict": state, "num_classes": classes}
    try:
        filled = timm.create_model(
            name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=classes, **_arguments(name)
        )
    except Exception as error:  # a conversion may stumble anywhere over tensors it did not expect
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"are no weights of {name} ({reason})", str(path), "name ImageNet weights of it") from error
    backbone.body.load_state_dict(_by_feature_names(filled.state_dict(), backbone.body.state_dict()), strict=True)


def _feature_network(name: str) -> Any:
    """timm's network `name` with the maps of `STRIDES` alone."""
    architecture = parse_network(name)
    try:
        with torch.device("meta"):
            strides = timm.create_model(name, features_only=True, **_arguments(name)).feature_info.reduction()
        indices = tuple(strides.index(stride) for stride in STRIDES)
        return timm.create_model(name, features_only=True, out_indices=indices, **_arguments(name))
    except Exception as error:  # architectures say in as many ways as there are that they have no such maps
        what = "has no feature maps of strides 4, 8, 16 and 32"
        raise UserError(what, architecture.spec, "take a ResNet, a ConvNeXt or a Swin") from error


def _arguments(name: str) -> dict[str, Any]:
    """What makes a network of a fixed input size take any."""
    config = get_pretrained_cfg(name)
    return {"strict_img_size": False} if config is not None and config.fixed_input_size else {}


def _by_feature_names(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's tensors by the names of its feature network, where `layers.0` is `layers_0`."""
    renamed = {name.replace(".", "_", 1) if name.split(".")[1].isdigit() else name: name for name in state}
    found = {name: name for name in state} | renamed
    return {name: state[found[name]] for name in wanted}


def _move_strides(body: nn.Module) -> None:
    for module in body.modules():
        if hasattr(module, "conv3") and isinstance(getattr(module, "conv2", None), nn.Conv2d):
            first, second = module.get_submodule("conv1"), module.get_submodule("conv2")
            first.stride, second.stride = second.stride, (1, 1)  # type: ignore[assignment]  # they are convolutions


def _freeze_until(body: nn.Module, last: str) -> None:
    """No parameter learns of the parts of `body` up to and including `last`."""
    for name, part in body.named_children():
        part.requires_grad_(False)  # noqa: FBT003 - torch's signature
        if name == last.replace(".", "_"):
            return


def _convolution(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU())
