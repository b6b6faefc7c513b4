"""Generators of transposed convolutions (DCGAN, arXiv 1511.06434)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

_EXTRA = 2


class DcganGenerator(nn.Module):
    """Layers one after another, of which the first makes 4 x 4 pixels of the noise."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, nz) -> images before the tanh (B, channels, R, R)."""
        image: Tensor = self.layers(noise[:, :, None, None])
        return image


def dcgan(image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> nn.Module:
    """Widths halve with every doubling of the size, down to `ngf` at half the image's size.

    There two 3x3 convolutions follow, and a transposed one makes the image, as for feature matching (arXiv 1904.02762).
    """
    widths = [ngf << power for power in range(image_size.bit_length() - 4, -1, -1)]
    layers = [nn.ConvTranspose2d(nz, widths[0], 4, bias=bias), *_normed(widths[0], bias)]
    for pair in pairwise(widths):
        layers += [nn.ConvTranspose2d(*pair, 4, 2, 1, bias=bias), *_normed(pair[1], bias)]
    for _ in range(_EXTRA):
        layers += [nn.Conv2d(ngf, ngf, 3, padding=1, bias=bias), *_normed(ngf, bias)]
    return DcganGenerator([*layers, nn.ConvTranspose2d(ngf, channels, 4, 2, 1, bias=bias)])


def dcgan_tiny(image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> nn.Module:
    """Widths halve from `2 ngf` at 4 x 4 to the image's size, where a 3x3 convolution makes the image."""
    widths = [max(2 * ngf >> power, 1) for power in range(image_size.bit_length() - 2)]
    layers = [nn.ConvTranspose2d(nz, widths[0], 4, bias=bias), *_normed(widths[0], bias)]
    for pair in pairwise(widths):
        layers += [nn.ConvTranspose2d(*pair, 4, 2, 1, bias=bias), *_normed(pair[1], bias)]
    return DcganGenerator([*layers, nn.Conv2d(widths[-1], channels, 3, padding=1, bias=bias)])


def _normed(width: int, affine: bool) -> list[nn.Module]:
    return [nn.BatchNorm2d(width, affine=affine), nn.ReLU()]
