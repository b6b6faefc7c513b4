"""From a name to a generator: noise (B, nz) from N(0, 1) in, images (B, channels, R, R) in [-1, 1] out."""

from __future__ import annotations

from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.prune.generators.biggan import biggan
from vtk_cli.prune.generators.catalog import check_generator
from vtk_cli.prune.generators.dcgan import dcgan, dcgan_tiny
from vtk_cli.prune.generators.resnet import resnet
from vtk_cli.prune.generators.sngan import sngan

_BUILDERS = {"resnet": resnet, "sngan": sngan, "biggan": biggan, "dcgan": dcgan, "dcgan-tiny": dcgan_tiny}


class Generator(nn.Module):
    """A generator and what it was made from.

    Args:
        name: of `GENERATORS`.
        image_size: R, side of its images in pixels.
        channels: of its images.
        nz: length of its noise.
        ngf: its width.
        bias: whether its layers have biases and its batch normalisation weights, as published checkpoints do.
    """

    def __init__(self, name: str, image_size: int, channels: int, nz: int, ngf: int, *, bias: bool) -> None:
        super().__init__()
        self.name, self.image_size, self.channels, self.nz, self.ngf, self.bias = (
            name,
            image_size,
            channels,
            nz,
            ngf,
            bias,
        )
        self.body = _BUILDERS[name](image_size, channels, nz, ngf, bias)

    def forward(self, noise: Tensor) -> Tensor:
        """Noise (B, nz) -> images (B, channels, R, R) in [-1, 1]."""
        images: Tensor = self.body(noise)
        return images.tanh()

    @property
    def arguments(self) -> dict[str, str | int | bool]:
        """What `create_generator` makes the same network from; JSON values."""
        names = ("name", "image_size", "channels", "nz", "ngf", "bias")
        return {name: getattr(self, name) for name in names}


def create_generator(
    name: str,
    image_size: int | None = None,
    channels: int = 3,
    nz: int | None = None,
    ngf: int | None = None,
    *,
    bias: bool = False,
) -> Generator:
    """Make a generator whose weights are still torch's defaults; see `weights.initialise_weights`.

    Its prunable layers are registered in the order of its forward pass. Batch normalisation has neither weight nor
    bias, unless `bias` is set.

    Args:
        name: of `GENERATORS`.
        image_size: side of its images; None: the usual one.
        channels: 1 or 3.
        nz: length of its noise; None: the usual one.
        ngf: its width; None: the usual one.
        bias: give layers biases and batch normalisation weights, as published checkpoints have them.

    Raises:
        UserError: there is no such generator, or not of these sizes.
    """
    card = check_generator(name, image_size if image_size is not None else _usual_size(name))
    for option, value in (("--nz", nz), ("--ngf", ngf), ("--channels", channels)):
        if value is not None and value < 1:
            raise UserError(f"{value} is out of range", option, "give at least 1")
    size, length, width = image_size or card.size, nz or card.nz, ngf or card.ngf
    return Generator(name, size, channels, length, width, bias=bias)


def _usual_size(name: str) -> int:
    return check_generator(name, 32).size
