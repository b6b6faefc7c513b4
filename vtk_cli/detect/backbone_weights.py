"""ImageNet weights for the backbone: timm's Swin, or a Swin file of its authors or of ViDT's (`swin_nano_*.pth`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vtk_cli.detect.backbone import RamSwin
from vtk_cli.detect.configurations import TIMM_BACKBONES, BackboneConfig
from vtk_cli.errors import UserError
from vtk_cli.models.names import parse_network
from vtk_cli.models.published import timm_weights
from vtk_cli.models.weights import NoWeights, WeightFile, mismatch, read_state_dict

_DROPPED = ("norm.", "head.", "norm0.", "norm1.", "norm2.", "norm3.")
_TABLES = (".attn_mask", ".relative_position_index")


def backbone_file(config: BackboneConfig, *, offline: bool) -> WeightFile:
    """The weights published for a backbone: from this machine's caches, else fetched.

    Raises:
        NoWeights: timm publishes none, or they are not here and cannot be fetched.
    """
    if config.name not in TIMM_BACKBONES:
        raise NoWeights("timm publishes no weights for it", config.name, "give the file of its weights")
    try:
        return timm_weights(parse_network(TIMM_BACKBONES[config.name]), offline=offline)
    except NoWeights as error:
        fix = "fetch them elsewhere and give --weights FILE, or give --weights none"
        raise NoWeights(error.what, error.where, fix) from error


def load_backbone(backbone: RamSwin, path: Path) -> tuple[str, ...]:
    """Load ImageNet weights into the patches' part of a backbone.

    Args:
        backbone: what was not in ImageNet training stays as it is: DET tokens, their positions, the last merging.
        path: a file in timm's form or in that of Swin's authors, with or without a classifier.

    Returns:
        The names of what stays as it was.

    Raises:
        UserError: the file cannot be read, or holds another network.
    """
    state = swin_state(read_state_dict(path))
    new = {name: tensor for name, tensor in backbone.state_dict().items() if is_new(name, len(backbone.layers))}
    differs = mismatch(backbone, {**new, **state})
    if differs:
        raise UserError(differs, str(path), "name ImageNet weights of the same Swin, with windows as wide")
    backbone.load_state_dict({**new, **state})
    return tuple(new)


def swin_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's weights by the backbone's names.

    timm merges patches at the start of stages 1..3, Swin's authors and ViDT at the end of stages 0..2; the channels
    have the same order. Classifier, final norm and index tables are dropped.
    """
    at_start = not any(name.startswith("layers.0.downsample.") for name in state)
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(_DROPPED) or name.endswith(_TABLES):
            continue
        parts = name.split(".")
        if at_start and parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts)] = tensor
    return renamed


def is_new(name: str, stages: int) -> bool:
    """Whether a parameter of the backbone has no counterpart in a classifier."""
    return name.startswith(("det_", f"layers.{stages - 1}.downsample.")) or ".det_pos_linear." in name
