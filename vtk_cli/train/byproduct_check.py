"""Shows what annotation byproducts come to on the data: coverage, where the points lie, and crops with them drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.augmented import AugmentedImages
from vtk_cli.data.byproducts import Byproducts, PointTargets
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import BrokenImage
from vtk_cli.engine.seeds import sample_rng, sample_seed
from vtk_cli.errors import UserError
from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet
from vtk_cli.reports.plots import PALETTE, SOFT, Picture, axes_in_inches, save, style, write_titles

CELL = 192
"""Pixels a side that a picture of the sheet takes."""
SAMPLES, CROPS = 12, 3
"""How many samples the sheet shows, and how many augmentations of each."""
POINT_CELLS = (8, 32)
"""The map of the points has at least and at most so many cells a side: few points are noise in many cells."""
_POINTS_A_CELL = 4
MOST_CLASSES = 20
"""Of more classes the table shows those with the fewest points, and those with the most."""
_RING, _STROKE = 7, 2  # pixels: a point's radius on the sheet, and its line

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ByproductCheck:
    """What was found.

    Args:
        samples: of the data.
        covered: samples with at least one point.
        points: how many there are.
        boxed: points whose class has a box in their image; None where the byproducts hold no boxes.
        inside: of these, points inside the box.
        mean, spread: of the points: x and y as fractions of the image, and their standard deviations.
        per_class: how many points each class has.
        skipped: what the reader left out, by reason.
        sheet: the augmented samples with their points.
        positions: where points and, if it was recorded, the mouse have been.
    """

    samples: int
    covered: int
    points: int
    boxed: int | None
    inside: int | None
    mean: tuple[float, float]
    spread: tuple[float, float]
    per_class: dict[str, int]
    skipped: dict[str, int]
    sheet: Path
    positions: Picture

    def summary(self) -> dict[str, Any]:
        """The findings as JSON has them."""
        return {
            "samples": self.samples,
            "covered": self.covered,
            "coverage": self.covered / self.samples,
            "points": self.points,
            "points_with_a_box": self.boxed,
            "points_inside_their_box": self.inside,
            "mean": list(self.mean),
            "standard_deviation": list(self.spread),
            "points_per_class": self.per_class,
            "skipped": self.skipped,
            "sheet": str(self.sheet),
            "positions": str(self.positions.png),
        }


def check_byproducts(
    byproducts: Byproducts,
    targets: PointTargets,
    source: ImageSource,
    augmented: AugmentedImages,
    *,
    folder: Path,
    seed: int,
    console: Console,
) -> ByproductCheck:
    """Print what the byproducts come to, and write `points.png` and `positions.png` (and .svg) to `folder`.

    Args:
        byproducts: as read.
        targets: matched with `source`.
        source: the images.
        augmented: the samples of `source` with `targets`, as training sees them.
        folder: for the pictures.
        seed: which samples are shown, and how they are augmented.
        console: for the tables.

    Raises:
        UserError: no image with a point can be read.
        JobError: the disk is full.
    """
    at = targets.points[targets.present].double().numpy()
    boxed, inside = _inside_boxes(targets)
    check = ByproductCheck(
        len(targets),
        int(targets.present.any(dim=1).sum()),
        len(at),
        boxed,
        inside,
        _pair(at.mean(axis=0)),
        _pair(at.std(axis=0)),
        _per_class(targets, source),
        dict(byproducts.skipped),
        folder / "points.png",
        draw_positions(folder / "positions", at, byproducts.trace),
    )
    tiles = [
        tile for index in shown_samples(targets, source, seed) for tile in _row(index, targets, source, augmented, seed)
    ]
    write_contact_sheet(
        check.sheet,
        tiles,
        columns=2 * (1 + CROPS),
        cell=CELL,
        title=f"{len(tiles) // (1 + CROPS)} images with their points, each followed by {CROPS} augmentations",
    )
    _print(check, console)
    return check


def shown_samples(targets: PointTargets, source: ImageSource, seed: int) -> list[int]:
    """Samples with a point and a readable image, drawn by `seed`: one of each class before a second of any.

    Raises:
        UserError: there is none.
    """
    having = torch.nonzero(targets.present.any(dim=1))[:, 0]
    order = having[torch.randperm(len(having), generator=torch.Generator().manual_seed(seed))].tolist()
    readable: list[int] = []
    for index in _one_of_each_class(order, source.targets):
        try:
            source.read(index)
        except BrokenImage:
            continue
        readable.append(index)
        if len(readable) == SAMPLES:
            break
    if not readable:
        raise UserError("no image with a point can be read", source.name)
    return sorted(readable)


def _one_of_each_class(order: Sequence[int], labels: Tensor) -> Iterator[int]:
    """`order` with the first of each class in front; samples of several classes stay as they come."""
    if labels.ndim == 2:
        yield from order
        return
    rounds: dict[int, int] = {}
    turns = []
    for place, index in enumerate(order):
        label = int(labels[index])
        rounds[label] = rounds.get(label, 0) + 1
        turns.append((rounds[label], place, index))
    yield from (index for _, _, index in sorted(turns))


def draw_positions(path: Path, points: Counts, trace: npt.NDArray[np.int64] | None) -> Picture:
    """Draw how often each place of the image holds a point and, where it was recorded, the mouse.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        points: (R, 2), fractions of the image.
        trace: (H, W) counts of the mouse, or None.
    """
    cells = int(np.clip((len(points) / _POINTS_A_CELL) ** 0.5, *POINT_CELLS))
    counted, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=cells, range=((0.0, 1.0), (0.0, 1.0)))
    maps = [(f"points ({len(points):,})", counted)]
    if trace is not None and trace.sum():
        maps.append((f"mouse ({int(trace.sum()):,} records)", trace.astype(np.float64)))
    side, gap, left = 3.2, 1.5, 0.5
    with style():
        figure = Figure(figsize=(left + len(maps) * (side + gap), side + 1.2))
        for index, (title, counts) in enumerate(maps):
            _draw_map(figure, left + index * (side + gap), side, title, counts)
        return save(figure, path)


def _draw_map(figure: Figure, left: float, side: float, title: str, counts: Counts) -> None:
    """One map; its unit is what an even spread over the image would give each cell."""
    axes = axes_in_inches(figure, left, 0.5, side, side)
    relative = counts * counts.size / counts.sum()
    colours, scale = mpl.colormaps["YlGnBu"], PowerNorm(0.5, 0.0, max(float(relative.max()), 1.0))
    axes.imshow(relative, cmap=colours, norm=scale, extent=(0.0, 1.0, 1.0, 0.0), interpolation="nearest")
    axes.plot([0.5], [0.5], marker="+", color=SOFT, markersize=9)
    axes.set_xticks([0.0, 0.5, 1.0], ["0", "x", "1"])
    axes.set_yticks([0.0, 0.5, 1.0], ["0", "y", "1"])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    write_titles(axes, title)
    bar = figure.colorbar(
        ScalarMappable(scale, colours), cax=axes_in_inches(figure, left + side + 0.12, 0.5, 0.1, side)
    )
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=7.5)
    bar.set_label("times an even spread", fontsize=8)


def _row(
    index: int, targets: PointTargets, source: ImageSource, augmented: AugmentedImages, seed: int
) -> Iterator[Tile]:
    """The whole image with its points and boxes, then augmentations of it."""
    names = source.class_names if source.multi_label else ()
    boxes = None if targets.boxes is None else targets.boxes[index]
    whole = drawn(source.read(index), targets.points[index], targets.present[index], boxes, names)
    label = "" if source.multi_label else f"\n{source.class_names[int(source.targets[index])]}"
    yield Tile(whole, source.names[index].rpartition("/")[2] + label, frame=PALETTE[0])
    for crop in range(CROPS):
        with sample_rng(sample_seed(seed, crop, index)):
            image, _, points, present, *_ = augmented[index]
        picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
        yield Tile(drawn(picture, points, present, None, names), _caption(points, present, targets.present[index]))


def _caption(points: Tensor, present: Tensor, before: Tensor) -> str:
    if len(present) > 1:
        return f"{int(present.sum())} of {int(before.sum())} points inside"
    if not bool(present[0]):
        return "point outside"
    x, y = points[0].tolist()
    return f"point at ({x:.2f}, {y:.2f})"


def drawn(
    image: Image.Image, points: Tensor, present: Tensor, boxes: Tensor | None = None, names: Sequence[str] = ()
) -> Image.Image:
    """`image` at the sheet's size with the present points as rings, their boxes, and their classes' names.

    Args:
        image: RGB.
        points: (P, 2), fractions of the image.
        present: (P,).
        boxes: (P, 4), fractions; those without an area are not drawn.
        names: of the P classes, or empty.
    """
    longer = max(image.size)
    small = 2 * longer <= CELL  # its pixels stay square
    factor = CELL // longer if small else CELL / longer
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    scaled = image.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    draw, across = ImageDraw.Draw(scaled), np.array(size)
    for index in torch.nonzero(present)[:, 0].tolist():
        colour = PALETTE[index % len(PALETTE)] if names else PALETTE[5]
        if boxes is not None and bool(boxes[index, 2] > boxes[index, 0]):
            left, top, right, bottom = (boxes[index].view(2, 2).numpy() * across).round().flatten().tolist()
            draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=_STROKE)
        x, y = (points[index].numpy() * across).tolist()
        for radius, ink, width in ((_RING + 1, "white", _STROKE + 2), (_RING, colour, _STROKE)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ink, width=width)
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=colour, outline="white")
        if names:
            anchor = "lm" if x < across[0] / 2 else "rm"
            beside = x + (_RING + 4 if anchor == "lm" else -_RING - 4)
            font = ImageFont.load_default(12)
            draw.text(
                (beside, y), names[index], fill=colour, anchor=anchor, font=font, stroke_width=2, stroke_fill="white"
            )
    return scaled


def _inside_boxes(targets: PointTargets) -> tuple[int | None, int | None]:
    """How many points have a box, and how many of them lie in it."""
    if targets.boxes is None:
        return None, None
    has_box = targets.present & (targets.boxes[..., 2] > targets.boxes[..., 0])
    corners, points = targets.boxes[has_box], targets.points[has_box]
    inside = (points >= corners[:, :2]).all(dim=1) & (points <= corners[:, 2:]).all(dim=1)
    return int(has_box.sum()), int(inside.sum())


def _per_class(targets: PointTargets, source: ImageSource) -> dict[str, int]:
    if source.multi_label:
        counts = targets.present.sum(dim=0)
    else:
        counts = torch.bincount(source.targets[targets.present[:, 0]], minlength=len(source.class_names))
    return dict(zip(source.class_names, counts.tolist(), strict=True))


def _print(check: ByproductCheck, console: Console) -> None:
    rows = [
        ("samples with a point", f"{check.covered} of {check.samples} ({check.covered / check.samples:.1%})"),
        ("points", str(check.points)),
        ("mean position (x, y)", f"({check.mean[0]:.3f}, {check.mean[1]:.3f})"),
        ("standard deviation", f"({check.spread[0]:.3f}, {check.spread[1]:.3f})"),
    ]
    if check.boxed and check.inside is not None:
        share = check.inside / check.boxed
        rows.append(("points inside their box", f"{check.inside} of {check.boxed} ({share:.1%})"))
    rows += [(f"skipped: {why}", str(count)) for why, count in check.skipped.items()]
    console.table("annotation byproducts", ("what", "value"), rows)
    ranked = sorted(check.per_class.items(), key=lambda item: item[1])
    half = MOST_CLASSES // 2
    some = ranked if len(ranked) <= MOST_CLASSES else [*ranked[:half], *ranked[-half:]]
    title = "points a class" if some is ranked else f"points of the {half} classes with fewest and with most"
    console.table(title, ("class", "points"), some)
    console.note(f"drawn: {check.sheet}, {check.positions.png}")


def _pair(values: Counts) -> tuple[float, float]:
    return float(values[0]), float(values[1])
