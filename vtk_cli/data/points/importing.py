"""From what labelling tools export to the two files that everything here starts from.

An image all of whose objects have a mask goes to the fully labelled ones, every other to the clicked ones; one that has
both kinds of objects is the user's to decide about.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask

from vtk_cli.console import Console
from vtk_cli.data.coco_files import SECTIONS, read_coco_file
from vtk_cli.data.detection.opening import format_of, read_split, splits_of
from vtk_cli.data.detection.outlines import coco_rle, outline_area, outline_of, run_lengths_of, segmentation_of
from vtk_cli.data.detection.records import ImageRecord, Split
from vtk_cli.data.points.coco import read_coco_points
from vtk_cli.data.points.cvat import read_cvat
from vtk_cli.data.points.label_studio import is_label_studio, read_label_studio
from vtk_cli.data.points.labelme import is_labelme, labelme_files, read_labelme
from vtk_cli.data.points.marks import Mark, Marked, MarkedImage
from vtk_cli.data.points.records import Classes, Source
from vtk_cli.data.problems import told
from vtk_cli.data.walking import check_folder
from vtk_cli.errors import UserError
from vtk_cli.files import write_text

Mixed = Literal["error", "points"]
"""What is done with images of which some objects have a mask and others do not: refused, or taken as clicked."""
STRONG_FILE, WEAK_FILE = "strong.json", "weak.json"
_MASK_FIRST: tuple[Source, ...] = ("segmentation", "point", "point_coords", "keypoints", "bbox")
_EXPECTED = "expected LabelMe (a folder of JSON), CVAT for images (XML), Label Studio (JSON), YOLO, Pascal VOC or COCO"


@dataclass(frozen=True)
class Imported:
    """What was written.

    Args:
        strong, weak: the files; None where there is no such image.
        images_folder: what their file names are relative to.
        strong_images, weak_images: how many.
        masks: objects of fully labelled images.
        clicks: objects of clicked images, whatever they are marked by.
        left_out: entries that were wrong.
    """

    strong: Path | None
    weak: Path | None
    images_folder: Path
    strong_images: int
    weak_images: int
    masks: int
    clicks: int
    left_out: int


def read_marks(path: Path, console: Console, images: Path | None = None) -> Marked:
    """Read what a labelling tool exported, whichever it is.

    Args:
        path: a file or folder.
        console: shows the progress.
        images: the folder of the images; None looks for them beside the file.

    Raises:
        UserError: there is nothing there, or it is none of the formats.
    """
    if images is not None:
        check_folder(images)
    if path.is_dir():
        files = labelme_files(path)
        if any(is_labelme(_content(file)) for file in files[:20]):
            return read_labelme(files, images, str(path), console)
        return _of_detection(path, console)
    if not path.is_file():
        raise UserError("no such file or folder", str(path), _EXPECTED)
    if path.suffix.lower() == ".xml":
        return read_cvat(path, images, console)
    if path.suffix.lower() != ".json":
        return _of_detection(path, console)
    content = _content(path)
    if is_labelme(content):
        return read_labelme([path], images or path.parent, str(path), console)
    if is_label_studio(content):
        return read_label_studio(path, images, console)
    if isinstance(content, dict) and set(SECTIONS) <= set(content):
        return _of_coco(path, images, console)
    raise UserError("is of no labelling tool that is known", str(path), _EXPECTED)


def import_marks(
    marked: Marked,
    out: Path,
    console: Console,
    *,
    mixed: Mixed = "error",
    classes: Classes | None = None,
    skip_bad: bool = False,
) -> Imported:
    """Write `strong.json` and `weak.json`, both COCO with the same categories, each atomically.

    Args:
        marked: of one tool.
        out: the folder for them.
        console: told what was left out.
        mixed: what to do with images of both kinds of objects.
        classes: what may be marked; None takes the names there are, sorted, and numbers them from 1.
        skip_bad: leave out what is wrong in place of refusing it.

    Raises:
        UserError: something is wrong and not to be skipped, a class is not known, there are images of both kinds and
            they are an error, or there is no object at all.
        JobError: the disk is full.
    """
    if marked.problems and not skip_bad:
        what = f"{len(marked.problems)} wrong entries: {told(marked.problems)}"
        raise UserError(what, marked.name, "mend them, or leave them out with --skip-bad")
    if marked.problems:
        console.warn(f"{marked.name}: {len(marked.problems)} wrong entries left out: {told(marked.problems)}")
    if not any(image.marks for image in marked.images):
        raise UserError(f"nothing is marked on {len(marked.images)} images", marked.name)
    both = [
        image for image in marked.images if 0 < sum(mark.outline is not None for mark in image.marks) < len(image.marks)
    ]
    if both and mixed == "error":
        what = f"{len(both)} images have objects with a mask and objects without (first {both[0].file.name})"
        raise UserError(what, marked.name, "take them as clicked images with --mixed points, or draw the other masks")
    known = _classes(marked, classes)
    strong = [image for image in marked.images if all(mark.outline is not None for mark in image.marks)]
    weak = [image for image in marked.images if not all(mark.outline is not None for mark in image.marks)]
    folder = Path(os.path.commonpath([image.file.absolute().parent for image in marked.images]))
    paths = [
        _write(out / name, part, first, folder, known) if part else None
        for name, part, first in ((STRONG_FILE, strong, 1), (WEAK_FILE, weak, 1 + len(strong)))
    ]
    counts = [sum(len(image.marks) for image in part) for part in (strong, weak)]
    return Imported(paths[0], paths[1], folder, len(strong), len(weak), counts[0], counts[1], len(marked.problems))


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _classes(marked: Marked, classes: Classes | None) -> Classes:
    names = sorted({mark.name for image in marked.images for mark in image.marks})
    if classes is None:
        return Classes(tuple(names), tuple(range(1, len(names) + 1)))
    strangers = [name for name in names if name not in classes.names]
    if strangers:
        what = f"{len(strangers)} marked classes are not known: {', '.join(strangers[:10])}"
        raise UserError(what, marked.name, f"there are {', '.join(classes.names[:10])}")
    return classes


def _write(path: Path, images: Sequence[MarkedImage], first: int, folder: Path, classes: Classes) -> Path:
    id_of = dict(zip(classes.names, classes.ids, strict=True))
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for identity, image in enumerate(images, first):
        name = image.file.absolute().relative_to(folder).as_posix()
        listed.append({"id": identity, "file_name": name, "width": image.width, "height": image.height})
        for mark in image.marks:
            entry = {"id": len(annotations) + 1, "image_id": identity, "category_id": id_of[mark.name], "iscrowd": 0}
            annotations.append(entry | _fields(mark, image))
    pairs = zip(classes.ids, classes.names, strict=True)
    categories = [{"id": identity, "name": name} for identity, name in pairs]
    write_text(path, json.dumps({"images": listed, "annotations": annotations, "categories": categories}))
    return path


def _fields(mark: Mark, image: MarkedImage) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if mark.click is not None:
        fields["point"] = mark.click.tolist()
    if mark.outline is not None:
        runs = run_lengths_of(mark.outline, image.height, image.width)
        mask = coco_rle(runs)
        fields |= {
            "segmentation": segmentation_of(mark.outline),
            "bbox": coco_mask.toBbox(mask).tolist(),
            "area": outline_area(runs),
        }
    elif mark.box is not None:
        left, top, right, bottom = mark.box.tolist()
        fields |= {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
    return fields


def _of_coco(path: Path, images: Path | None, console: Console) -> Marked:
    """Crowds are no objects and are left out."""
    reading = read_coco_points(path, console, images=images, mode="centroid", sources=_MASK_FIRST)
    entries = {entry["id"]: entry for entry in read_coco_file(path, images).annotations if _is_keyed(entry)}
    found = []
    for image in reading.images:
        marks = []
        for number, identity in enumerate(image.annotation_ids.tolist()):
            entry, name = entries[identity], reading.classes.names[int(image.labels[number])]
            if image.sources[number] == "segmentation":
                marks.append(Mark(name, outline=outline_of(entry["segmentation"], image.height, image.width)))
            elif image.sources[number] == "bbox":
                x, y, width, height = entry["bbox"]
                extent = (image.width, image.height) * 2
                marks.append(Mark(name, box=np.clip(np.array([x, y, x + width, y + height], np.float64), 0, extent)))
            else:
                marks.append(Mark(name, click=image.points[number]))
        found.append(MarkedImage(image.file, image.width, image.height, tuple(marks)))
    return Marked(str(path), tuple(found), reading.problems)


def _is_keyed(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("id"), int)


def _of_detection(path: Path, console: Console) -> Marked:
    """YOLO, Pascal VOC, or a folder of COCO: all splits."""
    format_of(path)
    everything: tuple[Split, ...] = splits_of(path) or ("train",)
    readings = [read_split(path, split, console) for split in everything]
    images = [_image(record, reading.class_names) for reading in readings for record in reading.records]
    return Marked(str(path), tuple(images), tuple(problem for reading in readings for problem in reading.problems))


def _image(record: ImageRecord, names: Sequence[str]) -> MarkedImage:
    marks = [
        Mark(names[label], outline=outline, box=None if outline is not None else box)
        for label, outline, box, crowd in zip(
            record.labels.tolist(), record.outlines, record.boxes, record.crowd, strict=True
        )
        if not crowd
    ]
    return MarkedImage(record.file, record.width, record.height, tuple(marks))
