"""The sets that a trained classifier is examined on besides its own: other renditions, corruptions, better labels.

- Class folders that are some of the training classes: ImageNet-A, -R, Sketch, ObjectNet, a corruption and severity of
  ImageNet-C, `mixed_same` and `mixed_rand` of the Backgrounds Challenge.
- ImageNet-V2: the folders are the labels themselves, as numbers.
- ReaL (arXiv 2006.07159): `real.json`, a list of label lists, beside the ImageNet validation images it speaks of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from vtk_cli.console import Console
from vtk_cli.data.classification_folders import VAL_FOLDERS, FileReader, read_classes, some, source_of
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.image_layouts import Layout, unlabelled_images
from vtk_cli.data.walking import read_folder
from vtk_cli.errors import UserError


@dataclass(frozen=True, eq=False)
class EvalSet:
    """A set to examine a classifier on.

    Args:
        source: its images; targets and class names are those of training. With `label_sets` the target is the
            smallest label of the set, or 0 where it is empty.
        classes: the labels that occur, ascending, where these are not all: only their logits are compared. None: all.
        label_sets: the right labels of each image; an image without any counts for nothing. None: the target alone.
    """

    source: ImageSource
    classes: tuple[int, ...] | None
    label_sets: tuple[frozenset[int], ...] | None = None


def open_eval_set(path: Path, class_names: Sequence[str], *, console: Console) -> EvalSet:
    """Open a set to examine a classifier on.

    Args:
        path: class folders, or their parent where `val/` (or `validation/`, `valid/`, `test/`) is all there is; or
            the JSON file of ReaL beside the images.
        class_names: of training, by label.
        console: told which class folders are left out, since training knew no such class.

    Raises:
        UserError: there is no such thing, no class folder is a training class, or the labels of ReaL fit neither the
            images nor the classes.
    """
    if not path.exists():
        raise UserError("no such folder or file", str(path))
    names = tuple(class_names)
    if path.is_file():
        return _open_real(path, names)
    layout = read_classes(_images_part(path))
    if layout.class_names is None:  # a val.txt: labels, no names
        return EvalSet(_checked(source_of(layout, names)), None)
    label_of = _labels_of(layout, names)
    unknown = [name for name in layout.class_names if name not in label_of]
    if len(unknown) == len(layout.class_names):
        raise UserError(
            f"none of its {len(unknown)} class folders ({some(unknown)}) is one of the {len(names)} classes of"
            f" training ({some(names)})",
            str(layout.root),
        )
    if unknown:
        console.warn(f"{layout.root}: {len(unknown)} class folders left out, no classes of training: {some(unknown)}")
    return _restricted(layout, label_of, names)


def _images_part(path: Path) -> Path:
    """The folder below `path` that holds the class folders, where it is wrapped in the name of a split."""
    content = read_folder(path)
    if len(content.folders) == 1 and content.folders[0] in VAL_FOLDERS:
        return path / content.folders[0]
    return path


def _labels_of(layout: Layout, names: tuple[str, ...]) -> dict[str, int]:
    """The training label of each class folder that has one."""
    folders = layout.class_names or ()
    label_of = {name: label for label, name in enumerate(names)}
    known = {folder: label_of[folder] for folder in folders if folder in label_of}
    if known or not all(folder.isascii() and folder.isdecimal() for folder in folders):
        return known
    return {folder: int(folder) for folder in folders if int(folder) < len(names)}


def _restricted(layout: Layout, label_of: dict[str, int], names: tuple[str, ...]) -> EvalSet:
    folders = layout.class_names or ()
    kept = [image for image in layout.images if folders[image.label or 0] in label_of]
    paths = tuple(image.path for image in kept)
    labels = torch.tensor([label_of[folders[image.label or 0]] for image in kept], dtype=torch.int64)
    present = tuple(sorted(set(label_of.values())))
    source = ImageSource(str(layout.root), names, labels, FileReader(layout.root, paths), paths)
    return EvalSet(source, None if len(present) == len(names) else present)


def _open_real(path: Path, names: tuple[str, ...]) -> EvalSet:
    label_sets = _read_label_sets(path)
    folder = next((path.parent / name for name in VAL_FOLDERS if (path.parent / name).is_dir()), path.parent)
    images = sorted((image.path for image in unlabelled_images(folder)), key=lambda name: PurePosixPath(name).name)
    if len(images) != len(label_sets):
        raise UserError(
            f"has labels of {len(label_sets)} images, but there are {len(images)} in {folder}",
            str(path),
            "put it beside the validation images it speaks of",
        )
    largest = max((max(labels) for labels in label_sets if labels), default=-1)
    if largest < 0:
        raise UserError("has no labels", str(path))
    if largest >= len(names):
        raise UserError(f"has labels up to {largest}, but training has {len(names)} classes", str(path))
    targets = torch.tensor([min(labels, default=0) for labels in label_sets], dtype=torch.int64)
    paths = tuple(images)
    return EvalSet(ImageSource(str(path), names, targets, FileReader(folder, paths), paths), None, label_sets)


def _read_label_sets(path: Path) -> tuple[frozenset[int], ...]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"is not JSON: {error.msg}", f"{path}:{error.lineno}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError("cannot be read as lists of labels", str(path)) from error
    if not isinstance(rows, list):
        raise UserError("is not a list of label lists", str(path), "write [[3], [5, 7], [], ...]")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or not all(type(label) is int and label >= 0 for label in row):
            raise UserError(f"entry {number} is no list of labels", str(path), "write [[3], [5, 7], [], ...]")
    return tuple(frozenset(row) for row in rows)


def _checked(source: ImageSource) -> ImageSource:
    largest = int(source.targets.max())
    if largest >= len(source.class_names):
        raise UserError(f"has labels up to {largest}, but training has {len(source.class_names)} classes", source.name)
    return source
