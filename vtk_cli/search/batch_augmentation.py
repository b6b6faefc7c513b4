"""What is done to a whole batch of training images, on the device: shifts, padded crops, flips, colours, holes.

Every draw comes from one generator of the CPU, so that a batch that is made again is augmented as before. It is a draw
for the whole batch: several processes that share one, each with as many images, do to theirs what one process would.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Share = tuple[int, int]
"""The number of this process, and how many share a batch."""

_ALONE: Share = (0, 1)
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
"""Principal components of ImageNet's colours in [0, 1], a row a channel (Krizhevsky et al., NIPS 2012, Section 4.1)."""


@dataclass(frozen=True)
class BatchAugmentation:
    """What is done to a batch.

    Args:
        wrap: the whole batch moves by up to so many pixels along each axis; what leaves on one side comes in on the
            other.
        padding: each image is cut out of itself with a black border of so many pixels.
        flip: whether each image is flipped from left to right half of the time.
        lighting: deviation of the random weights of the principal colours that are added to each image.
        hole: side of the square of each image that is set to the mean (arXiv 1708.04552).
    """

    wrap: int = 0
    padding: int = 0
    flip: bool = False
    lighting: float = 0.0
    hole: int = 0

    def moved(self, images: Tensor, generator: torch.Generator, share: Share = _ALONE) -> Tensor:
        """Images (B, C, S, S) of any type: shifted, cropped, flipped."""
        if self.wrap:
            down, right = torch.randint(-self.wrap, self.wrap + 1, (2,), generator=generator).tolist()
            images = torch.roll(images, (down, right), dims=(2, 3))
        if not self.padding and not self.flip:
            return images
        count, _, height, width = images.shape
        rows, columns = torch.arange(height).expand(count, -1), torch.arange(width).expand(count, -1)
        if self.padding:
            offsets = torch.randint(0, 2 * self.padding + 1, (2, count * share[1], 1), generator=generator)
            offsets = offsets[:, _own(count, share)]
            images = torch.nn.functional.pad(images, (self.padding,) * 4)
            rows, columns = rows + offsets[0], columns + offsets[1]
        if self.flip:
            flipped = torch.rand(count * share[1], 1, generator=generator)[_own(count, share)] < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        rows, columns = rows.to(images.device), columns.to(images.device)
        number = torch.arange(count, device=images.device)[:, None, None]
        # Indices on both sides of a slice put the sliced axis last.
        return images[number, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def lit(self, images: Tensor, generator: torch.Generator, share: Share = _ALONE) -> Tensor:
        """Images (B, 3, S, S) in [0, 1], with principal colours added; they may leave that range."""
        if not self.lighting:
            return images
        drawn = torch.randn(len(images) * share[1], 3, generator=generator)
        weights = drawn[_own(len(images), share)] * self.lighting
        colours = (weights * torch.tensor(_EIGENVALUES)) @ torch.tensor(_EIGENVECTORS).T
        return images + colours.to(images.device)[:, :, None, None]

    def holed(self, images: Tensor, generator: torch.Generator, share: Share = _ALONE) -> Tensor:
        """Normalised images (B, C, S, S), a square of each set to 0; it may reach over the border."""
        if not self.hole:
            return images
        count, _, height, width = images.shape
        inside = []
        for side in (height, width):
            drawn = torch.randint(0, side, (count * share[1], 1), generator=generator)
            first = drawn[_own(count, share)] - self.hole // 2
            at = torch.arange(side)
            inside.append((at >= first) & (at < first + self.hole))
        hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return images.masked_fill(hole.to(images.device), 0.0)


def _own(count: int, share: Share) -> slice:
    return slice(share[0] * count, (share[0] + 1) * count)
