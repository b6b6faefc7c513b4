"""Networks as functions of pixels: resizing and normalisation live inside, so attacks are measured in pixels.

eps, clipping and storage are in [0, 1] pixel units; mean and std never touch eps (arXiv 2210.11407 attacks the image,
not the normalised input).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision
from torchvision.transforms.v2.functional import InterpolationMode

_INTERPOLATION = {
    "bicubic": InterpolationMode.BICUBIC,
    "bilinear": InterpolationMode.BILINEAR,
    "nearest": InterpolationMode.NEAREST,
}


Model = TypeVar("Model", bound=nn.Module)


class PixelModel(nn.Module):
    """A classifier as a function of pixels in [0, 1]: `net((resize(x) - mean) / std)`.

    Args:
        net: maps normalised images (B, 3, size, size) to logits (B, C).
        size: side of `net`'s input, in pixels; an image of that size is not resampled.
        mean, std: per channel, in [0, 1] pixel units.
        interpolation: `bicubic`, `bilinear` or `nearest`; antialiased, and the result is clamped to [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, net: nn.Module, size: int, mean: Sequence[float], std: Sequence[float], interpolation: str = "bicubic"
    ) -> None:
        super().__init__()
        self.net = net
        self.size = size
        self.interpolation = interpolation if interpolation in _INTERPOLATION else "bicubic"
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C) of `pixels` (B, 3, H, W) in [0, 1]; differentiable in `pixels`."""
        logits: Tensor = self.net(self.normalised(pixels))
        return logits

    def normalised(self, pixels: Tensor) -> Tensor:
        """What `net` sees of `pixels`: (B, 3, size, size), mean and std taken out."""
        if pixels.shape[-2:] != (self.size, self.size):
            method = _INTERPOLATION[self.interpolation]
            pixels = vision.resize(pixels, [self.size, self.size], interpolation=method, antialias=True).clamp(0, 1)
        return (pixels - self.mean.to(pixels.dtype)) / self.std.to(pixels.dtype)


@contextmanager
def as_function(model: Model) -> Iterator[Model]:
    """Use `model` as a fixed function: eval mode, no gradient to weights; on leaving all is as it was.

    Batch-norm buffers cannot change in eval mode, and the modes and `requires_grad` flags of every part are restored
    one by one, whatever state the caller's model was in.
    """
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad = False
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad = flag
