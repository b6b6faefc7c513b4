"""Clicks from COCO annotations: points of their own, those that other tools and papers write, or derived.

Of what an annotation has, the first counts: `point` [x, y]; `point_coords` and `point_labels` (PointSup, arXiv
2104.06404: the first that is labelled 1); `keypoints` (the first that is visible: clicks as CVAT exports them);
`segmentation` (the click is derived from the mask); `bbox` (its centre).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import are_numbers, get, is_integer, wrong_annotations, wrong_categories, wrong_images
from vtk_cli.data.coco_files import CocoFile, read_coco_file
from vtk_cli.data.detection.coco import class_names_of
from vtk_cli.data.detection.outlines import outline_mask, outline_of
from vtk_cli.data.detection.sizes import remembered_sizes
from vtk_cli.data.points.clicks import Mode, click_of_box, click_of_mask
from vtk_cli.data.points.reading import OUTSIDE, Click, PointReading, image_of, is_inside
from vtk_cli.data.points.records import SOURCES, Classes, Source
from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import path_within
from vtk_cli.errors import UserError

_OF_ALL = frozenset(
    {
        "annotation has no id",
        "annotation id is used twice",
        "category is unknown",
        "annotation is of an unknown image",
        "iscrowd is neither 0 nor 1",
    }
)
_OF_SOURCE: Mapping[Source, frozenset[str]] = {
    "point": frozenset({"point is not two numbers"}),
    "point_coords": frozenset(),
    "keypoints": frozenset(),
    "segmentation": frozenset(
        {
            "polygon is not three or more points",
            "polygon winds too much to be drawn",
            "mask does not decode",
            "mask is empty",
        }
    ),
    "bbox": frozenset({"box is not four numbers", "box has no area", "box lies outside the image"}),
}
"""What keeps an annotation from giving a click: what is wrong with the rest of it does not matter."""


@dataclass(frozen=True)
class _Taking:
    """What clicks are taken from, and how they are derived from masks."""

    sources: tuple[Source, ...]
    mode: Mode
    seed: int

    def source(self, entry: Any) -> Source | None:
        """What the click of an annotation is taken from; None where it has nothing to take it from."""
        return next((source for source in self.sources if get(entry, source) not in (None, [])), None)


def read_coco_points(
    path: Path,
    console: Console,
    *,
    images: Path | None = None,
    mode: Mode = "random",
    seed: int = 0,
    sources: Sequence[Source] = SOURCES,
) -> PointReading:
    """Read the clicks of an annotation file; every image is decoded once. Crowds have none.

    Args:
        path: the JSON file.
        console: shows the progress.
        images: the folder of its images; None looks for it.
        mode: how clicks are derived from masks.
        seed: of `random`.
        sources: what clicks may be taken from, the first that an annotation has.

    Raises:
        UserError: it is no COCO file, or its categories have no ids or names, or the same id twice.
    """
    file = read_coco_file(path, images)
    classes = classes_of(file)
    with remembered_sizes(file.images_folder) as size_of:
        of_images = list(wrong_images(file, size_of, console))
    problems = [finding.problem for finding in of_images]
    unusable = {finding.index for finding in of_images}
    kept: dict[int, dict[str, Any]] = {}
    for number, entry in enumerate(file.images):
        if number not in unusable and is_integer(entry["id"]):
            kept[entry["id"]] = entry
        elif number not in unusable:
            where = f"{file.path}: image {number} (id {entry['id']!r})"
            problems.append(Problem(where, "image id is no integer"))
    taking = _Taking(tuple(sources), mode, seed)
    clicks, wrong_clicks = _clicks(file, kept, classes, taking)
    records = tuple(
        image_of(_file_of(file, entry), identity, (entry["width"], entry["height"]), clicks[identity])
        for identity, entry in kept.items()
    )
    return PointReading(str(path), records, classes, (*problems, *wrong_clicks))


def classes_of(file: CocoFile) -> Classes:
    """The classes of a file, ids ascending, as the readers of masks have them.

    Raises:
        UserError: there are none, or a category has no id or name.
    """
    for wrong in wrong_categories(file, {}):
        raise UserError(wrong.problem.what, wrong.problem.where)
    names = class_names_of(file)
    return Classes(tuple(names.values()), tuple(names))


def _clicks(
    file: CocoFile, images: Mapping[int, Mapping[str, Any]], classes: Classes, taking: _Taking
) -> tuple[defaultdict[int, list[Click]], list[Problem]]:
    """The clicks by image id, and what is wrong."""
    faults: defaultdict[int, list[Problem]] = defaultdict(list)
    for finding in wrong_annotations(file):
        faults[finding.index].append(finding.problem)
    label_of = {identity: label for label, identity in enumerate(classes.ids)}
    clicks: defaultdict[int, list[Click]] = defaultdict(list)
    problems: list[Problem] = []
    for number, entry in enumerate(file.annotations):
        if get(entry, "iscrowd") == 1:
            continue
        source = taking.source(entry)
        stopping = _OF_ALL | (_OF_SOURCE[source] if source is not None else frozenset())
        found = [problem for problem in faults[number] if problem.what in stopping]
        if found:
            problems += found
            continue
        where = f"{file.path}: image {entry['image_id']} annotation {entry['id']}"
        if not is_integer(entry["id"]):
            problems.append(Problem(where, "annotation id is no integer"))
        elif source is None:
            problems.append(Problem(where, "annotation has neither point, mask nor box"))
        elif entry["image_id"] not in images:
            problems.append(Problem(where, "click is on an image that cannot be used"))
        else:
            image = images[entry["image_id"]]
            click = _click(entry, source, (image["width"], image["height"]), taking)
            if isinstance(click, str):
                problems.append(Problem(f"{where} ({source} {_about(entry, source, image)})", click))
            else:
                label = label_of[entry["category_id"]]
                clicks[entry["image_id"]].append(Click(click, label, entry["id"], source))
    return clicks, problems


def _click(
    entry: Mapping[str, Any], source: Source, size: tuple[int, int], taking: _Taking
) -> np.ndarray[tuple[int], np.dtype[np.float64]] | str:
    """x, y of the click, or what is wrong."""
    if source == "segmentation":
        mask = outline_mask(outline_of(entry["segmentation"], size[1], size[0]), size[1], size[0])
        return (
            click_of_mask(mask, taking.mode, seed=taking.seed, identity=entry["id"]) if mask.any() else "mask is empty"
        )
    if source == "bbox":
        x, y, width, height = entry["bbox"]
        return click_of_box(np.clip(np.array([x, y, x + width, y + height], np.float64), 0, (*size, *size)))
    given = entry["point"] if source == "point" else _first_positive(entry, source)
    if given is None:
        return f"{source} has no point on the object"
    return np.array(given, np.float64) if is_inside(given[0], given[1], size) else OUTSIDE


def _first_positive(entry: Mapping[str, Any], source: Source) -> list[float] | None:
    """The first point that is on the object; None where none is, or the list is not what it should be."""
    if source == "keypoints":
        flat = entry["keypoints"]
        whole = isinstance(flat, list) and len(flat) % 3 == 0 and are_numbers(flat, len(flat))
        triples = [flat[start : start + 3] for start in range(0, len(flat), 3)] if whole else []
        return next(([x, y] for x, y, visible in triples if visible > 0), None)
    points, labels = entry["point_coords"], entry.get("point_labels")
    if not isinstance(points, list) or not isinstance(labels, list) or len(points) != len(labels):
        return None
    return next(
        (point for point, label in zip(points, labels, strict=True) if label == 1 and are_numbers(point, 2)), None
    )


def _about(entry: Mapping[str, Any], source: Source, image: Mapping[str, Any]) -> str:
    shown = f"{entry[source]}" if source == "point" else f"of {len(entry[source])} values"
    return f"{shown}, image {image['width']}x{image['height']}"


def _file_of(file: CocoFile, entry: Mapping[str, Any]) -> Path:
    path = path_within(file.images_folder, entry["file_name"])
    if path is None:
        raise ValueError(f"{entry['file_name']} was found to lie outside {file.images_folder}")
    return path
