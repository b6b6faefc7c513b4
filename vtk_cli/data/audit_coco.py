"""Checks COCO datasets: every image, category, box, mask and point."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vtk_cli.console import Console
from vtk_cli.data.coco_files import CocoFile, find_coco_files, read_coco_file
from vtk_cli.data.images import BrokenImage, decode_image
from vtk_cli.data.problems import Problem
from vtk_cli.data.rle import run_lengths
from vtk_cli.data.walking import file_size
from vtk_cli.errors import UserError

SLACK = 1.0
"""How many pixels a box, mask or point may reach outside its image: annotation tools round."""

SHOWN = 80
"""How many characters of a wrong entry are shown."""

Fault = tuple[str, str]
"""(what about the entry, what is wrong), e.g. `("bbox [3, 2, 0, 5]", "box has no area")`."""


def audit_coco(path: Path, console: Console) -> tuple[int, list[Problem]]:
    """The number of images and annotations of a COCO file or folder, and what is wrong with them.

    Raises:
        UserError: there is no annotation file, or it is no COCO file at all.
    """
    files = [read_coco_file(file) for file in find_coco_files(path)]
    if not files:
        raise UserError("no COCO annotations", str(path), "give the JSON file, or a folder with annotations/")
    problems: list[Problem] = []
    names: dict[int, str] = {}
    for file in files:
        problems += _wrong_categories(file, names)
        problems += _wrong_images(file, console)
        problems += _wrong_annotations(file)
    return sum(len(file.images) + len(file.annotations) for file in files), problems


def _wrong_categories(file: CocoFile, names: dict[int, str]) -> Iterator[Problem]:
    """Wrong categories; `names` holds those of the files before, and takes up those of this one."""
    seen: set[int] = set()
    for number, entry in enumerate(file.categories):
        where = f"{file.path}: category {number} {_shown(entry)}"
        identity, name = _get(entry, "id"), _get(entry, "name")
        if not _is_integer(identity) or not isinstance(name, str):
            yield Problem(where, "category has no id or no name")
            continue
        if identity in seen:
            yield Problem(where, "category id is used twice")
        elif names.setdefault(identity, name) != name:
            yield Problem(where, "category has another name in another file")
        seen.add(identity)


def _wrong_images(file: CocoFile, console: Console) -> Iterator[Problem]:
    ids, names = (Counter(map(_key, (_get(entry, key) for entry in file.images))) for key in ("id", "file_name"))
    with (
        console.progress(f"reading the images of {file.path.name}", len(file.images)) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        faults = pool.map(lambda entry: _fault_of_image(file.images_folder, entry), file.images)
        for number, (entry, fault) in enumerate(zip(file.images, faults, strict=True)):
            progress.advance()
            where = f"{file.path}: image {number}"
            if fault is not None:
                yield Problem(f"{where} ({fault[0]})", fault[1])
            if ids[_key(_get(entry, "id"))] > 1:
                yield Problem(f"{where} (id {_get(entry, 'id')})", "image id is used twice")
            if names[_key(_get(entry, "file_name"))] > 1:
                yield Problem(f"{where} ({_get(entry, 'file_name')})", "image file is listed twice")


def _fault_of_image(folder: Path, entry: Any) -> Fault | None:
    name, width, height = (_get(entry, key) for key in ("file_name", "width", "height"))
    if not _is_identity(_get(entry, "id")) or not isinstance(name, str) or not name:
        return _shown(entry), "image has no id or no file name"
    if not _is_integer(width) or not _is_integer(height) or width < 1 or height < 1:
        return f"{name}, width {width!r}, height {height!r}", "image has no width or no height"
    if file_size(folder / name) is None:
        return str(folder / name), "image is missing"
    try:
        size = decode_image(folder / name).size
    except BrokenImage as error:
        return f"{folder / name}: {error.what}", "image does not decode"
    if size != (width, height):
        return f"{name} is {size[0]}x{size[1]}, listed as {width}x{height}", "image has another size than listed"
    return None


def _wrong_annotations(file: CocoFile) -> Iterator[Problem]:
    sizes = {
        _key(_get(entry, "id")): (entry["width"], entry["height"])
        for entry in file.images
        if _is_identity(_get(entry, "id")) and _is_number(_get(entry, "width")) and _is_number(_get(entry, "height"))
    }
    known = {_key(_get(entry, "id")) for entry in file.images}
    categories = {_key(_get(entry, "id")) for entry in file.categories}
    ids = Counter(_key(_get(entry, "id")) for entry in file.annotations)
    for number, entry in enumerate(file.annotations):
        where = f"{file.path}: annotation {number}"
        identity, image, category = (_get(entry, key) for key in ("id", "image_id", "category_id"))
        if not _is_identity(identity):
            yield Problem(f"{where} {_shown(entry)}", "annotation has no id")
            continue
        where = f"{where} (id {identity}"
        if ids[_key(identity)] > 1:
            yield Problem(f"{where})", "annotation id is used twice")
        if _key(category) not in categories:
            yield Problem(f"{where}, category_id {category!r})", "category is unknown")
        if _key(image) not in known:
            yield Problem(f"{where}, image_id {image!r})", "annotation is of an unknown image")
        for about, what in _faults_of_instance(entry, sizes.get(_key(image))):
            yield Problem(f"{where}, {about})", what)


def _faults_of_instance(entry: Mapping[str, Any], size: tuple[int, int] | None) -> Iterator[Fault]:
    """What is wrong with the geometry of an annotation in an image of `size` (width, height); None: not known."""
    if entry.get("iscrowd", 0) not in (0, 1):
        yield f"iscrowd {entry['iscrowd']!r}", "iscrowd is neither 0 nor 1"
    if "area" in entry and not (_is_number(entry["area"]) and entry["area"] > 0):
        yield f"area {entry['area']!r}", "area is not above 0"
    if "bbox" in entry:
        yield from _faults_of_box(entry["bbox"], size)
    if entry.get("segmentation") not in (None, []):  # an empty list is how tools write that there is no mask
        yield from _faults_of_mask(entry["segmentation"], size)
    if "point" in entry:
        yield from _faults_of_point(entry["point"], entry.get("bbox"), size)
    if not {"bbox", "segmentation", "point"} & set(entry):
        yield _shown(entry), "annotation has no box, mask or point"


def _faults_of_box(box: Any, size: tuple[int, int] | None) -> Iterator[Fault]:
    if not _are_numbers(box, 4):
        yield f"bbox {box!r}", "box is not four numbers"
        return
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield f"bbox {box}", "box has no area"
    elif size is not None and not (_inside(x, y, size) and _inside(x + width, y + height, size)):
        yield f"bbox {box}, image {size[0]}x{size[1]}", "box reaches outside the image"


def _faults_of_mask(mask: Any, size: tuple[int, int] | None) -> Iterator[Fault]:
    if isinstance(mask, list):
        for polygon in mask:
            if not isinstance(polygon, list) or len(polygon) < 6 or not _are_numbers(polygon, len(polygon) // 2 * 2):
                yield f"polygon {_shown(polygon)}", "polygon is not three or more points"
            elif size is not None and not all(
                _inside(x, y, size) for x, y in zip(polygon[::2], polygon[1::2], strict=True)
            ):
                yield f"polygon {_shown(polygon)}, image {size[0]}x{size[1]}", "mask reaches outside the image"
        return
    if size is None:
        return
    try:
        runs = run_lengths(mask, size[1], size[0])
    except ValueError as error:
        yield f"segmentation {_shown(mask)}: {error}", "mask does not decode"
        return
    if not sum(runs[1::2]):
        yield f"segmentation {_shown(mask)}", "mask is empty"


def _faults_of_point(point: Any, box: Any, size: tuple[int, int] | None) -> Iterator[Fault]:
    if not _are_numbers(point, 2):
        yield f"point {point!r}", "point is not two numbers"
    elif size is not None and not _inside(point[0], point[1], size):
        yield f"point {point}, image {size[0]}x{size[1]}", "point is outside the image"
    elif (
        _are_numbers(box, 4)
        and min(box[2:]) > 0
        and not _inside(point[0] - box[0], point[1] - box[1], (box[2], box[3]))
    ):
        yield f"point {point}, bbox {box}", "point is outside its box"


def _inside(x: float, y: float, size: tuple[float, float]) -> bool:
    return -SLACK <= x <= size[0] + SLACK and -SLACK <= y <= size[1] + SLACK


def _get(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def _key(value: Any) -> str:
    """Something to look an id up by, also where it is a list by mistake; 1 and "1" stay apart."""
    return json.dumps(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_identity(value: Any) -> bool:
    return _is_integer(value) or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(map(_is_number, value))


def _shown(entry: Any) -> str:
    """The beginning of an entry, for a message."""
    text = json.dumps(entry)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
