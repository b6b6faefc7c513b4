"""LabelMe: a JSON file an image, of points, polygons, rectangles and masks; parts with a `group_id` are one object."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import get
from vtk_cli.data.detection.outlines import Bools, outline_mask
from vtk_cli.data.detection.sizes import SizeOf, remembered_sizes
from vtk_cli.data.images import DECODE_ERRORS, FORMATS
from vtk_cli.data.points.marks import (
    UNREAD,
    Mark,
    Marked,
    MarkedImage,
    Size,
    box_mark,
    class_name,
    click_mark,
    grouped,
    numbers,
    patch_mark,
    polygon_mark,
)
from vtk_cli.data.points.places import find_image, last_part
from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import walk_files
from vtk_cli.files import write_json

_VERSION = "5.4.1"
"""Of the format that is written."""


def labelme_files(folder: Path) -> list[Path]:
    """The JSON files at any depth of a folder, in order of their paths."""
    return [folder / found.path for found in walk_files(folder, "", lambda name: name.lower().endswith(".json"))]


def is_labelme(content: Any) -> bool:
    """Whether the content of a JSON file is LabelMe's."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def read_labelme(files: Sequence[Path], images: Path | None, name: str, console: Console) -> Marked:
    """Read LabelMe files.

    Args:
        files: of an image each; those that are no LabelMe files are passed over, a broken one is a problem.
        images: the folder of the images; None: the one of each file.
        name: of all of them, for messages.
        console: shows the progress.
    """
    found: list[MarkedImage] = []
    problems: list[Problem] = []
    with (
        remembered_sizes(images or Path(name)) as size_of,
        console.progress("reading LabelMe files", len(files)) as shown,
    ):
        for file in files:
            shown.advance()
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                problems.append(Problem(f"{file} ({error})", "file is not JSON"))
                continue
            if is_labelme(content):
                image, wrong = _read(file, content, images, size_of)
                found += [] if image is None else [image]
                problems += wrong
    return Marked(name, tuple(found), tuple(problems))


def write_labelme(path: Path, image: MarkedImage) -> None:
    """Write an image's marks as LabelMe reads them: a mask and the click on it are one group.

    Args:
        path: the JSON file, written atomically.
        image: named in the file relative to the folder of `path` where it lies in or below that, else by itself.
    """
    shapes = [shape for number, mark in enumerate(image.marks, 1) for shape in _shapes(mark, number, image)]
    folder, file = path.absolute().parent, image.file.absolute()
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": file.relative_to(folder).as_posix() if folder in file.parents else str(file),
        "imageData": None,
        "imageHeight": image.height,
        "imageWidth": image.width,
    }
    write_json(path, content)


def _read(
    file: Path, content: Mapping[str, Any], images: Path | None, size_of: SizeOf
) -> tuple[MarkedImage | None, list[Problem]]:
    path = content.get("imagePath")
    listed = path if isinstance(path, str) else ""
    place = find_image(
        images or file.parent,
        [listed, last_part(listed)],
        str(file),
        size_of,
        (content.get("imageWidth"), content.get("imageHeight")),
    )
    if isinstance(place, Problem):
        return None, [place]
    parts: list[tuple[Any, Mark]] = []
    problems = []
    for number, shape in enumerate(content["shapes"]):
        mark = _mark(shape, place.size)
        if isinstance(mark, str):
            problems.append(Problem(f"{file}: shape {number} ({get(shape, 'label')!r})", mark))
        else:
            parts.append((shape.get("group_id"), mark))
    return MarkedImage(place.file, *place.size, grouped(parts, place.size)), problems


def _mark(shape: Any, size: Size) -> Mark | str:
    name = class_name(shape, "label") if isinstance(shape, dict) else None
    if name is None:
        return "shape has no label"
    points = shape.get("points")
    kind = shape.get("shape_type", "polygon")
    if kind == "polygon":
        return polygon_mark(name, points, size)
    if kind == "rectangle":
        return box_mark(name, points, size)
    at = numbers(points, 2)
    if kind == "point":
        return (
            click_mark(name, at[0, 0].item(), at[0, 1].item(), size) if at is not None else "point is not two numbers"
        )
    if kind == "mask":
        patch = _patch(shape.get("mask"))
        if patch is None or at is None:
            return "mask does not decode"
        return patch_mark(name, patch, (math.floor(at[0, 0]), math.floor(at[0, 1])), size)
    return UNREAD


def _patch(text: Any) -> Bools | None:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=FORMATS) as opened:
            pixels = np.asarray(opened.convert("L"))
    except (*DECODE_ERRORS, binascii.Error):
        return None
    return pixels > 0


def _shapes(mark: Mark, group: int, image: MarkedImage) -> Iterable[dict[str, Any]]:
    if mark.outline is not None:
        mask = outline_mask(mark.outline, image.height, image.width)
        rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
        left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])
        png = io.BytesIO()
        Image.fromarray(mask[top : bottom + 1, left : right + 1]).save(png, "PNG")
        text = base64.b64encode(png.getvalue()).decode("ascii")
        yield _shape(mark.name, "mask", [[left, top], [right, bottom]], group) | {"mask": text}
    if mark.box is not None:
        yield _shape(mark.name, "rectangle", mark.box.reshape(2, 2).tolist(), group)
    if mark.click is not None:
        yield _shape(mark.name, "point", [(mark.click + 0.5).tolist()], group)


def _shape(name: str, kind: str, points: list[list[float]], group: int) -> dict[str, Any]:
    return {"label": name, "points": points, "group_id": group, "description": "", "shape_type": kind, "flags": {}}
