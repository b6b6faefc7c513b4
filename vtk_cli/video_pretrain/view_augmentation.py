"""What is done to a training clip, every frame alike: parameters are drawn once, then applied to whole clips.

In the order of the contrastive trainings (arXiv 2104.14558): colour jitter, grey, blur, normalisation, crop and resize,
flip. Frequency augmentation comes after it all (`freqaug.py`), on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, RandAugment, rand_augment_transform
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from vtk_cli.engine.seeds import sample_rng
from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.augmentation_options import NO_POLICY, AugmentationOptions
from vtk_cli.video_pretrain.separable import convolve, gaussian_kernel

Box = tuple[int, int, int, int]
"""top, left, height, width in pixels."""
_TRIES = 10
_GRAY_LEVELS = 128
_NO_CHROMA = 1e-12


@dataclass(frozen=True)
class ViewDraw:
    """What happens to one clip.

    Args:
        jitter: (name, factor) in order: brightness, contrast, saturation around 1, hue around 0; empty for none.
        gray: whether colours go.
        blur: sigma of a Gaussian in pixels of the clip; None for none.
        box: what is cut out of the clip, or of the resized clip where `resized` is given.
        resized: the size (H, W) that the clip is resized to before; None cuts first and resizes the part.
        flip: whether left and right change places.
        policy_seed: RandAugment's draws; None for no policy.
    """

    jitter: tuple[tuple[str, float], ...]
    gray: bool
    blur: float | None
    box: Box
    resized: tuple[int, int] | None
    flip: bool
    policy_seed: int | None = None


@dataclass(frozen=True)
class ViewAugmentation:
    """Draws and applies.

    Args:
        side: of the view, in pixels.
        crop: `random-resized`: a part of random area and shape; `short-side`: the short side gets a random length.
        area: least and most share of a random part.
        aspect: most that a part is wider than high, or higher than wide.
        short_side: least and most length.
        hflip, jitter_prob, gray_prob, blur_prob: chances.
        jitter, hue: strengths.
        blur: least and largest sigma.
        mean, std: values in [0, 1] less `mean` over `std`.
        policy: RandAugment's name in timm; empty for none.
    """

    side: int
    crop: Literal["random-resized", "short-side"]
    area: tuple[float, float]
    aspect: float
    short_side: tuple[int, int]
    hflip: float
    jitter: float
    hue: float
    jitter_prob: float
    gray_prob: float
    blur_prob: float
    blur: tuple[float, float]
    mean: float
    std: float
    policy: str = ""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> ViewDraw:
        """Parameters for a clip of `height` x `width` pixels."""
        jitter = self._draw_jitter(rng) if rng.random() < self.jitter_prob else ()
        gray = bool(rng.random() < self.gray_prob)
        blur = float(rng.uniform(*self.blur)) if rng.random() < self.blur_prob else None
        if self.crop == "random-resized":
            box, resized = self._draw_part(height, width, rng), None
        else:
            short = int(rng.integers(self.short_side[0], self.short_side[1] + 1))
            resized = scaled_size(height, width, max(short, self.side))
            top, left = (int(rng.integers(0, extent - self.side + 1)) for extent in resized)
            box = (top, left, self.side, self.side)
        flip = bool(rng.random() < self.hflip)
        return ViewDraw(jitter, gray, blur, box, resized, flip, int(rng.integers(2**63)) if self.policy else None)

    def apply(self, clip: Tensor, draw: ViewDraw) -> Tensor:
        """A view of a clip.

        Args:
            clip: uint8 (T, H, W, 3), on any device.
            draw: what happens to it.

        Returns:
            float32 (3, T, side, side), normalised.
        """
        if draw.policy_seed is not None:
            clip = with_policy(clip, self.policy, draw.policy_seed)
        frames = clip.permute(0, 3, 1, 2).contiguous().float() / 255
        for name, factor in draw.jitter:
            frames = _ADJUST[name](frames, factor)
        if draw.gray:
            frames = F.rgb_to_grayscale(frames, num_output_channels=3)
        if draw.blur is not None:
            frames = blurred(frames, draw.blur)
        frames = (frames - self.mean) / self.std
        size = [self.side, self.side]
        if draw.resized is None:
            frames = F.resized_crop(frames, *draw.box, size=size, antialias=True)
        else:
            frames = F.crop(F.resize(frames, list(draw.resized), antialias=True), *draw.box)
        if draw.flip:
            frames = frames.flip(-1)
        view: Tensor = frames.transpose(0, 1).contiguous()
        return view

    def _draw_jitter(self, rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
        names = ("brightness", "contrast", "saturation")
        low, high = max(0.0, 1 - self.jitter), 1 + self.jitter
        drawn = [(name, float(rng.uniform(low, high))) for name in names] if self.jitter else []
        if self.hue:
            drawn.append(("hue", float(rng.uniform(-self.hue, self.hue))))
        return tuple(drawn[at] for at in rng.permutation(len(drawn)))

    def _draw_part(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """A part of random area and shape, as in Inception's training; the whole middle where none fits."""
        spread = math.log(self.aspect)
        for _ in range(_TRIES):
            area, ratio = height * width * rng.uniform(*self.area), math.exp(rng.uniform(-spread, spread))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
        short = min(height, width)
        return (height - short) // 2, (width - short) // 2, short, short


