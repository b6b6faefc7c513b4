"""What can be wrong with the entries of a COCO annotation file: categories, images, boxes, masks and points.

`vtk data check` reports these findings; the readers of annotations leave the entries out that have one.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.coco_files import CocoFile
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.problems import Problem
from vtk_cli.data.rle import LONGEST_BORDER, is_drawable, run_lengths
from vtk_cli.data.walking import file_size, path_within

SLACK = 1.0
"""How many pixels a box, mask or point may reach outside its image: annotation tools round."""
CLIPPABLE = frozenset({"box reaches outside the image", "mask reaches outside the image"})
"""Faults after which a part of the instance is left inside the image."""

SHOWN = 80
"""How many characters of a wrong entry are shown."""

_NUMBERS = frozenset({int, float})
_LARGEST = 1e300
"""A little less than what a float can hold, so that sums of such numbers are finite too."""

Fault = tuple[str, str]
"""(what about the entry, what is wrong), e.g. `("bbox [3, 2, 0, 5]", "box has no area")`."""
Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True)
class Finding:
    """A problem, and the entry that has it: number `index` of the list `section`."""

    section: Literal["categories", "images", "annotations"]
    index: int
    problem: Problem


def wrong_categories(file: CocoFile, names: dict[int, str]) -> Iterator[Finding]:
    """Wrong categories; `names` holds those of the files before, and takes up those of this one."""
    seen: set[int] = set()
    for number, entry in enumerate(file.categories):
        where = f"{file.path}: category {number} {_shown(entry)}"
        identity, name = get(entry, "id"), get(entry, "name")
        if not is_integer(identity) or not isinstance(name, str):
            yield Finding("categories", number, Problem(where, "category has no id or no name"))
            continue
        if not is_text(name):
            yield Finding("categories", number, Problem(where, "category name is no text"))
            continue
        if identity in seen:
            yield Finding("categories", number, Problem(where, "category id is used twice"))
        elif names.setdefault(identity, name) != name:
            yield Finding("categories", number, Problem(where, "category has another name in another file"))
        seen.add(identity)


def wrong_images(file: CocoFile, size_of: Callable[[Path], Size], console: Console) -> Iterator[Finding]:
    """Wrong images.

    Args:
        file: the annotations.
        size_of: width and height of an image as it decodes, upright; raises `BrokenImage`. Called in threads.
        console: shows the progress.
    """
    ids, names = (Counter(map(key_of, (get(entry, field) for entry in file.images))) for field in ("id", "file_name"))
    with (
        console.progress(f"reading the images of {file.path.name}", len(file.images)) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        faults = pool.map(lambda entry: _fault_of_image(file.images_folder, entry, size_of), file.images)
        for number, (entry, fault) in enumerate(zip(file.images, faults, strict=True)):
            progress.advance()
            where = f"{file.path}: image {number}"
            found = [] if fault is None else [fault]
            if ids[key_of(get(entry, "id"))] > 1:
                found.append((f"id {get(entry, 'id')}", "image id is used twice"))
            if names[key_of(get(entry, "file_name"))] > 1:
                found.append((str(get(entry, "file_name")), "image file is listed twice"))
            yield from (Finding("images", number, Problem(f"{where} ({about})", what)) for about, what in found)


def _fault_of_image(folder: Path, entry: Any, size_of: Callable[[Path], Size]) -> Fault | None:
    name, width, height = (get(entry, field) for field in ("file_name", "width", "height"))
    if not is_identity(get(entry, "id")) or not isinstance(name, str) or not name:
        return _shown(entry), "image has no id or no file name"
    if not is_integer(width) or not is_integer(height) or width < 1 or height < 1:
        return f"{name}, width {width!r}, height {height!r}", "image has no width or no height"
    path = path_within(folder, name)
    if path is None:
        return f"{name}, images in {folder}", "image file lies outside the folder of the images"
    if file_size(path) is None:
        return str(path), "image is missing"
    try:
        size = size_of(path)
    except BrokenImage as error:
        return f"{path}: {error.what}", "image does not decode"
    if size != (width, height):
        return f"{name} is {size[0]}x{size[1]}, listed as {width}x{height}", "image has another size than listed"
    return None


def wrong_annotations(file: CocoFile) -> Iterator[Finding]:
    """Wrong annotations, held against the images and categories that the file lists."""
    sizes = {
        key_of(get(entry, "id")): (entry["width"], entry["height"])
        for entry in file.images
        if is_identity(get(entry, "id")) and is_number(get(entry, "width")) and is_number(get(entry, "height"))
    }
    known = {key_of(get(entry, "id")) for entry in file.images}
    categories = {key_of(get(entry, "id")) for entry in file.categories}
    ids = Counter(key_of(get(entry, "id")) for entry in file.annotations)
    for number, entry in enumerate(file.annotations):
        where = f"{file.path}: annotation {number}"
        identity, image, category = (get(entry, field) for field in ("id", "image_id", "category_id"))
        if not is_identity(identity):
            yield Finding("annotations", number, Problem(f"{where} {_shown(entry)}", "annotation has no id"))
            continue
        found: list[Fault] = []
        if ids[key_of(identity)] > 1:
            found.append(("", "annotation id is used twice"))
        if key_of(category) not in categories:
            found.append((f", category_id {category!r}", "category is unknown"))
        if key_of(image) not in known:
            found.append((f", image_id {image!r}", "annotation is of an unknown image"))
        found += [(f", {about}", what) for about, what in faults_of_instance(entry, sizes.get(key_of(image)))]
        for about, what in found:
            yield Finding("annotations", number, Problem(f"{where} (id {identity}{about})", what))


def faults_of_instance(entry: Mapping[str, Any], size: Size | None) -> Iterator[Fault]:
    """What is wrong with the geometry of an annotation in an image of `size`; None: not known."""
    if entry.get("iscrowd", 0) not in (0, 1):
        yield f"iscrowd {entry['iscrowd']!r}", "iscrowd is neither 0 nor 1"
    if "area" in entry and not (is_number(entry["area"]) and entry["area"] > 0):
        yield f"area {entry['area']!r}", "area is not above 0"
    if "bbox" in entry:
        yield from _faults_of_box(entry["bbox"], size)
    if entry.get("segmentation") not in (None, []):  # an empty list is how tools write that there is no mask
        yield from _faults_of_mask(entry["segmentation"], size)
    if "point" in entry:
        yield from _faults_of_point(entry["point"], entry.get("bbox"), size)
    if not {"bbox", "segmentation", "point"} & set(entry):
        yield _shown(entry), "annotation has no box, mask or point"


def _faults_of_box(box: Any, size: Size | None) -> Iterator[Fault]:
    if not are_numbers(box, 4):
        yield f"bbox {_shown(box)}", "box is not four numbers"
        return
    x, y, width, height = box
    if width <= 0 or height <= 0:
        yield f"bbox {box}", "box has no area"
    elif size is None:
        return
    elif x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        yield f"bbox {box}, image {size[0]}x{size[1]}", "box lies outside the image"
    elif not (_inside(x, y, size) and _inside(x + width, y + height, size)):
        yield f"bbox {box}, image {size[0]}x{size[1]}", "box reaches outside the image"


def _faults_of_mask(mask: Any, size: Size | None) -> Iterator[Fault]:
    if isinstance(mask, list):
        whole = True
        for polygon in mask:
            if not isinstance(polygon, list) or len(polygon) < 6 or not are_numbers(polygon, len(polygon) // 2 * 2):
                whole = False
                yield f"polygon {_shown(polygon)}", "polygon is not three or more points"
            elif size is not None and not (
                _inside(min(polygon[::2]), min(polygon[1::2]), size)
                and _inside(max(polygon[::2]), max(polygon[1::2]), size)
            ):
                yield f"polygon {_shown(polygon)}, image {size[0]}x{size[1]}", "mask reaches outside the image"
        if whole and size is not None and not _is_drawable(mask, size):
            yield f"{len(mask)} polygons of {sum(map(len, mask)) // 2:,} points", "polygon winds too much to be drawn"
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


def _is_drawable(mask: list[list[float]], size: Size) -> bool:
    if sum(map(len, mask)) // 2 * (max(size) + 2 * SLACK + 1) <= LONGEST_BORDER:  # however it winds
        return True
    reach = (size[0] + SLACK, size[1] + SLACK)
    return is_drawable(np.clip(np.array(part, np.float64).reshape(-1, 2), -SLACK, reach) for part in mask)


def _faults_of_point(point: Any, box: Any, size: Size | None) -> Iterator[Fault]:
    if not are_numbers(point, 2):
        yield f"point {_shown(point)}", "point is not two numbers"
    elif size is not None and not _inside(point[0], point[1], size):
        yield f"point {point}, image {size[0]}x{size[1]}", "point is outside the image"
    elif are_numbers(box, 4) and min(box[2:]) > 0 and not _inside(point[0] - box[0], point[1] - box[1], box[2:]):
        yield f"point {point}, bbox {box}", "point is outside its box"


def _inside(x: float, y: float, size: Any) -> bool:
    return bool(-SLACK <= x <= size[0] + SLACK and -SLACK <= y <= size[1] + SLACK)


def get(entry: Any, key: str) -> Any:
    """`entry[key]`; None where there is none, or no dictionary."""
    return entry.get(key) if isinstance(entry, dict) else None


def key_of(value: Any) -> str:
    """Something to look an id up by, also where it is a list by mistake; 1 and "1" stay apart."""
    try:
        return json.dumps(value)
    except RecursionError:  # brackets in brackets, which are no id
        return ""


def is_integer(value: Any) -> bool:
    """Whether it is a JSON integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_identity(value: Any) -> bool:
    """Whether it can be an id: an integer or a string."""
    return is_integer(value) or isinstance(value, str)


def is_text(text: str) -> bool:
    """Whether it can be written: JSON can hold halves of characters, which UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(value: Any) -> bool:
    """Whether it is a finite JSON number that a float can hold."""
    return type(value) in _NUMBERS and abs(value) < _LARGEST


def are_numbers(value: Any, count: int) -> bool:
    """Whether it is a list of `count` finite numbers."""
    if not isinstance(value, list) or len(value) != count or not _NUMBERS.issuperset(map(type, value)):
        return False
    try:
        return bool(sum(map(abs, value)) < _LARGEST)  # NaN is less than nothing
    except OverflowError:
        return False


def _shown(entry: Any) -> str:
    """The beginning of an entry, for a message."""
    try:
        text = json.dumps(entry)
    except RecursionError:
        text = "of brackets in brackets"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
