"""Classification from folders of images: one folder a class, apart in `train/` and `val/` or all in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.classification_source import ImageSource, Splits
from vtk_cli.data.image_layouts import EXTENSIONS, VAL_LIST, Layout, read_layout
from vtk_cli.data.images import NAMED, decode_image, image_size
from vtk_cli.errors import UserError

VAL_FOLDERS = ("val", "validation", "valid", "test")
"""What people call the folder that is evaluated on, in the order in which it is looked for."""


class FileReader:
    """Reads images by number from the files `root/names[number]`.

    The names are held in one run of bytes: a forked worker comes to own a copy of every object that it looks at, and
    of a million names that is 100 MB in each of them.

    Args:
        root: the folder.
        names: of the files in it, with `/` between.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._root, self._names = root, b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __call__(self, index: int) -> Image.Image:
        """Image `index`, upright RGB; raises `BrokenImage`."""
        return decode_image(self._file(index))

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of image `index`; raises `BrokenImage`."""
        return image_size(self._file(index))

    def _file(self, index: int) -> Path:
        return self._root / self._names[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogateescape")


def open_folders(root: Path, val: Path | None, console: Console) -> Splits:
    """Class folders: `root/train` with `root/val` (or `validation`, `valid`, `test`), or `root` itself.

    Args:
        root: the dataset.
        val: the class folders to evaluate on, in place of those of `root`.
        console: told when there is nothing to evaluate on.

    Raises:
        UserError: no images, no class folders, a single class, a class without images, or class folders of train and
            val that differ.
    """
    within = root / "train" if (root / "train").is_dir() else None
    if val is None and within is not None:
        val = _val_part(root)
    train = read_classes(within or root)
    names = _names(train)
    if len({image.label for image in train.images}) < 2:
        raise UserError(
            f"there is one class only ({names[train.images[0].label or 0]}), and nothing to tell it from",
            str(train.root),
            "put the images in one folder a class, at least two",
        )
    if val is None:
        console.warn(f"{root}: no {' or '.join(f'{name}/' for name in VAL_FOLDERS)}; trained without evaluation")
        return Splits(source_of(train, names), None)
    evaluated = read_classes(val)
    _check_same(train, evaluated, len(names))
    return Splits(source_of(train, names), source_of(evaluated, names))


def read_classes(root: Path) -> Layout:
    """The layout of `root`, every image with a label.

    Raises:
        UserError: there are no images, some have no label, or a class has none.
    """
    layout = read_layout(root)
    if layout.problems:
        first, count = layout.problems[0], len(layout.problems)
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise UserError(first.what + more, first.where, f"see all with vtk data check {root}")
    if layout.empty_classes and layout.images:
        raise UserError(
            f"{len(layout.empty_classes)} class folders have no images: {some(layout.empty_classes)}",
            str(layout.root),
            f"add images ({' '.join(EXTENSIONS)}) or remove the folders",
        )
    if not layout.images:
        raise UserError(f"no images in {layout.root}", fix=f"supported: {' '.join(EXTENSIONS)}")
    if layout.images[0].label is None:
        fix = "put the images in one folder a class"
        raise UserError(f"{len(layout.images)} images but no class folders, so no labels", str(layout.root), fix)
    return layout


def source_of(layout: Layout, class_names: tuple[str, ...]) -> ImageSource:
    """The images of a layout whose labels index `class_names`."""
    names = tuple(image.path for image in layout.images)
    labels = torch.tensor([image.label for image in layout.images], dtype=torch.int64)
    return ImageSource(str(layout.root), class_names, labels, FileReader(layout.root, names), names)


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _val_part(root: Path) -> Path | None:
    if (root / VAL_LIST).is_file():  # ImageNet's validation images in one flat folder, their labels in a list
        return root
    return next((root / name for name in VAL_FOLDERS if (root / name).is_dir()), None)


def _names(layout: Layout) -> tuple[str, ...]:
    """The class names; a `val.txt` has none, and its labels are called by their numbers."""
    if layout.class_names is not None:
        return layout.class_names
    return tuple(str(label) for label in range(1 + max(image.label or 0 for image in layout.images)))


def _check_same(train: Layout, val: Layout, classes: int) -> None:
    """Refuse labels of `val` that do not mean what those of `train` mean."""
    if train.class_names is None or val.class_names is None:
        largest = max(image.label or 0 for image in val.images)
        if largest >= classes:
            what = f"the largest label is {largest}, but {train.root} has {classes} classes (0 to {classes - 1})"
            raise UserError(what, str(val.root))
        return
    pairs = ((train, val), (val, train))
    only = [sorted(set(layout.class_names or ()) - set(other.class_names or ())) for layout, other in pairs]
    sides = [
        f"{len(names)} only in {layout.root} ({some(names)})"
        for names, (layout, _) in zip(only, pairs, strict=True)
        if names
    ]
    if sides:
        what = f"the class folders of train and val differ: {'; '.join(sides)}"
        raise UserError(what, fix="give both the same class folders")
