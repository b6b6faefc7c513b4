"""Published weights to start from: those of an image ViT for a video transformer, of Kinetics for torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torchvision import models

from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file
from vtk_cli.models.names import NetworkName, parse_network
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.models.published import torchvision_weights
from vtk_cli.models.weights import mismatch, read_state_dict
from vtk_cli.models.zoo import PRETRAINED, build, find_weights, load
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone, VideoTransformer
from vtk_cli.video_pretrain.networks.catalog import backbone_entry
from vtk_cli.video_pretrain.networks.timesformer import TimeSformer
from vtk_cli.video_pretrain.networks.torchvision_networks import TorchvisionBackbone
from vtk_cli.video_pretrain.networks.xvit import XViT

_CLASSIFIERS = ("head.", "fc.", "classifier.")
_TEMPORAL = {"temporal_norm1.": "norm1.", "temporal_attn.": "attn."}
"""What TimeSformer copies from its spatial counterpart (arXiv 2207.09067)."""


@dataclass(frozen=True)
class Start:
    """Where a network's weights came from.

    Args:
        source: `file: PATH`, `cache: WHERE` or `download: WHERE`.
        sha256: of the weight file.
        made_anew: the parameters that were not in it.
        pixels: the mean and deviation of the pixels it was trained with; None where nothing says so.
    """

    source: str
    sha256: str
    made_anew: tuple[str, ...]
    pixels: PixelConfig | None = None


def start_from_published(
    backbone: VideoBackbone, name: str, weights: str | Path = PRETRAINED, *, offline: bool = False
) -> Start:
    """Fill a network with what is published for it: image weights for a video transformer, else torchvision's.

    Args:
        backbone: of `create_backbone(name, ...)`; positions are resized to its grid of patches.
        name: its name.
        weights: `pretrained`, or a weight file of the image ViT, of the torchvision network, or a folder with a
            `model.safetensors`.
        offline: look for published weights on this machine only.

    Raises:
        NoWeights: there are none here and no network.
        UserError: none are published for the network, or the file does not fit.
    """
    entry = backbone_entry(name)
    file = weights if weights == PRETRAINED else _file(weights)
    if isinstance(backbone, VideoTransformer) and entry.image_vit:
        return _from_image_vit(backbone, entry.image_vit, file, offline=offline)
    if isinstance(backbone, TorchvisionBackbone):
        return _from_torchvision(backbone, name, file, offline=offline)
    raise UserError("no weights are published for it", name, "start from scratch or from a checkpoint of a run")


def takes_published(backbone: VideoBackbone, name: str) -> bool:
    """Whether there are image or torchvision weights for a network."""
    is_vit = isinstance(backbone, VideoTransformer) and bool(backbone_entry(name).image_vit)
    return is_vit or isinstance(backbone, TorchvisionBackbone)


def copy_image_vit(backbone: VideoTransformer, image: nn.Module, where: str) -> tuple[str, ...]:
    """Copy the weights of an image ViT into a video transformer.

    TimeSformer's attention over time gets those of its attention over space; the linear layer after it stays at zero,
    and so do the temporal positions.

    Args:
        backbone: what an image network has no counterpart of stays as it is.
        image: a timm ViT of the same shape.
        where: its file or name, for errors.

    Returns:
        The names of the parameters that stay as they were.

    Raises:
        UserError: the shapes differ.
    """
    part = backbone.base_model if isinstance(backbone, XViT) else backbone
    own = part.state_dict()
    given = _without_classifier(image.state_dict())
    if isinstance(backbone, TimeSformer):
        given |= _over_time(given)
    kept = {key: tensor for key, tensor in own.items() if key not in given and _is_temporal(key)}
    if differs := mismatch(part, given | kept):
        raise UserError(differs, where, "name image weights of a ViT of the same size")
    part.load_state_dict(given | kept)
    prefix = "base_model." if part is not backbone else ""
    copied = {prefix + key for key in given}
    return tuple(key for key in backbone.state_dict() if key not in copied)


def _from_image_vit(backbone: VideoTransformer, image_vit: str, weights: str | Path, *, offline: bool) -> Start:
    name = parse_network(image_vit)
    found = find_weights(name, weights, offline=offline)
    if found is None:
        raise UserError("no image weights are given", image_vit, "give pretrained or a file")
    image, pixels = build(name, load(found), None, {"img_size": backbone.side})
    made_anew = copy_image_vit(backbone, image, str(found.path))
    return Start(found.source, sha256_file(found.path), made_anew, pixels)


def _from_torchvision(backbone: TorchvisionBackbone, name: str, weights: str | Path, *, offline: bool) -> Start:
    tag = models.get_model_weights(name).DEFAULT.name
    found = find_weights_of_video(NetworkName(name, name, "torchvision", f"tv:{name}", tag), weights, offline=offline)
    path, source = found
    state = _without_classifier(read_state_dict(path))
    state = {key.removeprefix("features."): tensor for key, tensor in state.items()} if name == "s3d" else state
    if differs := mismatch(backbone.body, state):
        raise UserError(differs, str(path), "give weights of the same network, and of clips as large for mvit_v2_s")
    backbone.body.load_state_dict(state)
    return Start(source, sha256_file(path), ())


def find_weights_of_video(name: NetworkName, weights: str | Path, *, offline: bool) -> tuple[Path, str]:
    """The weight file of a torchvision video network, and where it came from.

    Raises:
        NoWeights: the published ones are not here and there is no network.
    """
    if weights != PRETRAINED:
        return Path(weights), f"file: {weights}"
    found = torchvision_weights(name, offline=offline)
    return found.path, found.source


def _file(weights: str | Path) -> Path:
    path = Path(weights).expanduser()
    return path / "model.safetensors" if path.is_dir() else path


def _without_classifier(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith(_CLASSIFIERS)}


def _over_time(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    copies = {}
    for key, tensor in state.items():
        for temporal, spatial in _TEMPORAL.items():
            block, found, end = key.partition(f".{spatial}")
            if found and block.startswith("blocks."):
                copies[f"{block}.{temporal}{end}"] = tensor
    return copies


def _is_temporal(key: str) -> bool:
    """Whether an image network has no counterpart of a parameter."""
    return key in {"time_embed", "temp_embed"} or key.startswith("pre_logits.") or _middle(key) in _NEW_IN_BLOCKS


_NEW_IN_BLOCKS = {"temporal_fc", "attn.proj_q", "attn.proj_kv"}


def _middle(key: str) -> str:
    """`blocks.3.attn.proj_q.weight` -> `attn.proj_q`."""
    return ".".join(key.split(".")[2:-1])
