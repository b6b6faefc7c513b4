"""Label Studio's JSON: key points, polygons and rectangles, in percent of the image."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import get, is_number
from vtk_cli.data.detection.sizes import remembered_sizes
from vtk_cli.data.image_layouts import EXTENSIONS
from vtk_cli.data.points.marks import (
    UNREAD,
    Mark,
    Marked,
    MarkedImage,
    Size,
    box_mark,
    click_mark,
    polygon_mark,
)
from vtk_cli.data.points.places import find_image, last_part
from vtk_cli.data.problems import Problem

_UPLOAD = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded file."""


def is_label_studio(content: Any) -> bool:
    """Whether the content of a JSON file is Label Studio's: a list of tasks with annotations."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(get(task, "annotations"), list) and isinstance(get(task, "data"), dict) for task in content)
    )


def read_label_studio(path: Path, images: Path | None, console: Console) -> Marked:
    """Read an export of Label Studio whose content `is_label_studio`; of several annotations the first counts.

    Args:
        path: the JSON file.
        images: the folder of the images; None: the one of the file.
        console: shows the progress.
    """
    tasks = json.loads(path.read_text(encoding="utf-8"))
    folder = path.parent if images is None else images
    found: list[MarkedImage] = []
    problems: list[Problem] = []
    with remembered_sizes(folder) as size_of, console.progress(f"reading {path.name}", len(tasks)) as shown:
        for number, task in enumerate(tasks):
            shown.advance()
            where = f"{path}: task {task.get('id', number)}"
            place = find_image(folder, _names(task), where, size_of)
            if isinstance(place, Problem):
                problems.append(place)
                continue
            marks: list[Mark] = []
            for at, region in enumerate(_regions(task)):
                mark = _mark(region, place.size)
                if isinstance(mark, str):
                    problems.append(Problem(f"{where} region {at}", mark))
                elif mark is not None:
                    marks.append(mark)
            found.append(MarkedImage(place.file, *place.size, tuple(marks)))
    return Marked(str(path), tuple(found), tuple(problems))


def _names(task: Mapping[str, Any]) -> list[str]:
    """What the image may be called: as it was uploaded or is served, with and without what that put before it."""
    given = [value for value in (task.get("file_upload"), *task["data"].values()) if isinstance(value, str)]
    names = []
    for value in given:
        try:
            address = urlsplit(value)
        except ValueError:  # an open bracket, where the host's number would be
            continue
        served = parse_qs(address.query).get("d", [unquote(address.path)])[0]
        if served.lower().endswith(tuple(EXTENSIONS)):
            names += [served.lstrip("/"), last_part(served), _UPLOAD.sub("", last_part(served), count=1)]
    return list(dict.fromkeys(names))


def _regions(task: Mapping[str, Any]) -> list[Any]:
    done = [one for one in task["annotations"] if isinstance(one, dict) and not one.get("was_cancelled")]
    regions = done[0].get("result") if done else []
    return regions if isinstance(regions, list) else []


def _mark(region: Any, size: Size) -> Mark | str | None:
    """The mark of a region, what is wrong with it, or None where it marks nothing: a choice, a relation."""
    kind, value = get(region, "type"), get(region, "value")
    if not isinstance(kind, str) or not isinstance(value, dict):
        return None if kind == "relation" else "region has no type or no value"
    if kind in {"choices", "textarea", "rating", "number", "taxonomy", "labels"} and "x" not in value:
        return None
    if kind not in {"keypointlabels", "polygonlabels", "rectanglelabels"}:
        return UNREAD
    names = value.get(kind)
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str) or not names[0].strip():
        return "region has no label, or several"
    name = names[0].strip()
    if kind == "polygonlabels":
        corners = value.get("points")
        return polygon_mark(name, [_pixels(pair, size) for pair in corners] if isinstance(corners, list) else [], size)
    x, y = _pixels([value.get("x"), value.get("y")], size)
    if kind == "keypointlabels":
        return click_mark(name, x, y, size)
    if value.get("rotation"):
        return UNREAD
    width, height = _pixels([value.get("width"), value.get("height")], size)
    if not all(map(is_number, (x, y, width, height))):
        return "box is not two corners"
    return box_mark(name, [[x, y], [x + width, y + height]], size)


def _pixels(pair: Any, size: Size) -> list[Any]:
    """Pixels of two numbers in percent; what is no number becomes None."""
    if not isinstance(pair, list) or len(pair) != 2:
        return [None, None]
    return [value * length / 100 if is_number(value) else None for value, length in zip(pair, size, strict=True)]
