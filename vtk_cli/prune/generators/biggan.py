"""BigGAN's generator for images without classes (arXiv 1809.11096, Appendix B).

The noise is cut into equal parts: the first makes the 4 x 4 start, each block gets one of the others, from which linear
layers make the gain and the bias of its batch normalisation. Nothing is spectrally normalised: that steadies the game
against a discriminator, and here there is none, nor may a frozen weight be rescaled. For the same reason the attention
is added in full, where BigGAN learns a factor that starts at 0.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.errors import UserError

_WIDTHS = {
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
}
"""Image size -> channels at 4 x 4 and after each block, in units of `ngf`."""
_ATTENTION_SIDE = 64


class ConditionalNorm(nn.Module):
    """Batch normalisation whose gain (about 1) and bias are linear in a part of the noise."""

    def __init__(self, condition: int, width: int) -> None:
        super().__init__()
        self.gain = nn.Linear(condition, width, bias=False)
        self.shift = nn.Linear(condition, width, bias=False)
        self.bn = nn.BatchNorm2d(width, affine=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, width, H, W) and (B, condition) -> (B, width, H, W)."""
        gain, shift = self.gain(condition)[:, :, None, None], self.shift(condition)[:, :, None, None]
        normed: Tensor = self.bn(x) * (1 + gain) + shift
        return normed


class BigGanBlock(nn.Module):
    """Twice the size, `width` to `out` channels: CBN, ReLU, up, conv, CBN, ReLU, conv, beside up, conv 1x1."""

    def __init__(self, width: int, out: int, condition: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(condition, width)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1, bias=bias)
        self.norm2 = ConditionalNorm(condition, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=bias)
        self.shortcut = nn.Conv2d(width, out, 1, bias=bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, width, H, W) and (B, condition) -> (B, out, 2H, 2W)."""
        main: Tensor = F.interpolate(self.norm1(x, condition).relu(), scale_factor=2, mode="nearest")
        main = self.conv2(self.norm2(self.conv1(main), condition).relu())
        shortcut: Tensor = self.shortcut(F.interpolate(x, scale_factor=2, mode="nearest"))
        total: Tensor = main + shortcut
        return total


class SelfAttention(nn.Module):
    """Each pixel looks at all others, pooled 2 x 2 (SAGAN, arXiv 1805.08318)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(width, width // 8, 1, bias=False)
        self.key = nn.Conv2d(width, width // 8, 1, bias=False)
        self.value = nn.Conv2d(width, width // 2, 1, bias=False)
        self.out = nn.Conv2d(width // 2, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        query = self.query(x).flatten(2).transpose(1, 2)  # (B, HW, width / 8)
        key = F.max_pool2d(self.key(x), 2).flatten(2)  # (B, width / 8, HW / 4)
        value = F.max_pool2d(self.value(x), 2).flatten(2)  # (B, width / 2, HW / 4)
        seen = value @ (query @ key).softmax(dim=-1).transpose(1, 2)  # (B, width / 2, HW)
        added: Tensor = self.out(seen.unflatten(2, x.shape[2:]))
        return x + added


class BigGanGenerator(nn.Module):
    """A linear layer to 4 x 4, conditioned blocks with attention at 64 pixels, BN, ReLU, conv to the image."""

    def __init__(self, image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> None:
        super().__init__()
        widths = [ngf * factor for factor in _WIDTHS[image_size]]
        blocks = len(widths) - 1
        self.part = nz // (blocks + 1)
        self.first = nn.Linear(self.part, 16 * widths[0], bias=bias)
        layers: list[nn.Module] = []
        for number, (width, out) in enumerate(pairwise(widths)):
            layers.append(BigGanBlock(width, out, self.part, bias))
            if 8 << number == _ATTENTION_SIDE:
                layers.append(SelfAttention(out))
        self.blocks = nn.ModuleList(layers)
        self.bn = nn.BatchNorm2d(widths[-1], affine=bias)
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1, bias=bias)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, nz) -> images before the tanh (B, channels, R, R)."""
        start, *conditions = noise.split(self.part, dim=1)
        x = self.first(start).view(len(noise), -1, 4, 4)
        parts = iter(conditions)
        for block in self.blocks:
            x = block(x, next(parts)) if isinstance(block, BigGanBlock) else block(x)
        image: Tensor = self.last(self.bn(x).relu())
        return image


def biggan(image_size: int, channels: int, nz: int, ngf: int, bias: bool) -> nn.Module:
    """The generator of width `ngf`, the `ch` of BigGAN; `nz` divides by the number of blocks and one.

    Raises:
        UserError: the noise cannot be cut into equal parts, or there is attention and `ngf` is no multiple of 8.
    """
    parts = len(_WIDTHS[image_size])
    if nz % parts:
        what = f"noise of length {nz} cannot be cut into {parts} equal parts"
        raise UserError(what, "--nz", f"give a multiple of {parts}, e.g. {-(-nz // parts) * parts}")
    if ngf % 8:
        raise UserError(f"a width of {ngf} cannot be cut into eighths", "--ngf", "give a multiple of 8")
    return BigGanGenerator(image_size, channels, nz, ngf, bias)
