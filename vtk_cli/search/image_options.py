"""The options of `vtk search` that say which images are searched and trained on, and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.data.options import DIGITS
from vtk_cli.options import RunOptions, option

AugmentationName = Literal[
    "none", "digits", "cifar", "cifar-cutout", "imagenet", "imagenet-lighting", "imagenet-square", "spos"
]
PixelFormat = Literal["auto", "normalised", "unit", "bytes"]


@dataclass(frozen=True, kw_only=True)
class ImageOptions(RunOptions):
    """Which images, and what is done to them."""

    data: str = option(
        DIGITS,
        "A folder with train/ and val/ (one folder a class), a timm dataset (torch/cifar10), or digits.",
        positional=True,
        metavar="DATA",
    )
    val: str | None = option(
        None, "Images to measure a network alone on, where DATA has no val/ of its own.", panel="Data", metavar="DATA"
    )
    split_file: Path | None = option(
        None,
        "JSON of the training images to train and to score on [default: two halves of every class, by the seed].",
        panel="Data",
        metavar="FILE",
    )
    size: int | None = option(
        None, "Side of the input in pixels [default: the network's own].", panel="Data", metavar="N", minimum=8
    )
    batch_size: int = option(64, "Images at a time, over all processes.", panel="Data", minimum=2)
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Data", metavar="N", minimum=0
    )
    augmentation: AugmentationName = option(
        "digits",
        "What is done to training images: shifts (digits), flips and padded crops (cifar, -cutout), random resized"
        " crops and flips (imagenet and spos with colour jitter, -lighting with PCA colours, -square without other"
        " ratios).",
        panel="Data",
        metavar="NAME",
    )
    pixels: PixelFormat = option(
        "auto",
        "What networks see: mean and deviation taken out, 0 to 1, or 0 to 255 [auto: as the augmentation has it].",
        panel="Data",
    )

    @property
    def on_digits(self) -> bool:
        """Whether the images are the embedded digits."""
        return self.data == DIGITS

    @property
    def data_name(self) -> str:
        """The data without the folders it is in, for titles."""
        return Path(self.data).resolve().name or self.data
