"""Finds COCO annotation files and the folder of their images, in the layouts people have.

- COCO: `annotations/instances_<split>.json` beside `<split>/` or `images/<split>/`.
- Roboflow: `<split>/_annotations.coco.json` beside the images.
- A JSON file by itself: its images lie beside it or in `images/`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vtk_cli.data.memory import require_memory
from vtk_cli.data.walking import check_folder, file_size, path_within
from vtk_cli.errors import UserError

ROBOFLOW = "_annotations.coco.json"
MEMORY_PER_BYTE = 12
"""Bytes of memory that a byte of a file takes: 10^7 boxes are 0.9 GB of JSON, and 10 GB once read."""
SECTIONS = ("images", "annotations", "categories")


@dataclass(frozen=True, eq=False)
class CocoFile:
    """An annotation file as it was read, entries unchecked, and where its images should lie."""

    path: Path
    images_folder: Path
    images: list[Any]
    annotations: list[Any]
    categories: list[Any]


def find_coco_files(path: Path) -> list[Path]:
    """The annotation files of `path`, a JSON file or a dataset folder; empty when the folder holds none."""
    if path.is_file():
        return [path]
    check_folder(path)
    patterns = ("annotations/instances_*.json", f"*/{ROBOFLOW}", ROBOFLOW, "instances_*.json")
    found = (sorted(path.glob(pattern)) for pattern in patterns)
    return next((files for files in found if files), [])


def read_coco_file(path: Path, images: Path | None = None) -> CocoFile:
    """Read an annotation file.

    Args:
        path: the JSON file.
        images: the folder of its images; None looks for it in the layouts above.

    Raises:
        UserError: there is no such folder; or the file cannot be read, does not fit into memory, is not JSON, or lacks
            one of the lists images, annotations, categories.
    """
    require_memory(path, MEMORY_PER_BYTE)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the annotations cannot be read", str(path), str(error)) from error
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error.msg}", f"{path}:{error.lineno}") from error
    except MemoryError as error:
        raise UserError("does not fit into memory", str(path), "split it") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        what = (
            "is nested too deeply for COCO annotations"
            if isinstance(error, RecursionError)
            else f"is not JSON: {error}"
        )
        raise UserError(what, str(path)) from error
    for section in SECTIONS:
        if not isinstance(content, dict) or not isinstance(content.get(section), list):
            raise UserError(f"has no list {section!r}", str(path), f"COCO files have {', '.join(SECTIONS)}")
    listed, annotations, categories = (content[section] for section in SECTIONS)
    if images is not None:
        check_folder(images)
    return CocoFile(path, images or _images_folder(path, listed), listed, annotations, categories)


def _images_folder(path: Path, images: list[Any]) -> Path:
    """The first folder of those in use that holds one of the first images; else the first of them there is."""
    top = path.parent.parent if path.parent.name == "annotations" else path.parent
    split = path.stem.removeprefix("instances_")
    candidates = [top / split, top / "images" / split, top / "images", path.parent, top]
    folders = [folder for folder in candidates if folder.is_dir()]
    names = [str(image.get("file_name")) for image in images[:20] if isinstance(image, dict)]
    holding = (folder for folder in folders if any(_holds(folder, name) for name in names))
    return next(holding, folders[0])


def _holds(folder: Path, name: str) -> bool:
    path = path_within(folder, name)
    return path is not None and file_size(path) is not None
