"""Detection from Pascal VOC: an XML file for each image.

Layouts: `Annotations/`, `JPEGImages/` and lists in `ImageSets/Main/` (VOC itself); XML files beside the images, in one
folder a split (Roboflow's export) or in one for all; or `annotations/` beside `images/`.

Pixels count from 1 and `xmax`, `ymax` belong to the box, so that xmin - 1 and ymin - 1 are its corner. Objects marked
difficult are treated as crowds: not trained on, and what is detected there is not counted. Classes are the names in all
splits, sorted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.coco_faults import SLACK, Size
from vtk_cli.data.detection.reading import Annotated, Reading, clipped, record_of
from vtk_cli.data.detection.records import ImageRecord, Split
from vtk_cli.data.detection.sizes import SizeOf, remembered_sizes
from vtk_cli.data.detection.splits import split_called
from vtk_cli.data.image_layouts import EXTENSIONS
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.plain_xml import read_xml
from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import file_size, path_within, read_folder, walk_files
from vtk_cli.errors import UserError

LARGEST_FILE = 1 << 24
"""Bytes; the XML file of an image with 100 objects has 2**15."""
_LISTS = Path("ImageSets", "Main")
_XML_FOLDERS, _IMAGE_FOLDERS = ("Annotations", "annotations"), ("JPEGImages", "images")
Part = Split | Literal["all"]


@dataclass(frozen=True)
class VocSplit:
    """A part of a dataset: its XML files, the folder that their images are in, and wrong entries of its list."""

    files: tuple[Path, ...]
    images_folder: Path
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class _Object:
    """An `object` element as it was read: its corners from 0, None where they are no numbers."""

    name: str
    box: tuple[float, ...] | None
    difficult: bool


@dataclass(frozen=True)
class _Page:
    """An XML file as it was read: the image's name, the size it lists (None: none), and the objects."""

    file: Path
    image: str
    size: Size | None
    objects: tuple[_Object, ...]


def find_voc_splits(path: Path) -> dict[Part, VocSplit]:
    """The splits of a folder of XML files, `all` where nothing tells them apart; empty where there are none."""
    top = next((folder for folder in (path, *sorted(path.glob("VOCdevkit/VOC*"))) if _has_pages(folder)), None)
    if top is not None:
        return _of_pages_folder(top)
    content = read_folder(path)
    parts: dict[Part, VocSplit] = {}
    for name in content.folders:
        split = split_called(name)
        files = () if split is None else _pages_beside_images(path / name)
        if files and split is not None:
            parts.setdefault(split, VocSplit(files, path / name))
    here = _pages_beside_images(path)
    return parts or ({"all": VocSplit(here, path)} if here else {})


def read_voc(path: Path, split: Split, console: Console) -> Reading:
    """Read a split of a folder of XML files; every image is decoded once.

    Raises:
        UserError: there is no such split, or no object in any.
    """
    parts = find_voc_splits(path)
    part = parts.get(split) or parts.get("all")
    if part is None:
        raise UserError(f"has no {split} split", str(path), f"there are {', '.join(parts)}" if parts else "")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        others = sorted({file for one in parts.values() for file in one.files} - set(part.files))
        pages, problems = _read_pages(part.files, pool)
        elsewhere, _ = _read_pages(others, pool)
        names = tuple(sorted({one.name for page in (*pages, *elsewhere) for one in page.objects if one.name}))
        if not names:
            raise UserError("the XML files name no object", str(path))
        problems = [*part.problems, *problems]
        labels = {name: label for label, name in enumerate(names)}
        records: list[ImageRecord] = []
        seen: set[Path] = set()
        with (
            remembered_sizes(path) as size_of,
            console.progress(f"reading the images of {split} in {path}", len(pages)) as progress,
        ):
            found = pool.map(lambda page: _image_of(page, part.images_folder, size_of), pages)
            for number, (page, (image, size, fault)) in enumerate(zip(pages, found, strict=True), 1):
                progress.advance()
                if fault is not None:
                    problems.append(fault)
                elif image in seen:
                    problems.append(Problem(f"{page.file} ({page.image})", "image file is listed twice"))
                else:
                    seen.add(image)
                    objects, wrong = _objects_of(page, labels, size)
                    problems += wrong
                    records.append(record_of(image, number, size, objects))
    entries = len(part.files) + sum(len(page.objects) for page in pages)
    identities = tuple(range(1, len(names) + 1))
    return Reading(f"{path} ({split})", "voc", tuple(records), names, identities, tuple(problems), entries)


def _has_pages(folder: Path) -> bool:
    return any((folder / name).is_dir() and any((folder / name).glob("**/*.xml")) for name in _XML_FOLDERS)


def _pages_in(folder: Path) -> tuple[Path, ...]:
    files = walk_files(folder, "", lambda name: name.lower().endswith(".xml"))
    return tuple(sorted(folder / file.path for file in files))


def _pages_beside_images(folder: Path) -> tuple[Path, ...]:
    """Not in the folders below it: a tree of classes with a million images is not searched for them."""
    return tuple(folder / file.path for file in read_folder(folder).files if file.path.lower().endswith(".xml"))


