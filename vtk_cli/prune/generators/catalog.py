"""Which generators there are, and for which images. No torch here: the command's help reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from vtk_cli.errors import UserError, nearest

SMALLEST = 16


@dataclass(frozen=True)
class GeneratorCard:
    """One generator.

    Args:
        name: what users call it.
        sizes: image sides that it makes, in pixels.
        size: the usual one.
        nz: the usual length of its noise.
        ngf: its usual width; what that is, the generator says.
        about: one line.
    """

    name: str
    sizes: tuple[int, ...]
    size: int
    nz: int
    ngf: int
    about: str


_CARDS = (
    GeneratorCard(
        "resnet", (16, 32, 64, 128, 256), 64, 128, 64, "residual blocks of feature matching networks, arXiv 1904.02762"
    ),
    GeneratorCard("sngan", (16, 32, 64, 128, 256), 64, 128, 256, "residual blocks of one width, arXiv 1802.05957"),
    GeneratorCard(
        "biggan", (32, 64, 128, 256), 64, 120, 48, "BigGAN without classes, noise into every block, arXiv 1809.11096"
    ),
    GeneratorCard("dcgan", (16, 32, 64, 128), 64, 100, 64, "transposed convolutions, arXiv 1511.06434"),
    GeneratorCard("dcgan-tiny", (16, 32, 64), 16, 32, 48, "three of them, for the embedded digits"),
)
GENERATORS: Mapping[str, GeneratorCard] = MappingProxyType({card.name: card for card in _CARDS})


def check_generator(name: str, image_size: int) -> GeneratorCard:
    """The card of a generator that makes images of that size.

    Raises:
        UserError: there is no such generator, or it makes no such images.
    """
    card = GENERATORS.get(name)
    if card is None:
        raise UserError(f"unknown generator {name!r}", "--gen", nearest(name, GENERATORS) or f"{', '.join(GENERATORS)}")
    if image_size < SMALLEST or image_size & (image_size - 1):
        what = f"{image_size} is not a power of two of at least {SMALLEST}"
        raise UserError(what, "--image-size", f"{name} makes {_listed(card.sizes)}")
    if image_size not in card.sizes:
        what = f"{name} makes no images of {image_size} pixels"
        raise UserError(what, "--image-size", f"it makes {_listed(card.sizes)}")
    return card


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes))
