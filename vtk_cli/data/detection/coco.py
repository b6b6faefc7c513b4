"""Detection from COCO annotations: boxes, outlines and crowds of the images of one JSON file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import CLIPPABLE, Finding, get, is_integer, wrong_annotations, wrong_images
from vtk_cli.data.coco_faults import wrong_categories as wrong_category_entries
from vtk_cli.data.coco_files import CocoFile, read_coco_file
from vtk_cli.data.detection.outlines import outline_of
from vtk_cli.data.detection.reading import Annotated, Reading, clipped, record_of
from vtk_cli.data.detection.sizes import remembered_sizes
from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import path_within
from vtk_cli.errors import UserError

RESHAPING = CLIPPABLE | {"area is not above 0"}
MENDED = RESHAPING | {"annotation id is used twice"}
"""Faults of an annotation that does not have to be left out: what is inside the image is kept, the area computed anew,
and an id means nothing here; of entries that agree in all but the id the first is kept."""


def read_coco(path: Path, console: Console, images: Path | None = None) -> Reading:
    """Read an annotation file; every image is decoded once.

    Args:
        path: the JSON file.
        console: shows the progress.
        images: the folder of the images; None looks for it, see `coco_files`.

    Classes are its categories in the order of their ids. A category that only groups the others, as Roboflow writes
    one (`supercategory: none`, nothing annotated), is no class.

    Raises:
        UserError: it is no COCO file, or its categories have no ids or names, or the same id twice.
    """
    file = read_coco_file(path, images)
    for wrong in wrong_category_entries(file, {}):
        raise UserError(wrong.problem.what, wrong.problem.where)
    names = class_names_of(file)
    with remembered_sizes(file.images_folder) as size_of:
        of_images = list(wrong_images(file, size_of, console))
    of_images += _without_integer_ids(file, {finding.index for finding in of_images})
    of_annotations = [finding for finding in wrong_annotations(file) if not finding.problem.what.startswith("point ")]
    of_annotations += _without_boxes(file, {finding.index for finding in of_annotations})
    kept = _kept_images(file, {finding.index for finding in of_images})
    objects = _objects(file, kept, {identity: label for label, identity in enumerate(names)}, of_annotations)
    return Reading(
        str(path),
        "coco",
        tuple(
            record_of(_image_file(file, entry), identity, (entry["width"], entry["height"]), objects[identity])
            for identity, entry in kept.items()
        ),
        tuple(names.values()),
        tuple(names),
        tuple(finding.problem for finding in (*of_images, *of_annotations)),
        len(file.images) + len(file.annotations),
    )


def class_names_of(file: CocoFile) -> dict[int, str]:
    """The names of the classes by category id, ids ascending; categories that only group others are none.

    Raises:
        UserError: there are none.
    """
    groups = {name for entry in file.categories if isinstance(name := get(entry, "supercategory"), str)}
    used = {identity for entry in file.annotations if is_integer(identity := get(entry, "category_id"))}
    grouping = {
        entry["id"]
        for entry in file.categories
        if entry.get("supercategory") == "none" and entry["name"] in groups and entry["id"] not in used
    }
    names = {entry["id"]: entry["name"] for entry in file.categories if entry["id"] not in grouping}
    if not names:
        raise UserError("has no categories", str(file.path))
    return dict(sorted(names.items()))


def _image_file(file: CocoFile, entry: Mapping[str, Any]) -> Path:
    path = path_within(file.images_folder, entry["file_name"])
    if path is None:
        raise ValueError(f"{entry['file_name']} was found to lie outside {file.images_folder}")
    return path


def _kept_images(file: CocoFile, wrong: set[int]) -> dict[int, dict[str, Any]]:
    return {entry["id"]: entry for number, entry in enumerate(file.images) if number not in wrong}


def _without_integer_ids(file: CocoFile, known: set[int]) -> list[Finding]:
    """Images whose id is a string: evaluation counts them by number."""
    return [
        Finding(
            "images", number, Problem(f"{file.path}: image {number} (id {entry['id']!r})", "image id is no integer")
        )
        for number, entry in enumerate(file.images)
        if number not in known and not is_integer(entry["id"])
    ]


def _without_boxes(file: CocoFile, known: set[int]) -> list[Finding]:
    """Annotations of other kinds, a point or a mask alone."""
    return [
        Finding(
            "annotations",
            number,
            Problem(f"{file.path}: annotation {number} (id {entry['id']})", "annotation has no box"),
        )
        for number, entry in enumerate(file.annotations)
        if number not in known and "bbox" not in entry
    ]


def _objects(
    file: CocoFile, images: Mapping[int, Mapping[str, Any]], label_of: Mapping[int, int], findings: list[Finding]
) -> defaultdict[int, list[Annotated]]:
    """The objects by image id."""
    faults: defaultdict[int, set[str]] = defaultdict(set)
    for finding in findings:
        faults[finding.index].add(finding.problem.what)
    objects: defaultdict[int, list[Annotated]] = defaultdict(list)
    seen: set[tuple[Any, ...]] = set()
    for number, entry in enumerate(file.annotations):
        found = faults.get(number, set())
        if found - MENDED or entry["image_id"] not in images:
            continue
        if "annotation id is used twice" in found:
            same = (entry["id"], entry["image_id"], entry["category_id"], *entry["bbox"])
            if same in seen:
                continue
            seen.add(same)
        image = images[entry["image_id"]]
        one = _object(
            entry,
            (image["width"], image["height"]),
            label_of,
            given_area=not found & RESHAPING,
            given_box=not found & CLIPPABLE,
        )
        if one is not None:
            objects[entry["image_id"]].append(one)
    return objects


def _object(
    entry: Mapping[str, Any], size: tuple[int, int], label_of: Mapping[int, int], *, given_area: bool, given_box: bool
) -> Annotated | None:
    x, y, width, height = entry["bbox"]
    box = clipped(np.array([x, y, x + width, y + height], np.float64), size)
    if box is None:
        return None
    outline = outline_of(entry.get("segmentation"), size[1], size[0])
    area = entry.get("area") if given_area else None
    given = np.array(entry["bbox"], np.float64) if given_box else None
    return Annotated(box, label_of[entry["category_id"]], bool(entry.get("iscrowd", 0)), outline, area, given)