def augmentation_of(options: AugmentationOptions, side: int) -> ViewAugmentation:
    """The augmentation that options describe, for views of `side` x `side` pixels.

    Raises:
        UserError: timm knows no such policy.
    """
    policy = "" if options.rand_augment == NO_POLICY else options.rand_augment
    if policy:
        check_policy(policy)
    return ViewAugmentation(
        side,
        options.crop,
        (options.crop_area_min, options.crop_area_max),
        options.crop_aspect,
        (options.short_side_min, options.short_side_max),
        options.hflip,
        options.jitter,
        options.jitter_hue,
        options.jitter_prob,
        options.gray_prob,
        options.blur_prob,
        (options.blur_min, options.blur_max),
        options.mean,
        options.std,
        policy,
    )


def scaled_size(height: int, width: int, short: int) -> tuple[int, int]:
    """The size with the short side `short`, in the same proportions, rounded."""
    scale = short / min(height, width)
    return max(short, round(height * scale)), max(short, round(width * scale))


def blurred(frames: Tensor, sigma: float) -> Tensor:
    """Frames (T, 3, H, W) under a Gaussian, each by itself; its kernel reaches three sigma, within the frame."""
    reach = min(math.ceil(3 * sigma), (min(frames.shape[-2:]) - 1))
    return convolve(frames.flatten(0, 1), gaussian_kernel(sigma, reach), "reflect").view_as(frames) if reach else frames


def turned_hue(frames: Tensor, turn: float) -> Tensor:
    """Frames (T, 3, H, W) in [0, 1] with every hue `turn` of a full circle further, as torchvision's `adjust_hue`.

    In a third of its time: a pixel's largest and least channel stay, and between them each channel is a trapezoid of
    the hue, so that no colour is converted there and back.
    """
    red, green, blue = frames.unbind(1)
    most, least = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = most - least
    share = 1 / chroma.clamp(min=_NO_CHROMA)
    sixths = torch.where(
        red == most,
        (green - blue) * share,
        torch.where(green == most, ((blue - red) * share).add_(2), ((red - green) * share).add_(4)),
    )
    turned = torch.empty_like(frames)
    for channel, place in enumerate((5, 3, 1)):
        k = sixths / 6 + (turn + place / 6)
        k.sub_(k.floor()).mul_(6)
        torch.sub(most, torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma), out=turned[:, channel])
    return turned


def check_policy(name: str) -> None:
    """Raise `UserError` where timm cannot read a RandAugment policy's name."""
    try:
        _policy(name)
    except (AssertionError, KeyError, ValueError) as error:
        what = f"{name!r} is no RandAugment policy"
        raise UserError(what, "--rand-augment", "give e.g. rand-m20-mstd0.5-inc1") from error


def with_policy(clip: Tensor, name: str, seed: int) -> Tensor:
    """A clip uint8 (T, H, W, 3) under RandAugment, the same operations and strengths for every frame.

    In the code of arXiv 2207.09067 the first frame gets other operations than the rest; here all get the same.
    """
    policy = _policy(name)
    frames = []
    for frame in clip.cpu().numpy():
        with sample_rng(seed):
            frames.append(np.asarray(policy(Image.fromarray(frame)), np.uint8))
    return torch.from_numpy(np.stack(frames)).to(clip.device)


def _policy(name: str) -> RandAugment:
    if not name.startswith("rand"):
        raise ValueError(name)
    policy = rand_augment_transform(name, {"img_mean": (_GRAY_LEVELS,) * 3})
    if not all(isinstance(operation, AugmentOp) for operation in policy.ops):
        raise ValueError(name)
    return policy


_ADJUST = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": turned_hue,
}
