"""Pseudo labels: a mask for a click, and the COCO file of many that other tools open and that is read back.

A mask is run lengths from the moment it is made, and the file is written label by label: whatever the number of labels,
no more masks are held as pixels than whoever makes them holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vtk_cli.data.coco_faults import are_numbers, is_integer
from vtk_cli.data.coco_files import read_coco_file
from vtk_cli.data.detection.outlines import (
    Bools,
    Floats,
    RunLengths,
    coco_rle,
    outline_mask,
    segmentation_of,
)
from vtk_cli.data.points.coco import classes_of
from vtk_cli.data.points.records import Classes, PointSet
from vtk_cli.data.rle import run_lengths
from vtk_cli.errors import UserError
from vtk_cli.files import write_json
from vtk_cli.segment.labels.coco_stream import coco_stream

SOURCE = "pseudo"
"""What the field `source` of a pseudo label says."""


@dataclass(frozen=True, eq=False)
class PseudoLabel:
    """The mask of a click.

    Args:
        image_id: of the data file.
        annotation_id: the click's, of the same file.
        label: the click's, contiguous from 0.
        point: x, y of the click in pixels of the image, (0, 0) the centre of the top left one.
        mask: not empty, at the size of the image.
        level: of the pyramid, from 0, the finest.
        score: in [0, 1]: maskness times the probability of the class in the click's cell.
        maskness: in [0, 1]: the mean of the soft mask within the mask.
        iou_rough_refined: of the mask before and after its refinement; None where it has not been refined.
        flags: what a person should know: `point_outside`, `refined_empty` ...
    """

    image_id: int
    annotation_id: int
    label: int
    point: tuple[float, float]
    mask: RunLengths
    level: int
    score: float
    maskness: float
    iou_rough_refined: float | None = None
    flags: tuple[str, ...] = ()

    def pixels(self) -> Bools:
        """bool (H, W)."""
        return outline_mask(self.mask, self.mask.height, self.mask.width)

    def box(self) -> Floats:
        """float64 (4,): x, y, width, height, tight: a single pixel is 1 wide."""
        box: Floats = np.asarray(coco_mask.toBbox(coco_rle(self.mask)), np.float64)
        return box

    def area(self) -> int:
        """In pixels."""
        return int(coco_mask.area(coco_rle(self.mask)))

    def refined(self, mask: RunLengths, flags: Sequence[str] = ()) -> PseudoLabel:
        """The same click with another mask, and how much the two agree."""
        agreement = mask_iou(self.mask, mask)
        return replace(self, mask=mask, iou_rough_refined=agreement, flags=(*self.flags, *flags))


@dataclass(frozen=True)
class UnresolvedClick:
    """A click that got no mask.

    Args:
        image_id, annotation_id: of the data file.
        label: contiguous from 0.
        point: x, y.
        reason: why, in the same words for all with that reason, so that they can be counted.
    """

    image_id: int
    annotation_id: int
    label: int
    point: tuple[float, float]
    reason: str


def mask_iou(one: RunLengths, other: RunLengths) -> float:
    """Intersection over union of two masks of a size; 0 where both are empty."""
    return float(coco_mask.iou([coco_rle(one)], [coco_rle(other)], [0])[0, 0])


def write_pseudo_labels(path: Path, labels: Iterable[PseudoLabel], points: PointSet, images: Path) -> int:
    """Write COCO instances with the extras that `read_pseudo_labels` reads, atomically; ids count from 1.

    Args:
        path: the file.
        labels: taken one at a time, so that a generator may make them meanwhile.
        points: the images and classes.
        images: the folder that `file_name` is relative to.

    Returns:
        How many labels there were.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    count = 0
    with coco_stream(path, points.images, images, points.classes) as write:
        for count, label in enumerate(labels, 1):
            write(annotation_of(label, count, points.classes))
    return count


def read_pseudo_labels(path: Path, classes: Classes | None = None) -> Iterator[PseudoLabel]:
    """The labels of a file that `write_pseudo_labels` wrote, or that a labelling tool corrected since.

    Args:
        path: the file.
        classes: of the labels; None takes the file's own, ids ascending.

    Raises:
        UserError: it cannot be read, or a label is wrong or of a category that is not known.
    """
    file = read_coco_file(path)
    known = classes_of(file) if classes is None else classes
    label_of = {identity: label for label, identity in enumerate(known.ids)}
    sizes = {
        entry["id"]: (entry["height"], entry["width"])
        for entry in file.images
        if isinstance(entry, dict) and all(is_integer(entry.get(field)) for field in ("id", "height", "width"))
    }
    for number, entry in enumerate(file.annotations):
        fault = _fault(entry, sizes, label_of)
        if fault:
            raise UserError(fault, f"{path}: annotation {number}")
        try:
            label = label_of_annotation(entry, label_of)
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise UserError(f"a field of the label is wrong ({error})", f"{path}: annotation {number}") from error
        yield label


