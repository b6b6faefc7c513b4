"""The residual generator of spectral normalisation's GANs (arXiv 1802.05957): every block has the same width."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class SnganBlock(nn.Module):
    """Twice the size: BN, ReLU, up, conv, BN, ReLU, conv, beside up, conv 1x1."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width, affine=bias)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width, affine=bias)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.shortcut = nn.Conv2d(width, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> (B, width, 2H, 2W)."""
        main: Tensor = F.interpolate(self.bn1(x).relu(), scale_factor=2, mode="nearest")
        main = self.conv2(self.bn2(self.conv1(main)).relu())
        shortcut: Tensor = self.shortcut(F.interpolate(x, scale_factor=2, mode="nearest"))
        total: Tensor = main + shortcut
        return total


class SnganGenerator(nn.Module):
    """A linear layer to 4 x 4, blocks of `ngf` channels, BN, ReLU, conv to the image."""

    def __init__(self, image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(nz, 16 * ngf, bias=bias)
        self.blocks = nn.ModuleList(SnganBlock(ngf, bias) for _ in range(image_size.bit_length() - 3))
        self.bn = nn.BatchNorm2d(ngf, affine=bias)
        self.last = nn.Conv2d(ngf, channels, 3, padding=1, bias=bias)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, nz) -> images before the tanh (B, channels, R, R)."""
        x = self.first(noise).view(len(noise), -1, 4, 4)
        for block in self.blocks:
            x = block(x)
        image: Tensor = self.last(self.bn(x).relu())
        return image


def sngan(image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> nn.Module:
    """The generator all of whose blocks have `ngf` channels."""
    return SnganGenerator(image_size, channels, nz, ngf, bias)
