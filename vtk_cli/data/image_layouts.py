"""Finds the images of a folder and their labels, in the layouts people have.

In this order: `val.txt` (ImageNet validation: `file index` a line), `train/` and `val/` (val is read), class folders
(images at any depth in `root/<class>/`; sorted class names are 0, 1, ..., so that the 1,000 WordNet-id folders of
ImageNet get its labels), else a flat folder without labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import FoundFile, check_folder, file_size, read_folder, walk_files
from vtk_cli.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those of torchvision's ImageFolder; letter case does not matter."""
VAL_LIST = "val.txt"
LARGEST_LABEL = 999_999
"""No dataset has more classes; what is above is a slip."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image: its path relative to the layout's root with `/` between, its bytes (-1: a dead link), its label."""

    path: str
    size: int
    label: int | None = None


@dataclass(frozen=True)
class Layout:
    """What a folder holds.

    Args:
        root: what the paths are relative to.
        images: sorted by path.
        class_names: by label; None where the layout names no classes.
        problems: entries that contradict the layout, e.g. a line of `val.txt` without an index.
        unlabelled: images beside class folders, which no class claims.
        empty_classes: class folders without an image; they keep their label.
    """

    root: Path
    images: tuple[ImageFile, ...]
    class_names: tuple[str, ...] | None = None
    problems: tuple[Problem, ...] = ()
    unlabelled: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()


def read_layout(root: Path, class_map: Path | None = None) -> Layout:
    """Read the layout of the folder `root`.

    Args:
        root: the folder.
        class_map: a JSON file {class folder: label} in place of the sorted order.

    Raises:
        UserError: `root` is no folder or cannot be read, or the class map is not one or has nothing to map.
    """
    check_folder(root)
    if (root / VAL_LIST).is_file():
        layout = _read_val_list(root)
    else:
        layout = _read_class_folders(evaluated_part(root), class_map)
    if class_map is not None and layout.class_names is None:
        raise UserError("there are no class folders to map", str(root), f"leave out the class map {class_map}")
    return layout


def evaluated_part(root: Path) -> Path:
    """`root/val` where `root` has `train/` and `val/`, else `root`."""
    both = (root / "train").is_dir() and (root / "val").is_dir()
    return root / "val" if both else root


def is_image(name: str) -> bool:
    """Whether a file name has the extension of an image, in any letter case."""
    return name.lower().endswith(EXTENSIONS)


def unlabelled_images(root: Path) -> tuple[ImageFile, ...]:
    """The images at any depth in `root`, by path, without labels."""
    return tuple(ImageFile(file.path, file.size) for file in _sorted(walk_files(root, "", is_image)))


def read_class_map(path: Path) -> dict[str, int]:
    """Read {class folder: label} from a JSON file.

    Raises:
        UserError: it cannot be read, is no JSON object, or a label is not an integer from 0 to `LARGEST_LABEL`.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the class map cannot be read", str(path), str(error)) from error
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error.msg}", f"{path}:{error.lineno}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets in brackets
        raise UserError("is not a class map", str(path), 'write {"folder": index, ...}') from error
    if not isinstance(table, dict):
        raise UserError("is not a class map", str(path), 'write {"folder": index, ...}')
    for folder, label in table.items():
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label <= LARGEST_LABEL:
            fix = f"give an integer from 0 to {LARGEST_LABEL}"
            raise UserError(f"the label of {folder!r} is {label!r}", str(path), fix)
    return table


def _read_class_folders(root: Path, class_map: Path | None) -> Layout:
    content = read_folder(root)
    loose = [file for file in content.files if is_image(file.path)]
    files_of = {folder: list(walk_files(root, folder, is_image)) for folder in content.folders}
    if not any(files_of.values()):
        return Layout(root, tuple(ImageFile(file.path, file.size) for file in loose))
    labels = {folder: label for label, folder in enumerate(content.folders)}
    if class_map is not None:
        labels = read_class_map(class_map)
    images = (ImageFile(file.path, file.size, labels.get(folder)) for folder in files_of for file in files_of[folder])
    return Layout(
        root,
        tuple(sorted(images, key=lambda image: image.path)),
        _names_by_label(labels),
        tuple(
            Problem(f"{root / folder} ({class_map})", "class folder is not in the class map")
            for folder, files in files_of.items()
            if files and folder not in labels
        ),
        unlabelled=tuple(file.path for file in loose),
        empty_classes=tuple(folder for folder, files in files_of.items() if not files),
    )


def _names_by_label(labels: Mapping[str, int]) -> tuple[str, ...]:
    """The class names by label: `a|b` where several folders share one, the number itself where none has it."""
    names: dict[int, list[str]] = {}
    for folder, label in sorted(labels.items()):
        names.setdefault(label, []).append(folder)
    return tuple("|".join(names.get(label, [str(label)])) for label in range(max(labels.values(), default=-1) + 1))


def _read_val_list(root: Path) -> Layout:
    """Read `val.txt`: `file index` a line, the files in `root` or in `root/val`."""
    text = (root / VAL_LIST).read_text(encoding="utf-8-sig", errors="replace")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    first = lines[0][1].rpartition(" ")[0].strip() if lines else ""
    base = root / "val" if first and file_size(root / "val" / first) is not None else root
    images: dict[str, ImageFile] = {}
    problems: list[Problem] = []
    for number, line in lines:
        where = f"{root / VAL_LIST}:{number} ({line})"
        name, _, index = line.replace("\t", " ").rpartition(" ")
        name = name.strip()
        if not name or not index.isascii() or not index.isdigit():
            problems.append(Problem(where, "line is not `file index`"))
        elif len(index.lstrip("0")) > len(str(LARGEST_LABEL)):
            problems.append(Problem(where, f"index is above {LARGEST_LABEL}"))
        elif name in images and images[name].label != int(index):
            problems.append(Problem(where, "image is listed with two labels"))
        elif (size := file_size(base / name)) is None:
            problems.append(Problem(where, "listed image is missing"))
        else:
            images[name] = ImageFile(name, size, int(index))
    return Layout(base, tuple(images[name] for name in sorted(images)), problems=tuple(problems))


def _sorted(files: Iterable[FoundFile]) -> list[FoundFile]:
    return sorted(files, key=lambda file: file.path)
