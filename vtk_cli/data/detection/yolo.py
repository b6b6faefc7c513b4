"""Detection from YOLO files: a `data.yaml`, images, and a text file of boxes or polygons for each.

    path: ../coco8                  # of the dataset, from the yaml's folder; left out: that folder
    train: images/train             # a folder, a .txt list of images, or a list of those
    val: images/val
    names: [person, bicycle]        # or {0: person, 1: bicycle}

A line is `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`, in shares of the image's width and height. The lines of
`images/a/b.jpg` are in `labels/a/b.txt`, or beside the image; no file, or an empty one, says that nothing is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import SLACK, Size
from vtk_cli.data.detection.outlines import Floats, Polygons, outline_box
from vtk_cli.data.detection.reading import Annotated, Reading, clipped, record_of
from vtk_cli.data.detection.records import ImageRecord, Split
from vtk_cli.data.detection.sizes import SizeOf, remembered_sizes
from vtk_cli.data.image_layouts import is_image
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.problems import Problem
from vtk_cli.data.rle import is_drawable
from vtk_cli.data.walking import file_size, is_there, path_within, walk_files
from vtk_cli.errors import UserError

SUFFIXES = (".yaml", ".yml")
_KEYS: dict[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}

LONGEST_CONFIG = 2**20
"""Characters of a `data.yaml`; 1,000 class names take 20,000. PyYAML reads about 100,000 a second."""
MOST_CLASSES = 100_000
_TAG_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""PyYAML trusts its tags: `!!int ""` is an absent item, `!!bool x` an unknown key, `!!timestamp x` no match at all."""
_NO_LABELS = ("classes.txt", "README")
"""Text files that tools put beside the labels."""


@dataclass(frozen=True)
class YoloConfig:
    """A `data.yaml`: itself, the folders its entries may be relative to, class names by label, and its splits."""

    path: Path
    roots: tuple[Path, ...]
    names: tuple[str, ...]
    parts: dict[Split, tuple[str, ...]]


def find_yolo_config(path: Path) -> Path | None:
    """The `data.yaml` of a dataset, itself or its folder; None where there is none, or several without that name."""
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES else None
    found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()]
    named = [file for file in found if file.stem in {"data", "dataset"}]
    chosen = named or [file for file in found if _looks_like_one(file)]
    return chosen[0] if chosen and (named or len(chosen) == 1) else None


def read_yolo_config(path: Path) -> YoloConfig:
    """Read a `data.yaml`.

    Raises:
        UserError: it cannot be read, or names no classes or no split.
    """
    content = _load(path)
    if not isinstance(content, dict):
        raise UserError("is no YOLO dataset", str(path), "expected train, val and names")
    parts = {split: found for split, keys in _KEYS.items() if (found := _places(content, keys, path))}
    if not parts:
        raise UserError("names no split", str(path), "expected train: and val:, the folders of the images")
    root = content.get("path")
    if root is not None and not isinstance(root, str):
        raise UserError(f"path is {root!r}", str(path), "give a folder")
    roots = (path.parent / root, path.parent) if root else (path.parent,)
    return YoloConfig(path, roots, _names(content, path), parts)


