"""Checks image folders: every image, every label, and that no validation image is in train."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.image_layouts import EXTENSIONS, VAL_LIST, Layout, read_layout
from vtk_cli.data.images import broken_images
from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import check_folder, file_size
from vtk_cli.errors import UserError
from vtk_cli.files import sha256_file


def audit_images(path: Path, console: Console) -> tuple[int, list[Problem]]:
    """The number of images of a folder, `train/` and `val/` both, and what is wrong with them.

    Raises:
        UserError: no such folder, or no images in it.
    """
    layouts = [read_layout(part) for part in image_parts(path)]
    images = [layout.root / image.path for layout in layouts for image in layout.images]
    problems = [problem for layout in layouts for problem in _wrong_entries(layout)]
    if not images and not problems:
        raise UserError(f"no images in {path}", fix=f"supported: {' '.join(EXTENSIONS)}")
    problems += [Problem(f"{image} ({why})", "image does not decode") for image, why in broken_images(images, console)]
    if len(layouts) == 2:
        problems += _differing_classes(*layouts)
        problems += _shared_images(*layouts)
    return len(images), problems


def image_parts(path: Path) -> list[Path]:
    """The folders to read: `train` and `val` where both are there (but a `val.txt` rules), else the folder itself."""
    check_folder(path)
    parts = [path / "train", path / "val"]
    if all(part.is_dir() for part in parts):
        return [parts[0], path if (path / VAL_LIST).is_file() else parts[1]]
    return [path]


def _wrong_entries(layout: Layout) -> Iterator[Problem]:
    yield from layout.problems
    for path in layout.unlabelled:
        yield Problem(str(layout.root / path), "image lies beside the class folders")
    for name in layout.empty_classes:
        yield Problem(str(layout.root / name), "class folder has no images")


def _differing_classes(train: Layout, val: Layout) -> Iterator[Problem]:
    """Classes of one split that the other does not have: sorted, their labels would not agree."""
    if train.class_names is None or val.class_names is None:
        return
    for layout, other in ((train, val), (val, train)):
        for name in sorted(set(layout.class_names or ()) - set(other.class_names or ())):
            yield Problem(str(layout.root / name), f"class is not in {other.root.name}")


def _shared_images(train: Layout, val: Layout) -> Iterator[Problem]:
    """Images of `val` whose bytes are in `train` too; only those of the same size are compared."""
    of_size: dict[int, list[Path]] = defaultdict(list)
    for image in train.images:
        of_size[image.size].append(train.root / image.path)
    sums: dict[int, dict[str, Path]] = {}
    for image in val.images:
        file = val.root / image.path
        if image.size < 1 or not of_size[image.size] or file_size(file) is None:
            continue
        if image.size not in sums:
            sums[image.size] = {sha256_file(other): other for other in of_size[image.size]}
        same = sums[image.size].get(sha256_file(file))
        if same is not None:
            yield Problem(f"{file} ({same})", "image of val is in train too")
