"""The options of `vtk video-pretrain` that say what is done to training clips; every frame of a clip alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option

NO_POLICY = "none"


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions(RunOptions):
    """What is done to training clips."""

    crop: Literal["random-resized", "short-side"] = option(
        "random-resized",
        "A part of random area and shape is resized; or the short side is resized to a random length, and a square cut"
        " out.",
        panel="Augmentation",
    )
    short_side_min: int = option(256, "--crop short-side: least length, in pixels.", panel="Augmentation", minimum=8)
    short_side_max: int = option(320, "--crop short-side: largest length.", panel="Augmentation", minimum=8)
    crop_area_min: float = option(0.2, "Smallest area of a random crop.", panel="Augmentation", above=0, maximum=1)
    crop_area_max: float = option(0.766, "Largest area of a random crop.", panel="Augmentation", above=0, maximum=1)
    crop_aspect: float = option(
        4 / 3,
        "Most that a crop is wider than high, or higher than wide, before it is resized.",
        panel="Augmentation",
        minimum=1,
    )
    hflip: float = option(
        0.5, "Chance of a horizontal flip; 0 where directions are classes.", panel="Augmentation", minimum=0, maximum=1
    )
    jitter: float = option(
        0.6, "Colour jitter of brightness, contrast and saturation.", panel="Augmentation", minimum=0, maximum=1
    )
    jitter_hue: float = option(0.15, "Jitter of the hue.", panel="Augmentation", minimum=0, maximum=0.5)
    jitter_prob: float = option(0.8, "Chance of colour jitter.", panel="Augmentation", minimum=0, maximum=1)
    gray_prob: float = option(0.2, "Chance of gray clips.", panel="Augmentation", minimum=0, maximum=1)
    blur_prob: float = option(0.5, "Chance of Gaussian blur.", panel="Augmentation", minimum=0, maximum=1)
    blur_min: float = option(0.1, "Its least sigma, in pixels.", panel="Augmentation", above=0)
    blur_max: float = option(2.0, "Its largest sigma.", panel="Augmentation", above=0)
    rand_augment: str = option(
        NO_POLICY, "RandAugment, as in rand-m20-mstd0.5-inc1; or none.", panel="Augmentation", metavar="NAME"
    )
    mean: float = option(0.45, "Subtracted from values in [0, 1].", panel="Augmentation", minimum=0, maximum=1)
    std: float = option(0.225, "Divides them.", panel="Augmentation", above=0)

    def check_augmentation(self) -> None:
        """Ranges that are the wrong way round.

        Raises:
            UserError: there is one.
        """
        for name, low, high in (
            ("crop-area-min", self.crop_area_min, self.crop_area_max),
            ("blur-min", self.blur_min, self.blur_max),
            ("short-side-min", self.short_side_min, self.short_side_max),
        ):
            if low > high:
                raise UserError(f"{low:g} is more than the most, {high:g}", f"--{name}", "give a smaller one")