def read_yolo(path: Path, split: Split, console: Console) -> Reading:
    """Read a split of a `data.yaml`; every image is decoded once.

    Raises:
        UserError: the configuration is wrong, it has no such split, or the split's images are nowhere.
    """
    config = read_yolo_config(path)
    if split not in config.parts:
        raise UserError(f"has no {split} split", str(path), f"there are {', '.join(config.parts)}")
    images, problems = _images_of(config, split)
    with (
        remembered_sizes(path.parent) as size_of,
        console.progress(f"reading the images of {split} in {path}", len(images)) as progress,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        records: list[ImageRecord] = []
        entries = 0
        found = pool.map(lambda image: _read_image(image, len(config.names), size_of), images)
        for number, (file, (size, objects, wrong, lines)) in enumerate(zip(images, found, strict=True), 1):
            progress.advance()
            problems += wrong
            entries += 1 + lines
            if size is not None:
                records.append(record_of(file, number, size, objects))
    return Reading(
        f"{path} ({split})",
        "yolo",
        tuple(records),
        config.names,
        tuple(range(len(config.names))),
        tuple(problems),
        entries,
    )


def labels_file(image: Path) -> Path:
    """Where the lines of an image are: the last folder `images` of its path replaced by `labels`, or beside it."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        mirrored = Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt")
        if file_size(mirrored) is not None or file_size(image.with_suffix(".txt")) is None:
            return mirrored
    return image.with_suffix(".txt")


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe, and without aliases: a few lines of those, each named many times in the next, are as much as one likes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node that is none of those before."""
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.composer.ComposerError(None, None, f"aliases (*{event.anchor}) are not read", event.start_mark)
        return super().compose_node(parent, index)


def _load(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.read(LONGEST_CONFIG + 1)
        if len(text) > LONGEST_CONFIG:
            raise UserError(f"is longer than {LONGEST_CONFIG:,} characters", str(path), "it is no data.yaml of YOLO")
        return yaml.load(text, _Loader)  # noqa: S506  (a safe loader, without aliases)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read", str(path), str(error)) from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise UserError(f"is not YAML: {error.problem}", f"{path}{line}") from error
    except (yaml.YAMLError, *_TAG_ERRORS) as error:
        raise UserError(f"is not YAML: {error}", str(path)) from error


def _looks_like_one(path: Path) -> bool:
    try:
        content = _load(path)
    except UserError:
        return False
    return isinstance(content, dict) and ("names" in content or "nc" in content)


def _names(content: dict[Any, Any], path: Path) -> tuple[str, ...]:
    names = content.get("names")
    if names is None and type(content.get("nc")) is int and 0 < content["nc"] <= MOST_CLASSES:
        return tuple(str(label) for label in range(content["nc"]))
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise UserError("names does not number the classes 0, 1, 2, ...", str(path))
        names = [names[label] for label in sorted(names, key=int)]
    if not isinstance(names, list) or not names or any(isinstance(name, (list, dict)) for name in names):
        raise UserError("names no classes", str(path), "expected names: [cat, dog]")
    if type(content.get("nc", len(names))) is not int or content.get("nc", len(names)) != len(names):
        raise UserError(f"nc is {content['nc']!r}, but there are {len(names)} names", str(path))
    return tuple(str(name) for name in names)


def _places(content: dict[Any, Any], keys: Sequence[str], path: Path) -> tuple[str, ...]:
    for key in keys:
        value = content.get(key)
        places = value if isinstance(value, list) else [value]
        if value not in (None, "", []):
            if not all(isinstance(place, str) for place in places):
                raise UserError(f"{key} is {value!r}", str(path), "give a folder of images, or a list of them")
            return tuple(places)
    return ()


def _images_of(config: YoloConfig, split: Split) -> tuple[list[Path], list[Problem]]:
    """The images of a split, sorted, and the entries of lists that are none."""
    images: dict[Path, None] = {}
    problems: list[Problem] = []
    for place in config.parts[split]:
        where = _place(config, place, split)
        if where.is_dir():
            there = [where / file.path for file in walk_files(where, "", is_image)]
            images |= dict.fromkeys(there)
            problems += _without_image(where, there)
            continue
        for number, name, image in _listed(where):
            if image is None:
                problems.append(Problem(f"{where}:{number} ({name})", "listed image lies outside the dataset"))
            elif file_size(image) is None:
                problems.append(Problem(f"{where}:{number} ({image})", "image is missing"))
            else:
                images[image] = None
    return sorted(images), problems


def _without_image(folder: Path, images: Sequence[Path]) -> list[Problem]:
    """The files of labels whose image is not in `folder`."""
    labels = labels_file(folder / "any.jpg").parent
    if not labels.is_dir():
        return []
    files = {labels / file.path for file in walk_files(labels, "", lambda name: name.endswith(".txt"))}
    lost = files - {labels_file(image) for image in images}
    return [Problem(str(file), "image is missing") for file in sorted(lost) if not file.name.startswith(_NO_LABELS)]


def _place(config: YoloConfig, place: str, split: Split) -> Path:
    """Where the folder or list of a split is; `../train/images` of a Roboflow export is meant beside the yaml."""
    spellings = [place, *([place[3:]] if place.startswith("../") else [])]
    tried = [Path(os.path.normpath(root / spelling)) for spelling in spellings for root in config.roots]
    found = next((path for path in tried if is_there(path) and (path.is_dir() or _is_list(path))), None)
    if found is None:
        raise UserError(f"no folder or list of images {tried[0]}", f"{config.path}, {split}")
    return found


def _is_list(path: Path) -> bool:
    return path.suffix == ".txt" and path.is_file()


def _listed(file: Path) -> Iterator[tuple[int, str, Path | None]]:
    """The lines of a list of images: number, text, and the image; None where it is not below the list's folder."""
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if name := line.strip():
            yield number, name, path_within(file.parent, name)


def _read_image(image: Path, classes: int, size_of: SizeOf) -> tuple[Size | None, list[Annotated], list[Problem], int]:
    """The size of an image (None: it cannot be had), its objects, what is wrong, and the number of its lines."""
    try:
        size = size_of(image)
    except BrokenImage as error:
        return None, [], [Problem(f"{image} ({error.what})", "image does not decode")], 0
    file = labels_file(image)
    if file_size(file) is None:
        return size, [], [], 0
    objects: list[Annotated] = []
    problems: list[Problem] = []
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    seen: set[str] = set()
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line:
            continue
        one, what = _read_line(line, classes, size)
        if line in seen:
            one, what = None, "line is there twice"
        seen.add(line)
        if what is not None:
            problems.append(Problem(f"{file}:{number} ({line[:80]})", what))
        if one is not None:
            objects.append(one)
    return size, objects, problems, sum(bool(line.strip()) for line in lines)


def _read_line(line: str, classes: int, size: Size) -> tuple[Annotated | None, str | None]:
    """The object of a line and what is wrong with it; an object that reaches outside the image is clipped."""
    words = line.split()
    try:
        label, values = float(words[0]), np.array([float(word) for word in words[1:]], np.float64)
    except ValueError:
        return None, "line holds something that is no number"
    if not np.isfinite(values).all() or not np.isfinite(label) or (np.abs(values) > 1e9).any():
        return None, "line holds a number that is not finite"
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        return None, "line is neither `class cx cy w h` nor `class x1 y1 x2 y2 x3 y3 ...`"
    if label != int(label) or not 0 <= label < classes:
        return None, f"class is not one of 0 to {classes - 1}"
    outline: Polygons | None = None
    if len(values) == 4:
        centre, extent = values[:2], values[2:]
        if (extent <= 0).any():
            return None, "box has no area"
        box = np.concatenate([centre - extent / 2, centre + extent / 2]) * (*size, *size)
    else:
        points: Floats = values.reshape(-1, 2) * size
        outline = Polygons((np.clip(points, 0, size),))
        box = outline_box((points,))
        if (box[2:] <= box[:2]).any():
            return None, "polygon has no area"
        if not is_drawable(outline.parts):
            return None, "polygon winds too much to be drawn"
    inside = clipped(box, size)
    if inside is None:
        return None, "box lies outside the image"
    reaches = bool((box[:2] < -SLACK).any() or (box[2:] > np.add(size, SLACK)).any())
    return Annotated(inside, int(label), outline=outline), "box reaches outside the image" if reaches else None
