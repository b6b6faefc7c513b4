"""Multi-label classification from COCO annotations: what is in an image is what it has a box, mask or point of."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vtk_cli.console import Console
from vtk_cli.data.classification_folders import FileReader, some
from vtk_cli.data.classification_source import ImageSource, Splits
from vtk_cli.data.coco_files import ROBOFLOW, CocoFile, find_coco_files, read_coco_file
from vtk_cli.data.images import BROKEN_SHARE
from vtk_cli.errors import UserError

TRAIN_NAMES = ("train",)
VAL_NAMES = ("val", "valid", "validation", "test", "minival")


def open_coco(path: Path, val: Path | None, console: Console) -> Splits:
    """COCO annotations, a JSON file or a folder with those of train and val, as multi-label classification.

    Classes are the categories of the training file in the order of their ids.

    Args:
        path: the JSON file to train on, or the dataset's folder.
        val: the JSON file (or folder) to evaluate on, in place of the one found.
        console: told when there is nothing to evaluate on.

    Raises:
        UserError: no file, or several, of a split; one that is no COCO file; no annotations, fewer than two categories,
            or other categories in val than in train; or more than 1 % of the images are missing.
    """
    files = find_coco_files(path)
    train = files[0] if len(files) == 1 else _file_of(files, TRAIN_NAMES, path, "train")
    if train is None:
        raise UserError("no annotations of a train split", str(path), "expected annotations/instances_train*.json")
    if val is None:
        found = None if len(files) == 1 else _file_of(files, VAL_NAMES, path, "val")
    else:
        found = val if val.is_file() else _file_of(find_coco_files(val), VAL_NAMES, val, "val")
        if found is None:
            raise UserError("no annotations of a val split", str(val), "give the JSON file")
    train_file = read_coco_file(train)
    categories = _categories(train_file)
    if len(categories) < 2:
        raise UserError(f"has {len(categories)} category, and nothing to tell it from", str(train))
    source = _source(train_file, categories)
    if found is None:
        console.warn(f"{path}: no annotations of a val split; trained without evaluation")
        return Splits(source, None)
    val_file = read_coco_file(found)
    _check_same(categories, train_file, _categories(val_file), val_file)
    return Splits(source, _source(val_file, categories))


def _file_of(files: Sequence[Path], names: tuple[str, ...], path: Path, split: str) -> Path | None:
    """The one of `files` that is of a split called like `names`, or as if with a year behind."""
    found = [file for file in files if _split_name(file).rstrip("0123456789_-") in names]
    if len(found) > 1:
        raise UserError(
            f"{len(found)} annotation files of {split}: {some([file.name for file in found])}",
            str(path),
            "give the JSON file itself",
        )
    return found[0] if found else None


def _split_name(file: Path) -> str:
    return file.parent.name if file.name == ROBOFLOW else file.stem.removeprefix("instances_")


def _categories(file: CocoFile) -> dict[int, str]:
    """The names by id, ids ascending."""
    names: dict[int, str] = {}
    for number, entry in enumerate(file.categories):
        identity, name = (entry.get("id"), entry.get("name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(identity, int) or isinstance(identity, bool) or not isinstance(name, str):
            raise UserError(f"category {number} has no id or no name", str(file.path))
        if identity in names:
            raise UserError(f"category id {identity} is used twice", str(file.path))
        names[identity] = name
    return dict(sorted(names.items()))


def _check_same(train: Mapping[int, str], train_file: CocoFile, val: Mapping[int, str], val_file: CocoFile) -> None:
    if train == val:
        return
    sides = [
        f"{len(only)} only in {file.path} ({some([f'{identity} {name}' for identity, name in only])})"
        for only, file in (
            (sorted(train.items() - val.items()), train_file),
            (sorted(val.items() - train.items()), val_file),
        )
        if only
    ]
    raise UserError(f"the categories of train and val differ: {'; '.join(sides)}")


def _source(file: CocoFile, categories: Mapping[int, str]) -> ImageSource:
    if not file.annotations:
        raise UserError("has no annotations, so no labels", str(file.path))
    if not file.images:
        raise UserError("has no images", str(file.path))
    row_of: dict[Any, int] = {}
    names: list[str] = []
    for number, entry in enumerate(file.images):
        identity, name = (entry.get("id"), entry.get("file_name")) if isinstance(entry, dict) else (None, None)
        if not isinstance(identity, (int, str)) or not isinstance(name, str) or not name:
            raise UserError(f"image {number} has no id or no file name", str(file.path), _see(file))
        row_of[identity] = number
        names.append(name)
    if len(row_of) < len(names):
        raise UserError(f"{len(names) - len(row_of)} image ids are used twice", str(file.path), _see(file))
    _check_files(file, names)
    targets = torch.zeros(len(names), len(categories))
    rows, columns = _marks(file, row_of, {identity: column for column, identity in enumerate(categories)})
    targets[rows, columns] = 1
    ids = tuple(identity for identity in row_of if isinstance(identity, int))
    return ImageSource(
        str(file.path),
        tuple(categories.values()),
        targets,
        FileReader(file.images_folder, names),
        names,
        ids if len(ids) == len(names) else None,
    )


def _marks(file: CocoFile, row_of: Mapping[Any, int], column_of: Mapping[int, int]) -> tuple[list[int], list[int]]:
    """Which image (row) shows which category (column), with repetitions."""
    rows, columns = [], []
    for number, entry in enumerate(file.annotations):
        try:
            row, column = row_of[entry["image_id"]], column_of[entry["category_id"]]
        except (KeyError, TypeError) as error:
            what = f"annotation {number} is of an unknown image or category"
            raise UserError(what, str(file.path), _see(file)) from error
        rows.append(row)
        columns.append(column)
    return rows, columns


def _check_files(file: CocoFile, names: Sequence[str]) -> None:
    """Refuse a folder that lacks many images: a wrong path should not be found out image by image while training."""
    by_folder: dict[Path, list[str]] = defaultdict(list)
    for name in names:
        path = file.images_folder / name
        by_folder[path.parent].append(path.name)
    missing = 0
    first = ""
    for folder, wanted in by_folder.items():
        there = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        lacking = [name for name in wanted if name not in there]
        missing += len(lacking)
        first = first or (str(folder / lacking[0]) if lacking else "")
    if missing > max(1, int(BROKEN_SHARE * len(names))) or missing == len(names):
        raise UserError(f"{missing} of {len(names)} images are missing, first {first}", str(file.path))


def _see(file: CocoFile) -> str:
    return f"see all with vtk data check {file.path}"