def annotation_of(label: PseudoLabel, identity: int, classes: Classes) -> dict[str, Any]:
    """The COCO annotation of a label, with the id `identity`."""
    agreement = label.iou_rough_refined
    return {
        "id": identity,
        "image_id": label.image_id,
        "category_id": classes.ids[label.label],
        "bbox": label.box().tolist(),
        "area": label.area(),
        "iscrowd": 0,
        "segmentation": segmentation_of(label.mask),
        "source": SOURCE,
        "click_id": label.annotation_id,
        "point": list(label.point),
        "level": label.level,
        "score": round(label.score, 6),
        "maskness": round(label.maskness, 6),
        "iou_rough_refined": None if agreement is None else round(agreement, 6),
        "flags": list(label.flags),
    }


def label_of_annotation(entry: Mapping[str, Any], label_of: Mapping[int, int]) -> PseudoLabel:
    """What `annotation_of` wrote, or a tool that keeps its fields; `label_of` has a label for each category id."""
    mask = entry["segmentation"]
    if isinstance(mask["counts"], list):
        mask = coco_mask.frPyObjects(mask, *mask["size"])
    (height, width), counts = mask["size"], mask["counts"]
    x, y = entry["point"]
    agreement = entry.get("iou_rough_refined")
    return PseudoLabel(
        entry["image_id"],
        int(entry.get("click_id", entry["id"])),
        label_of[entry["category_id"]],
        (float(x), float(y)),
        RunLengths(height, width, counts.encode() if isinstance(counts, str) else counts),
        int(entry.get("level", 0)),
        float(entry.get("score", 1)),
        float(entry.get("maskness", 1)),
        None if agreement is None else float(agreement),
        tuple(map(str, entry.get("flags", ()))),
    )


def write_unresolved(path: Path, clicks: Sequence[UnresolvedClick], classes: Classes) -> None:
    """Write the clicks without a mask, with their counts by reason, as JSON."""
    write_json(path, {"counts": reasons(clicks), "clicks": [entry_of_click(click, classes) for click in clicks]})


def read_unresolved(path: Path, classes: Classes) -> list[UnresolvedClick]:
    """Read what `write_unresolved` wrote.

    Raises:
        UserError: it cannot be read, or is no such file.
    """
    label_of = {identity: label for label, identity in enumerate(classes.ids)}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["clicks"]
        return [click_of_entry(entry, label_of) for entry in entries]
    except (OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise UserError(f"is no file of unresolved clicks ({error})", str(path)) from error


def entry_of_click(click: UnresolvedClick, classes: Classes) -> dict[str, Any]:
    """An unresolved click as JSON."""
    return {
        "image_id": click.image_id,
        "click_id": click.annotation_id,
        "category_id": classes.ids[click.label],
        "point": list(click.point),
        "reason": click.reason,
    }


def click_of_entry(entry: Mapping[str, Any], label_of: Mapping[int, int]) -> UnresolvedClick:
    """What `entry_of_click` made; `label_of` has a label for each category id."""
    x, y = entry["point"]
    return UnresolvedClick(
        entry["image_id"],
        entry["click_id"],
        label_of[entry["category_id"]],
        (float(x), float(y)),
        str(entry["reason"]),
    )


def reasons(clicks: Iterable[UnresolvedClick]) -> dict[str, int]:
    """How many clicks each reason left without a mask, the most frequent first."""
    counts: dict[str, int] = {}
    for click in clicks:
        counts[click.reason] = counts.get(click.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _fault(entry: Any, sizes: dict[Any, tuple[int, int]], label_of: dict[int, int]) -> str:
    """What is wrong with an annotation; empty where nothing is."""
    if not isinstance(entry, dict) or not is_integer(entry.get("image_id")) or entry["image_id"] not in sizes:
        return "image_id is not that of an image"
    if not is_integer(entry.get("category_id")) or entry["category_id"] not in label_of:
        return f"category_id {entry.get('category_id')!r} is not known"
    if not are_numbers(entry.get("point"), 2):
        return "point is not two numbers"
    try:
        run_lengths(entry.get("segmentation"), *sizes[entry["image_id"]])
    except ValueError as error:
        return f"the mask does not decode: {error}"
    return ""
