"""From a name to a video network with random weights."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

from vtk_cli.errors import UserError, nearest
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone, VideoTransformer
from vtk_cli.video_pretrain.networks.c3d_tiny import C3DTiny
from vtk_cli.video_pretrain.networks.catalog import BackboneEntry, backbone_entry
from vtk_cli.video_pretrain.networks.motionformer import Motionformer
from vtk_cli.video_pretrain.networks.slow import SLOW_R18, SLOW_R50, SlowOnly
from vtk_cli.video_pretrain.networks.timesformer import TimeSformer
from vtk_cli.video_pretrain.networks.torchvision_networks import torchvision_backbone
from vtk_cli.video_pretrain.networks.vit_shape import TINY, ViTShape, vit_shape, with_changes
from vtk_cli.video_pretrain.networks.xvit import XViT

_SLOW = {"slow_r50": SLOW_R50, "slow_r18": SLOW_R18}
_TRANSFORMERS: dict[str, Callable[..., VideoTransformer]] = {
    "timesformer": TimeSformer,
    "motionformer": Motionformer,
    "xvit": XViT,
}
_SHAPE = tuple(field.name for field in dataclasses.fields(ViTShape))


def create_backbone(name: str, *, frames: int, side: int, **model_args: Any) -> VideoBackbone:
    """The video network `name` with random weights, from torch's global generator; in train mode, on the CPU.

    Args:
        name: as `backbone_entry` knows it: `slow_r50`, `timesformer`, `timesformer:vit_small_patch16_224`, ...
        frames: T of the clips; convolutional networks take other lengths too, transformers their nearest positions.
        side: of the clips, in pixels.
        model_args: for the network's constructor; of a transformer also the fields of `ViTShape`.

    Raises:
        UserError: an unknown name or argument, a size that the network cannot take, or a timm network that is no plain
            ViT.
    """
    entry = backbone_entry(name)
    if frames < 1 or side < 1:
        raise UserError(f"there are no clips of {frames} x {side} x {side}", fix="take one frame and one pixel or more")
    if entry.has_tokens:
        return _transformer(entry, frames, side, model_args)
    if entry.family == "torchvision":
        try:
            return torchvision_backbone(name, frames=frames, side=side, **model_args)
        except (TypeError, ValueError) as error:
            raise UserError(f"cannot be built with {model_args} ({error})", name) from error
    _refuse_unknown(name, model_args, ())
    return C3DTiny() if entry.family == "c3d" else SlowOnly(_SLOW[name])


def _transformer(entry: BackboneEntry, frames: int, side: int, model_args: dict[str, Any]) -> VideoTransformer:
    make = _TRANSFORMERS[entry.family]
    own = [name for name in inspect.signature(make).parameters if name not in {"shape", "frames", "side"}]
    _refuse_unknown(entry.name, model_args, (*_SHAPE, *own))
    shape = vit_shape(entry.image_vit) if entry.image_vit else TINY
    shape = with_changes(shape, {name: value for name, value in model_args.items() if name in _SHAPE})
    arguments = {name: value for name, value in model_args.items() if name in own}
    if not entry.image_vit:
        # Nothing is there that a temporal branch at zero would protect; drop-path is for deep networks.
        arguments = {"zero_temporal": False, "drop_path": 0.0} | arguments
    return make(shape, frames=frames, side=side, **arguments)


def _refuse_unknown(name: str, model_args: dict[str, Any], known: tuple[str, ...]) -> None:
    for argument in model_args:
        if argument not in known:
            fix = nearest(argument, known) or (f"it takes {', '.join(known)}" if known else "it takes none")
            raise UserError(f"{name} takes no argument {argument!r}", fix=fix)
