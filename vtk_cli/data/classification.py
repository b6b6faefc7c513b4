"""Opens the labelled images that a classifier is trained on, in the forms people have them."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.catalog import ENTRIES, Entry
from vtk_cli.data.classification_coco import open_coco
from vtk_cli.data.classification_evaluation import EvalSet, open_eval_set
from vtk_cli.data.classification_folders import open_folders, some
from vtk_cli.data.classification_named import is_timm_name, open_digits, open_timm
from vtk_cli.data.classification_source import ImageSource, Splits
from vtk_cli.data.coco_files import find_coco_files
from vtk_cli.data.embedded import open_embedded
from vtk_cli.errors import UserError, nearest

__all__ = ["EvalSet", "ImageSource", "Splits", "open_classification", "open_eval_set"]


def open_classification(
    data: str, *, console: Console, val: str | None = None, images_per_class: int | None = None, seed: int = 0
) -> Splits:
    """Open a dataset to train a classifier on; no image of a folder is decoded.

    Args:
        data: the name of an embedded dataset of images; a name of `timm.data.create_dataset`, e.g. `torch/cifar10`; a
            folder with `train/` and `val/` (or `validation/`, `valid/`, `test/`), or of class folders; a COCO JSON
            file or folder, which makes it multi-label.
        console: told what is done and what is missing.
        val: what to evaluate on, in place of what `data` has: a folder, a JSON file, or the split of a name of timm's.
        images_per_class: train on so many of each class, drawn by `seed`; a smaller number keeps a part of what a
            larger one keeps, whatever the order of the files on disk.
        seed: of the draw.

    Raises:
        UserError: there is no such dataset, or its images and labels do not make one; see the modules
            `classification_folders`, `classification_coco`, `classification_named`.
    """
    if images_per_class is not None and images_per_class < 1:
        raise UserError(f"{images_per_class} images per class is out of range", fix="give at least 1")
    splits = _opened(data, val, console)
    if images_per_class is None:
        return splits
    return Splits(_few(splits.train, images_per_class, seed, console), splits.val)


def _opened(data: str, val: str | None, console: Console) -> Splits:
    entry = next((entry for entry in ENTRIES if entry.name == data), None)
    if entry is not None and val is None:
        return _open_embedded(entry, console)
    if entry is not None:
        raise UserError(f"{data} has its own images to evaluate on", "--val", "leave it out")
    path = Path(data)
    if is_timm_name(data) and not path.exists():
        return open_timm(data, val, console)
    if not path.exists():
        names = [entry.name for entry in ENTRIES if entry.kind == "images"]
        raise UserError(f"no such folder, file or dataset: {data}", fix=nearest(data, names))
    val_path = None if val is None else Path(val)
    if val_path is not None and not val_path.exists():
        raise UserError("no such folder or file", val or "")
    if path.is_file() and path.suffix != ".json":
        raise UserError("is a file", data, "give a folder of images or a COCO JSON file")
    return open_coco(path, val_path, console) if find_coco_files(path) else open_folders(path, val_path, console)


def _open_embedded(entry: Entry, console: Console) -> Splits:
    if entry.name == "digits":
        return open_digits()
    if entry.kind == "video":
        raise UserError(f"{entry.name} holds videos, not images", fix="try digits, digits-m or digits-coco")
    folder = open_embedded(entry.name, console).folder
    return open_coco(folder, None, console) if entry.kind == "coco" else open_folders(folder, None, console)


def _few(source: ImageSource, count: int, seed: int, console: Console) -> ImageSource:
    """`count` images of each class, in the order of the source."""
    if source.multi_label:
        raise UserError("an image of a multi-label dataset has no one class to be drawn from", "--images-per-class")

    def chance(index: int) -> bytes:
        return hashlib.sha256(f"{seed}:{source.names[index]}".encode("utf-8", "surrogateescape")).digest()

    taken: Counter[int] = Counter()
    kept: list[int] = []
    labels = source.targets.tolist()
    for index in sorted(range(len(source)), key=chance):
        if taken[labels[index]] < count:
            taken[labels[index]] += 1
            kept.append(index)
    short = [source.class_names[label] for label in sorted(taken) if taken[label] < count]
    if short:
        console.warn(f"{source.name}: {len(short)} classes have fewer than {count} images: {some(short)}")
    return source.subset(sorted(kept))