def _of_pages_folder(top: Path) -> dict[Part, VocSplit]:
    pages = next(top / name for name in _XML_FOLDERS if (top / name).is_dir())
    images = next((top / name for name in _IMAGE_FOLDERS if (top / name).is_dir()), top)
    lists = [file for file in sorted((top / _LISTS).glob("*.txt")) if split_called(file.stem) is not None]
    parts: dict[Part, VocSplit] = {}
    for file in lists:
        split = split_called(file.stem)
        if split is not None:
            parts.setdefault(split, _listed(file, pages, images))
    return parts or {"all": VocSplit(_pages_in(pages), images)}


def _listed(file: Path, pages: Path, images: Path) -> VocSplit:
    """The part that a list of `ImageSets/Main` names, an image a line."""
    found: dict[Path, None] = {}
    problems: list[Problem] = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not (name := line.strip()):
            continue
        page = path_within(pages, f"{name}.xml")
        if page is None or file_size(page) is None:
            problems.append(Problem(f"{file}:{number} ({name})", "listed annotation is missing"))
        else:
            found[page] = None
    return VocSplit(tuple(found), images, tuple(problems))


def _read_pages(files: Sequence[Path], pool: ThreadPoolExecutor) -> tuple[list[_Page], list[Problem]]:
    pages: list[_Page] = []
    problems: list[Problem] = []
    for read in pool.map(_read_page, files):
        if isinstance(read, Problem):
            problems.append(read)
        else:
            pages.append(read)
    return pages, problems


def _read_page(file: Path) -> _Page | Problem:
    try:
        top = read_xml(file, LARGEST_FILE)
    except UserError as error:
        return Problem(f"{file} ({error.what})", "annotation is not XML")
    if top.tag != "annotation":
        return Problem(f"{file} (<{top.tag}>)", "annotation is not of Pascal VOC")
    width, height = (_number(top.findtext(f"size/{name}")) for name in ("width", "height"))
    listed = None if not width or not height else (int(width), int(height))
    objects = tuple(map(_read_object, top.findall("object")))
    return _Page(file, (top.findtext("filename") or "").strip(), listed, objects)


def _read_object(element: ET.Element) -> _Object:
    read = [_number(element.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")]
    box = [value for value in read if value is not None]
    corners = (box[0] - 1, box[1] - 1, box[2], box[3]) if len(box) == 4 else None
    difficult = (element.findtext("difficult") or "").strip() == "1"
    return _Object((element.findtext("name") or "").strip(), corners, difficult)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e9 else None


def _image_of(page: _Page, folder: Path, size_of: SizeOf) -> tuple[Path, Size, Problem | None]:
    """The image of an XML file and its size; or what is wrong with it, and then the rest means nothing."""
    nothing = page.file, (0, 0)
    named = path_within(folder, page.image) if page.image else None
    if page.image and named is None:
        what = "image file lies outside the folder of the images"
        return *nothing, Problem(f"{page.file} ({page.image}, images in {folder})", what)
    stems = dict.fromkeys((page.file.with_suffix(""), folder / page.file.stem))
    tried = [*([named] if named else []), *(stem.with_name(stem.name + end) for stem in stems for end in _ENDINGS)]
    image = next((path for path in tried if file_size(path) is not None), None)
    if image is None:
        return *nothing, Problem(f"{page.file} ({page.image or 'no filename'})", "image is missing")
    try:
        size = size_of(image)
    except BrokenImage as error:
        return *nothing, Problem(f"{image} ({error.what})", "image does not decode")
    if page.size not in (None, size):
        listed = f"{image} is {size[0]}x{size[1]}, listed as {page.size[0]}x{page.size[1]}"
        return *nothing, Problem(f"{page.file} ({listed})", "image has another size than listed")
    return image, size, None


_ENDINGS = (*EXTENSIONS, *(end.upper() for end in EXTENSIONS))


def _objects_of(page: _Page, labels: dict[str, int], size: Size) -> tuple[list[Annotated], list[Problem]]:
    objects: list[Annotated] = []
    problems: list[Problem] = []
    for number, one in enumerate(page.objects, 1):
        inside, what = _placed(one, size)
        if what is not None:
            problems.append(Problem(f"{page.file}: object {number} ({one.name}, {one.box})", what))
        if inside is not None:
            objects.append(Annotated(inside, labels[one.name], one.difficult))
    return objects, problems


def _placed(one: _Object, size: Size) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]] | None, str | None]:
    """The box of an object within its image, and what is wrong with it."""
    if not one.name:
        return None, "object has no name"
    if one.box is None:
        return None, "box is not four numbers"
    box = np.array(one.box)
    if box[2] <= box[0] or box[3] <= box[1]:
        return None, "box has no area"
    inside = clipped(box, size)
    if inside is None:
        return None, "box lies outside the image"
    reaches = bool((box[:2] < -SLACK).any() or (box[2:] > np.add(size, SLACK)).any())
    return inside, "box reaches outside the image" if reaches else None
