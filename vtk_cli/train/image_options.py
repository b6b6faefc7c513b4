"""The options of `vtk train` that say which images are trained on, and what is done to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.data.options import DIGITS
from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option

VERBS = ("eval", "predict", "export", "recipes")
NO_POLICY = "none"


def _complete_data(incomplete: str) -> list[str]:
    return [word for word in (DIGITS, *VERBS) if word.startswith(incomplete)]


@dataclass(frozen=True, kw_only=True)
class DataOptions(RunOptions):
    """Which images."""

    data: str = option(
        DIGITS,
        "A folder with train/ and val/ (one folder a class), COCO files, a timm dataset (torch/cifar10), or digits.",
        positional=True,
        metavar="DATA",
        complete=_complete_data,
    )
    val: str | None = option(
        None, "Images to evaluate on, where DATA has no val/ of its own.", panel="Data", metavar="DATA"
    )
    images_per_class: int | None = option(
        None, "Train on so many images of each class, drawn by the seed.", panel="Data", metavar="N", minimum=1
    )
    batch_size: int = option(64, "Images at a time, over all processes.", panel="Data", minimum=1)
    workers: int | None = option(
        None, "Processes that read images [default: one a core, at most 8].", panel="Data", metavar="N", minimum=0
    )
    eval_set: tuple[str, ...] = option(
        (),
        "Another set to evaluate on at the end, NAME=PATH (ImageNet-V2, -A, -R, -Sketch, ReaL ...); may be repeated.",
        panel="Data",
        metavar="NAME=PATH",
    )

    @property
    def on_digits(self) -> bool:
        """Whether the images are the embedded digits."""
        return self.data == DIGITS

    @property
    def data_name(self) -> str:
        """The data without the folders it is in, for titles."""
        return Path(self.data).resolve().name or self.data

    @property
    def eval_sets(self) -> dict[str, Path]:
        """Name -> folder of `eval_set`; see `parse_eval_sets`."""
        return parse_eval_sets(self.eval_set)


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions(RunOptions):
    """What is done to training images."""

    crop: Literal["random-resized", "shift", "simple"] = option(
        "random-resized", "Random resized crop, small shifts, or resize and random crop.", panel="Augmentation"
    )
    crop_scale_min: float = option(
        0.08, "Smallest area of a random resized crop.", panel="Augmentation", above=0, maximum=1
    )
    crop_scale_max: float = option(
        1.0, "Largest area of a random resized crop.", panel="Augmentation", above=0, maximum=1
    )
    shift: int = option(0, "Largest shift in pixels, for --crop shift.", panel="Augmentation", minimum=0)
    hflip: float = option(0.5, "Chance of a horizontal flip.", panel="Augmentation", minimum=0, maximum=1)
    vflip: float = option(0.0, "Chance of a vertical flip.", panel="Augmentation", minimum=0, maximum=1)
    auto_augment: str = option(
        NO_POLICY,
        "timm's policies: 3a, rand-m9-mstd0.5-inc1, augmix-m3, original ...",
        panel="Augmentation",
        metavar="NAME",
    )
    color_jitter: float = option(0.0, "Strength of colour jitter.", panel="Augmentation", minimum=0)
    interpolation: Literal["bicubic", "bilinear", "random"] = option(
        "bicubic", "Interpolation of the crop.", panel="Augmentation"
    )
    erasing: float = option(0.0, "Chance of random erasing.", panel="Augmentation", minimum=0, maximum=1)
    mixup: float = option(0.0, "Alpha of mixup.", panel="Augmentation", minimum=0)
    cutmix: float = option(0.0, "Alpha of cutmix.", panel="Augmentation", minimum=0)
    mix_prob: float = option(1.0, "Chance that a batch is mixed.", panel="Augmentation", minimum=0, maximum=1)
    mix_switch: float = option(0.5, "Chance of cutmix where both are on.", panel="Augmentation", minimum=0, maximum=1)
    mix_mode: Literal["batch", "pair", "elem"] = option(
        "batch", "One mixing a batch, a pair, or an image.", panel="Augmentation"
    )
    repeats: int = option(1, "Repeated augmentation: each image so often in a row.", panel="Augmentation", minimum=1)
    crop_pct: float | None = option(
        None,
        "Share of the resized image that evaluation sees [default: the network's own].",
        panel="Augmentation",
        metavar="P",
        above=0,
        maximum=1,
    )
    eval_size: int | None = option(
        None, "Side of the input in evaluation [default: as in training].", panel="Augmentation", metavar="N", minimum=8
    )


def parse_eval_sets(entries: Sequence[str], flag: str = "--eval-set") -> dict[str, Path]:
    """Name -> folder of `NAME=PATH` entries.

    Args:
        entries: as they were given.
        flag: the option they were given to.

    Raises:
        UserError: one is no NAME=PATH, or two have one name.
    """
    sets: dict[str, Path] = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not (name and equals and path) or name in sets:
            what = "names a set twice" if name in sets else "is no NAME=PATH"
            raise UserError(f"{entry!r} {what}", flag, f"write e.g. {flag} v2=imagenet-v2/")
        sets[name] = Path(path)
    return sets
