"""How an image becomes a network's input: size, crop, interpolation, mean and standard deviation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from vtk_cli.errors import UserError

_LARGEST_SIDE, _SMALLEST_CROP = 4096, 0.05
"""Of the images that a file may ask for."""
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
"""As timm names them."""
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class PixelConfig:
    """The preprocessing that belongs to a network's weights.

    Args:
        input_size: side of the square input, in pixels.
        mean, std: per channel, in units of pixels in [0, 1].
        interpolation: `bicubic`, `bilinear` or `nearest`, of the resize before the centre crop.
        crop_pct: side of the crop over the shorter side of the resized image, in (0, 1].
    """

    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 0.875


def timm_pixels(module: nn.Module, model_args: Mapping[str, Any], where: str) -> PixelConfig:
    """The preprocessing timm's `pretrained_cfg` on `module` describes, at its training size; timm's defaults without.

    Args:
        module: a network; `img_size` or `image_size` of `model_args` overrules the size of its description.
        model_args: what its constructor was given.
        where: its name, for errors.

    Raises:
        UserError: its input is not square.
    """
    described = getattr(module, "pretrained_cfg", None)
    described = described if isinstance(described, Mapping) else {"input_size": (3, 224, 224)}
    config = resolve_data_config({}, pretrained_cfg=described, use_test_size=False)
    size = _given_size(model_args) or config["input_size"][-2:]
    return PixelConfig(
        input_size=_side(size, where),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_pct=config["crop_pct"],
    )


def torchvision_pixels(weights: Any, model_args: Mapping[str, Any], where: str) -> PixelConfig:
    """The preprocessing of a torchvision weights entry (`ResNet50_Weights.IMAGENET1K_V2`).

    Raises:
        UserError: its input is not square.
    """
    preset = weights.transforms()
    crop = preset.crop_size[0]
    return PixelConfig(
        input_size=_side(_given_size(model_args) or crop, where),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        crop_pct=crop / preset.resize_size[0],
    )


def pixels_to_json(config: PixelConfig) -> str:
    """`config` as JSON, for the metadata of a weight file."""
    return json.dumps(asdict(config))


def pixels_from_json(text: str, path: Path) -> PixelConfig:
    """The inverse of `pixels_to_json`.

    Raises:
        UserError: it does not describe a preprocessing; the message names the file `path`.
    """
    try:
        fields = json.loads(text)
        config = PixelConfig(
            input_size=_side(fields["input_size"], str(path)),
            mean=tuple(float(value) for value in fields["mean"]),
            std=tuple(float(value) for value in fields["std"]),
            interpolation=str(fields["interpolation"]),
            crop_pct=float(fields["crop_pct"]),
        )
        _check(config)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        what = f"its metadata does not describe a preprocessing ({type(error).__name__}: {error})"
        raise UserError(what, str(path), "write the file anew") from error
    return config


def _check(config: PixelConfig) -> None:
    """Raise `ValueError` where a file asks for images that nothing could be made of, or of any size."""
    if not 1 <= config.input_size <= _LARGEST_SIDE or not _SMALLEST_CROP <= config.crop_pct <= 1:
        raise ValueError(f"a crop of {config.crop_pct:g} of images of {config.input_size} pixels")
    if not all(map(math.isfinite, (*config.mean, *config.std))) or min(config.std, default=0.0) <= 0:
        raise ValueError("mean and deviation of the pixels are numbers, the deviation above 0")
    if config.interpolation not in _INTERPOLATIONS:
        raise ValueError(f"no interpolation {config.interpolation!r}")


def _given_size(model_args: Mapping[str, Any]) -> Any:
    return model_args.get("img_size") or model_args.get("image_size")


def _side(size: Any, where: str) -> int:
    sides = {int(size)} if isinstance(size, (int, float)) else {int(side) for side in size}
    if len(sides) != 1:
        raise UserError(
            f"needs images of {' x '.join(map(str, size))} pixels", where, "only square inputs are supported"
        )
    return sides.pop()


def luma(images: Tensor) -> Tensor:
    """Grey of colours, as ITU-R 601 weighs them: (B, 3, H, W) -> (B, 1, H, W)."""
    weights = torch.tensor(_LUMA, device=images.device, dtype=images.dtype).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)
