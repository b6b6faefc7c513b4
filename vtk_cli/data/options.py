"""Options that commands on images share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.options import RunOptions, option

DIGITS = "digits"
"""The embedded dataset that stands in where no data is given."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions(RunOptions):
    """Which images, and where their classes come from."""

    data: str = option(
        DIGITS,
        "A folder of images (ImageFolder, ImageNet-val with val.txt, WordNet-id folders), or digits.",
        panel="Images",
        metavar="DIR",
    )
    labels: Literal["folders", "agree"] = option(
        "folders", "True classes from folders, or the class on which all networks agree.", panel="Images"
    )
    class_map: Path | None = option(
        None, "JSON {folder: class index}, when folders are not in the order of the head.", panel="Images"
    )
    images: int | None = option(
        None, "At most so many images, the same number a class.", panel="Images", metavar="N", minimum=1
    )

    @property
    def on_digits(self) -> bool:
        """Whether the images are the embedded digits."""
        return self.data == DIGITS
