"""Pictures of pseudo labels, to be looked at before a student learns from them: contact sheets and a page of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vtk_cli.data.detection.outlines import Bools, outline_mask
from vtk_cli.data.points.labelme import write_labelme
from vtk_cli.data.points.marks import Mark as LabelMark
from vtk_cli.data.points.marks import MarkedImage
from vtk_cli.data.points.records import PointImage, PointSet
from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet
from vtk_cli.reports.overlay import Mark, draw_overlay
from vtk_cli.reports.page import Image as Picture
from vtk_cli.reports.page import Page, Section, Table, Text, write_page
from vtk_cli.segment.pseudo.doubts import MissingClick, Order, images_to_label, worst_first
from vtk_cli.segment.pseudo.labels import PseudoLabel, UnresolvedClick, reasons

INDEX = "index.html"
_CELL, _WIDE = 192, 320
_PER_SHEET, _IMAGES_PER_SHEET = 24, 12
_CONTEXT = 1.6
_LEAST_CROP = 48
_CALLED = 0.04
"""Half the side of the square round a click without a mask, as a share of the image's longer side."""
_RED = "#D55E00"
_ORDERED: Mapping[Order, str] = {
    "score": "the lowest scores first",
    "iou": "those that refinement changed most first",
    "flags": "those with most flags first",
}


@dataclass(frozen=True, eq=False)
class Preview:
    """What there is to look at.

    Args:
        points: the clicked images.
        labels: what the student is to learn, refined or not.
        rough: the same before refinement; empty where there was none.
        unresolved: clicks without a mask.
        missing: objects without a click, where they were looked for.
    """

    points: PointSet
    labels: Sequence[PseudoLabel]
    rough: Sequence[PseudoLabel] = ()
    unresolved: Sequence[UnresolvedClick] = ()
    missing: Sequence[MissingClick] = ()


