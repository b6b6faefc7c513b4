"""The options of `vtk train` that say what is learned: classes, and where annotators clicked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vtk_cli.errors import UserError
from vtk_cli.options import RunOptions, option


@dataclass(frozen=True, kw_only=True)
class LossOptions(RunOptions):
    """The classification loss."""

    loss: Literal["ce", "bce"] = option("ce", "Cross entropy, or binary cross entropy of every class.", panel="Loss")
    smoothing: float = option(0.0, "Label smoothing.", panel="Loss", minimum=0, maximum=0.999)
    binarize: bool = option(False, "Mixed targets above 0 count as 1 (DeiT-III's BCE).", panel="Loss")


@dataclass(frozen=True, kw_only=True)
class ByproductOptions(RunOptions):
    """Annotation byproducts (LUAB, arXiv 2303.17595): where annotators clicked, as a second target."""

    byproducts: Path | None = option(
        None,
        "Clicks: ImageNet-AB, COCO-AB, the annotation tool's JSON, or a CSV with file,x,y.",
        panel="Byproducts",
        metavar="PATH",
    )
    ab_format: Literal["auto", "imagenet-ab", "coco-ab", "tool-json", "csv", "json"] = option(
        "auto", "How to read them.", panel="Byproducts"
    )
    ab_from: Literal["clicks", "boxes"] = option(
        "clicks", "Points are clicks, or the centres of boxes.", panel="Byproducts"
    )
    ab_point: Literal["last", "first", "mean", "trace-end", "final", "add"] = option(
        "last", "Which click counts where there are several; final and add: COCO-AB's placements.", panel="Byproducts"
    )
    ab_units: Literal["fraction", "px"] = option("fraction", "Units of a CSV's or JSON's points.", panel="Byproducts")
    ab_weight: float = option(10.0, "Weight of the point loss.", panel="Byproducts", minimum=0)
    ab_beta: float = option(1.0, "Where the smooth L1 loss turns linear.", panel="Byproducts", above=0)
    ab_scale: str = option(
        "auto",
        "A factor on the weight; auto: 1/classes with BCE, whose gradients are as much smaller.",
        panel="Byproducts",
        metavar="auto|X",
    )
    ab_sub: Literal["none", "label", "relaxed"] = option(
        "none", "The sub-branch's point target: none, the click, or the main branch's point.", panel="Byproducts"
    )
    ab_drop_outside: bool = option(
        False, "A class whose click the crop leaves out is no class of the crop.", panel="Byproducts"
    )
    ab_check: bool = option(
        False,
        "Look at the byproducts (coverage, a sheet of augmented images with their points) and stop.",
        panel="Byproducts",
        recorded=False,
    )

    @property
    def point_factor(self) -> float | None:
        """The number of `--ab-scale`; None for auto.

        Raises:
            UserError: it is neither.
        """
        if self.ab_scale == "auto":
            return None
        try:
            factor = float(self.ab_scale)
        except ValueError:
            factor = -1.0
        if not 0 <= factor < float("inf"):
            raise UserError(f"{self.ab_scale!r} is no factor", "--ab-scale", "give auto or a number of 0 or more")
        return factor
