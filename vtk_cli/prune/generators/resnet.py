"""The residual generator of generative feature matching networks (arXiv 1904.02762)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class ResNetBlock(nn.Module):
    """Twice the size, `width` to `out` channels: BN, ReLU, up, conv, BN, ReLU, conv, beside conv 1x1, up."""

    def __init__(self, width: int, out: int, bias: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width, affine=bias)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(out, affine=bias)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=bias)
        self.bypass = nn.Conv2d(width, out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, out, 2H, 2W)."""
        main: Tensor = F.interpolate(self.bn1(x).relu(), scale_factor=2, mode="nearest")
        main = self.conv2(self.bn2(self.conv1(main)).relu())
        bypass: Tensor = F.interpolate(self.bypass(x), scale_factor=2, mode="nearest")
        total: Tensor = main + bypass
        return total


class ResNetGenerator(nn.Module):
    """A projection to 4 x 4, blocks whose widths halve down to `ngf`, BN, ReLU, conv to the image."""

    def __init__(self, image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> None:
        super().__init__()
        blocks = image_size.bit_length() - 3
        widths = [ngf << power for power in range(blocks, -1, -1)]
        self.first = nn.ConvTranspose2d(nz, widths[0], 4, bias=False)
        self.blocks = nn.ModuleList(ResNetBlock(*pair, bias) for pair in pairwise(widths))
        self.bn = nn.BatchNorm2d(ngf, affine=bias)
        self.last = nn.Conv2d(ngf, channels, 3, padding=1, bias=bias)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, nz) -> images before the tanh (B, channels, R, R)."""
        x = self.first(noise[:, :, None, None])
        for block in self.blocks:
            x = block(x)
        image: Tensor = self.last(self.bn(x).relu())
        return image


def resnet(image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> nn.Module:
    """The generator whose last block has `ngf` channels and each one before it twice as many."""
    return ResNetGenerator(image_size, channels, nz, ngf, bias)