def write_preview(folder: Path, preview: Preview, *, order: Order = "score", count: int = 96) -> Path:
    """Write the sheets as PNG and `index.html`, which carries them.

    Args:
        folder: for the files.
        preview: what to show.
        order: of the labels.
        count: the labels shown at most, and a quarter as many images of each other kind.

    Returns:
        The page.

    Raises:
        BrokenImage: an image can no longer be read.
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    shown = worst_first(preview.labels, order)[:count]
    images = max(1, count // 4)
    sections = [
        _unresolved_section(folder, preview, images),
        _missing_section(folder, preview, images),
        _labels_section(folder, preview, shown, order),
        _images_section(folder, preview, images),
        _next_section(preview),
    ]
    flags = Counter(flag for label in preview.labels for flag in label.flags)
    agreements = [label.iou_rough_refined for label in preview.labels if label.iou_rough_refined is not None]
    summary: dict[str, Any] = {
        "clicks": preview.points.clicks,
        "masks": len(preview.labels),
        "unresolved clicks": len(preview.unresolved),
        "flagged": sum(bool(label.flags) for label in preview.labels),
    }
    if agreements:
        summary["IoU rough, refined"] = f"{sum(agreements) / len(agreements):.3f}"
    told = f"; flags: {', '.join(f'{number} {flag}' for flag, number in flags.most_common())}" if flags else ""
    subtitle = f"{preview.points.name}: {len(preview.points)} clicked images{told}"
    page = Page("Pseudo labels", subtitle, summary, [section for section in sections if section is not None])
    write_page(folder / INDEX, page)
    return folder / INDEX


def export_labelme(folder: Path, preview: Preview) -> int:
    """Write a LabelMe file for each clicked image: its masks, each grouped with its click, and its unresolved clicks.

    Images whose masks have been corrected there can be imported as fully labelled ones.

    Returns:
        How many files there are.
    """
    labels, lost = _by_image(preview.labels), _by_image(preview.unresolved)
    names = preview.points.classes.names
    for image in preview.points.images:
        marks = [
            LabelMark(names[label.label], outline=label.mask, click=np.array(label.point)) for label in labels[image.id]
        ]
        marks += [LabelMark(names[click.label], click=np.array(click.point)) for click in lost[image.id]]
        write_labelme(
            folder / f"{image.file.stem}-{image.id}.json",
            MarkedImage(image.file, image.width, image.height, tuple(marks)),
        )
    return len(preview.points)


def object_tiles(
    image: PointImage, label: PseudoLabel, rough: PseudoLabel | None, names: Sequence[str], picture: Image.Image
) -> list[Tile]:
    """Tiles of an object: the image about it, its click, its rough mask, and where there is one its refined mask."""
    masks = [label.pixels()] if rough is None else [rough.pixels(), label.pixels()]
    box = _surroundings(masks, label.point, picture.size)
    size = _tile_size(box[2] - box[0], box[3] - box[1])
    part = picture.crop(box).resize(size, Image.Resampling.LANCZOS)
    corner, lengths = np.array(box[:2]), np.array([box[2] - box[0], box[3] - box[1]])
    x, y = ((np.array(label.point) - corner + 0.5) * size / lengths - 0.5).tolist()
    shown = [_scaled(mask[box[1] : box[3], box[0] : box[2]], size) for mask in masks]
    frame = _RED if label.flags else None
    changed = "" if label.iou_rough_refined is None else f"IoU {label.iou_rough_refined:.2f}"
    captions = [
        f"{names[label.label]}\nimage {image.id}",
        f"click {label.annotation_id}\nscore {label.score:.2f}",
        f"rough, level {label.level}\nmaskness {label.maskness:.2f}",
    ]
    captions += [f"refined\n{changed}"] if rough is not None else []
    if label.flags:
        captions[-1] += f"\n{', '.join(label.flags)}"
    marks = [[], [Mark("", label.label, point=(x, y))], *([Mark("", label.label, mask=mask)] for mask in shown)]
    drawings = [draw_overlay(part, drawn, least_side=_CELL) for drawn in marks]
    return [Tile(drawing, caption, frame) for drawing, caption in zip(drawings, captions, strict=True)]


def image_overlay(
    image: PointImage,
    labels: Sequence[PseudoLabel],
    unresolved: Sequence[UnresolvedClick],
    missing: Sequence[MissingClick],
    names: Sequence[str],
) -> Image.Image:
    """A whole image with its masks and clicks; clicks without a mask and objects without a click are called out.

    Raises:
        BrokenImage: it can no longer be read.
    """
    size = (image.height, image.width)
    reach = _CALLED * max(size)
    called = [
        Mark(f"no mask: {names[click.label]}", click.label, box=_square(click.point, reach), point=click.point)
        for click in unresolved
    ]
    called += [
        Mark(f"no click: {names[one.label]} {one.score:.2f}", one.label, mask=outline_mask(one.mask, *size))
        for one in missing
    ]
    masks = [Mark(names[label.label], label.label, mask=label.pixels(), point=label.point) for label in labels]
    return draw_overlay(image.read(), [*called, *masks])


def _labels_section(folder: Path, preview: Preview, shown: Sequence[PseudoLabel], order: Order) -> Section | None:
    if not shown:
        return None
    images = {image.id: image for image in preview.points.images}
    rough = {(label.image_id, label.annotation_id): label for label in preview.rough}
    pictures = []
    for number, start in enumerate(range(0, len(shown), _PER_SHEET), 1):
        tiles: list[Tile] = []
        for label in shown[start : start + _PER_SHEET]:
            image = images[label.image_id]
            before = rough.get((label.image_id, label.annotation_id))
            tiles += object_tiles(image, label, before, preview.points.classes.names, image.read())
        path = folder / f"labels-{number:03d}.png"
        write_contact_sheet(path, tiles, columns=8 if preview.rough else 6, cell=_CELL)
        pictures.append(Picture(path, f"Pseudo labels {start + 1} to {min(start + _PER_SHEET, len(shown))}"))
    legend = f"Image, click, rough mask{', refined mask' if preview.rough else ''}; {_ORDERED[order]}. Framed: flagged."
    left_out = len(preview.labels) - len(shown)
    more = [Text(f"{left_out:,} more are not shown; raise the count to see them.")] if left_out else []
    return Section("Labels", [Text(legend), *more, *pictures])


def _unresolved_section(folder: Path, preview: Preview, most: int) -> Section | None:
    if not preview.unresolved:
        return None
    pictures = _image_sheets(folder, "unresolved", preview, [click.image_id for click in preview.unresolved], most)
    rows = list(reasons(preview.unresolved).items())
    text = Text("These objects are in no label: the student would learn them as background.", "warning")
    return Section("Unresolved clicks", [text, Table(("reason", "clicks"), rows), *pictures])


def _missing_section(folder: Path, preview: Preview, most: int) -> Section | None:
    if not preview.missing:
        return None
    pictures = _image_sheets(folder, "missing", preview, [one.image_id for one in preview.missing], most)
    text = Text(f"{len(preview.missing)} confident detections have no click in them: forgotten, or wrong.", "warning")
    return Section("Objects without a click", [text, *pictures])


def _images_section(folder: Path, preview: Preview, most: int) -> Section | None:
    listed = [image.id for image in preview.points.images if len(image)]
    evenly = np.unique(np.linspace(0, len(listed) - 1, min(most, len(listed))).round().astype(int))
    pictures = _image_sheets(folder, "images", preview, [listed[index] for index in evenly], most)
    return Section("Images", pictures) if pictures else None


def _next_section(preview: Preview) -> Section | None:
    names = {image.id: image.file.name for image in preview.points.images}
    ranked = images_to_label(preview.labels, preview.unresolved)[:20]
    if not ranked:
        return None
    text = Text("Where clicks went worst; masks drawn there help the teacher most.")
    rows = [(identity, names[identity], f"{value:.3f}") for identity, value in ranked]
    return Section("Images to draw masks on next", [text, Table(("image", "file", "score x agreement"), rows)])


def _image_sheets(folder: Path, name: str, preview: Preview, image_ids: Sequence[int], most: int) -> list[Picture]:
    images = {image.id: image for image in preview.points.images}
    labels, lost, missing = (_by_image(part) for part in (preview.labels, preview.unresolved, preview.missing))
    chosen = list(dict.fromkeys(image_ids))[:most]
    pictures = []
    for number, start in enumerate(range(0, len(chosen), _IMAGES_PER_SHEET), 1):
        tiles = []
        for identity in chosen[start : start + _IMAGES_PER_SHEET]:
            image, of_image = images[identity], lost[identity]
            drawn = image_overlay(image, labels[identity], of_image, missing[identity], preview.points.classes.names)
            told = f"{len(labels[identity])} masks for {len(image)} clicks"
            why = f"\n{'; '.join(dict.fromkeys(click.reason for click in of_image))}" if of_image else ""
            tiles.append(Tile(drawn, f"{image.file.name}\n{told}{why}", _RED if of_image else None))
        path = folder / f"{name}-{number:03d}.png"
        write_contact_sheet(path, tiles, columns=4, cell=_WIDE)
        pictures.append(Picture(path, f"{len(tiles)} images with their pseudo labels"))
    return pictures


def _by_image(entries: Sequence[Any]) -> defaultdict[int, list[Any]]:
    found: defaultdict[int, list[Any]] = defaultdict(list)
    for entry in entries:
        found[entry.image_id].append(entry)
    return found


def _surroundings(
    masks: Sequence[Bools], point: tuple[float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """The square about masks and click that is cropped: left, top, right, bottom, inside the image."""
    rows, columns = np.nonzero(np.logical_or.reduce(masks))
    low = np.minimum([columns.min(), rows.min()], point)
    high = np.maximum([columns.max(), rows.max()], point)
    side = max(_LEAST_CROP, math.ceil(_CONTEXT * float((high - low).max())))
    if side <= _CELL:  # a whole number of times as large fills the tile
        side = _CELL // (_CELL // side)
    middle = (low + high) / 2
    left, top = (
        int(np.clip(round(float(centre) - side / 2), 0, max(0, length - side)))
        for centre, length in zip(middle, size, strict=True)
    )
    return left, top, min(left + side, size[0]), min(top + side, size[1])


def _square(point: tuple[float, float], reach: float) -> tuple[float, float, float, float]:
    x, y = point[0] + 0.5, point[1] + 0.5
    return x - reach, y - reach, x + reach, y + reach


def _tile_size(width: int, height: int) -> tuple[int, int]:
    """The size at which a crop is drawn: its own where a whole number of times as large fills a tile, else a tile's."""
    longer = max(width, height)
    if _CELL % longer == 0:
        return width, height
    return max(1, round(width * _CELL / longer)), max(1, round(height * _CELL / longer))


def _scaled(mask: Bools, size: tuple[int, int]) -> Bools:
    """A mask (H, W) at another width and height: where at least half of a pixel belongs to it."""
    scaled = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(scaled) >= 128
