"""CVAT for images 1.1: one XML file with points, polygons, boxes and masks. Each of several points is a click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.detection.outlines import Bools
from vtk_cli.data.detection.sizes import remembered_sizes
from vtk_cli.data.plain_xml import read_xml
from vtk_cli.data.points.marks import (
    UNREAD,
    Mark,
    Marked,
    MarkedImage,
    Size,
    box_mark,
    class_name,
    click_mark,
    patch_mark,
    polygon_mark,
)
from vtk_cli.data.points.places import find_image, last_part
from vtk_cli.data.problems import Problem
from vtk_cli.errors import UserError

LARGEST_FILE = 2**29
"""Bytes of an export, of which 100,000 images take about 2**27; read, it takes some fifteen times as much memory."""
_NO_SHAPES = frozenset({"tag"})
"""Elements of an image that mark nothing on it."""


def read_cvat(path: Path, images: Path | None, console: Console) -> Marked:
    """Read an export of CVAT.

    Args:
        path: the XML file.
        images: the folder of the images; None: `images` beside the file where there is one, else the file's own.
        console: shows the progress.

    Raises:
        UserError: it is no such file.
    """
    beside = path.parent / "images"
    folder = images if images is not None else beside if beside.is_dir() else path.parent
    elements = _images(path)
    found: list[MarkedImage] = []
    problems: list[Problem] = []
    with remembered_sizes(folder) as size_of, console.progress(f"reading {path.name}", len(elements)) as shown:
        for element in elements:
            shown.advance()
            name = element.get("name", "")
            where = f"{path}: image {element.get('id', '?')}"
            listed = (_whole(element.get("width")), _whole(element.get("height")))
            place = find_image(folder, [name, last_part(name)], where, size_of, listed)
            if isinstance(place, Problem):
                problems.append(place)
                continue
            marks = []
            for number, shape in enumerate(element):
                for mark in _marks(shape, place.size):
                    if isinstance(mark, str):
                        problems.append(Problem(f"{where} ({name}) shape {number} <{shape.tag}>", mark))
                    else:
                        marks.append(mark)
            found.append(MarkedImage(place.file, *place.size, tuple(marks)))
    return Marked(str(path), tuple(found), tuple(problems))


def _images(path: Path) -> list[ET.Element]:
    top = read_xml(path, LARGEST_FILE)
    elements = top.findall("image")
    if top.tag != "annotations" or not elements:
        fix = "export it as 'CVAT for images 1.1'"
        raise UserError(f"holds no images (it is <{top.tag}> with {len(elements)} of them)", str(path), fix)
    return elements


def _marks(shape: ET.Element, size: Size) -> Iterator[Mark | str]:
    if shape.tag in _NO_SHAPES:
        return
    name = class_name(shape.attrib, "label")
    if name is None:
        yield "shape has no label"
    elif shape.tag == "points":
        points = _points(shape.get("points", ""))
        if not points:
            yield "point is not two numbers"
        for point in points:
            yield click_mark(name, point[0], point[1], size) if len(point) == 2 else "point is not two numbers"
    elif shape.tag == "polygon":
        yield polygon_mark(name, _points(shape.get("points", "")), size)
    elif shape.tag == "box":
        corners = [[_number(shape.get(key)) for key in pair] for pair in (("xtl", "ytl"), ("xbr", "ybr"))]
        yield UNREAD if _number(shape.get("rotation", "0")) != 0 else box_mark(name, corners, size)
    elif shape.tag == "mask":
        patch = _patch(shape, size)
        yield "mask does not decode" if patch is None else patch_mark(name, *patch, size)
    else:
        yield UNREAD


def _patch(shape: ET.Element, size: Size) -> tuple[Bools, tuple[int, int]] | None:
    """The mask within its box, bool (h, w), and the box's left and top; runs go along rows, of 0 first.

    None where it is wrong, or larger than the image.
    """
    left, top, width, height = (_whole(shape.get(key)) for key in ("left", "top", "width", "height"))
    runs = [_whole(text) for text in shape.get("rle", "").split(",")]
    counts = [run for run in runs if run is not None and run >= 0]
    if left is None or top is None or width is None or height is None or len(counts) < len(runs):
        return None
    if not (1 <= width <= size[0] + 1 and 1 <= height <= size[1] + 1) or sum(counts) != width * height:
        return None
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(height, width), (left, top)


def _points(text: str) -> list[list[Any]]:
    return [[_number(part) for part in pair.split(",")] for pair in text.split(";") if pair.strip()]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    value = _number(text)
    return int(value) if value is not None and value.is_integer() else None
