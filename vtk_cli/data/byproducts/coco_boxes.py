"""Reads the boxes of COCO annotations, whose centres can stand in for clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vtk_cli.data.byproducts.marks import CROWDS, Collected
from vtk_cli.data.byproducts.places import fractions_of, number
from vtk_cli.data.coco_files import read_coco_file


def collect_coco_boxes(collected: Collected, path: Path) -> None:
    """Add the boxes of an annotation file, crowds left out.

    Raises:
        UserError: it is no COCO file.
    """
    file = read_coco_file(path)
    categories = {_identity(entry): _text(entry, "name") for entry in file.categories}
    images = {_identity(entry): entry for entry in file.images if _text(entry, "file_name")}
    images.pop(None, None)
    for entry in images.values():
        collected.image(entry["file_name"])
    for annotation in file.annotations:
        image = images.get(_identity(annotation, "image_id"))
        category = categories.get(_identity(annotation, "category_id"))
        if image is None or not category:
            collected.skip("boxes of unknown images or categories")
            continue
        if annotation.get("iscrowd"):
            collected.skip(CROWDS)
            continue
        box = annotation.get("bbox")
        sides = [number(side) for side in box] if isinstance(box, list) else []
        known = [side for side in sides if side is not None]
        if len(known) != 4 or len(sides) != 4:
            collected.skip("annotations without a box")
            continue
        left, top, width, height = known
        corners = (left, top, left + width, top + height)
        fractions = fractions_of(corners, number(image.get("width")), number(image.get("height")))
        if fractions is None:
            collected.skip("boxes without an area inside the image")
            continue
        collected.add("boxes", collected.image(image["file_name"]), fractions, label=collected.label(category))


def _identity(entry: Any, key: str = "id") -> int | str | None:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, (int, str)) else None


def _text(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else ""
