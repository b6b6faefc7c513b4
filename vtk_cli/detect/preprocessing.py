"""How images reach a detector: the resize it was trained with, written into its weight file and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from vtk_cli.detect.samples import Collate, Transform
from vtk_cli.detect.transforms import Letterbox, ShortSide, Stretch, fitted_size, resized_size

Resize = Literal["short", "stretch", "letterbox"]
_KEY = "preprocessing"


@dataclass(frozen=True)
class Preprocessing:
    """The resize of evaluation; images are then normalised with ImageNet's mean and deviation.

    Args:
        resize: to a shorter side, as published (the longer at most 5/3 of it); to a square, stretched; or to a longer
            side, the rest of the square padded.
        size: that side, in pixels.
    """

    resize: Resize = "short"
    size: int = 800

    @property
    def transform(self) -> Transform:
        """From a scene of any size to one the network takes."""
        if self.resize == "short":
            return ShortSide.scaled(self.size)
        return Stretch(self.size) if self.resize == "stretch" else Letterbox(self.size)

    @property
    def collate(self) -> Collate:
        """Makes batches of what `transform` gives."""
        return Collate(self.size if self.resize == "letterbox" else None)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network's input for an image of `height` x `width`."""
        if self.resize == "short":
            short = ShortSide.scaled(self.size)
            return resized_size(height, width, short.short, short.longest)
        return self.size, self.size

    def content(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the image within that input."""
        if self.resize == "letterbox":
            return fitted_size(height, width, self.size)
        return self.extent(height, width)

    def resized(self, size: int | None) -> Preprocessing:
        """The same at another size; None leaves it."""
        return self if size is None else replace(self, size=size)

    def note(self) -> dict[str, str]:
        """What a weight file says of it."""
        return {_KEY: json.dumps(asdict(self))}

    @classmethod
    def of_note(cls, note: Mapping[str, str]) -> Preprocessing:
        """What a weight file says; the published detectors' where it says nothing.

        Raises:
            ValueError: it says something else.
        """
        if _KEY not in note:
            return cls()
        said = json.loads(note[_KEY])
        fits = isinstance(said, dict) and said.get("resize") in get_args(Resize) and isinstance(said.get("size"), int)
        if not fits:
            raise ValueError(f"no preprocessing: {note[_KEY]}")
        return cls(said["resize"], said["size"])
