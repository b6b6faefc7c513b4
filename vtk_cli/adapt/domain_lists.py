"""The images of a domain as users list them: a folder, a file of `path label` lines, or a CSV file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vtk_cli.adapt.benchmarks import benchmark_note, domain_folder
from vtk_cli.adapt.tables import read_table, read_text
from vtk_cli.console import Console
from vtk_cli.data.image_layouts import LARGEST_LABEL, Layout, read_layout, unlabelled_images
from vtk_cli.data.walking import path_within, read_folder
from vtk_cli.errors import UserError

TRAIN = ("train", "")
HELD_OUT = ("val", "validation", "valid", "test")
"""What the parts of one domain are called, in folders and in the column `split`."""


@dataclass(frozen=True)
class Listed:
    """Images of a domain.

    Args:
        where: what the user gave.
        root: what the paths are relative to.
        labels: by path, with `/` between, sorted: class name, number as text, or None.
        class_names: in the order of the labels; None where the labels are numbers, or there are none.
        held_out: a part that is set aside to test on.
    """

    where: str
    root: Path
    labels: dict[str, str | None]
    class_names: tuple[str, ...] | None = None
    held_out: Listed | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether there is a label at all."""
        return any(label is not None for label in self.labels.values())


@dataclass(frozen=True)
class _Line:
    number: int
    path: str
    label: str | None
    split: str = ""


def read_listed(given: Path, root: Path | None, console: Console) -> Listed:
    """Find the images that `given` means; none is decoded.

    Args:
        given: a folder of class folders, or a flat one; a CSV file with the header `path[,label][,split]`; a file
            with one `path label` a line, of which the last blank is the border, or one path a line.
        root: what the paths of a file are relative to; None: the folder of the file. Of a folder it is not looked at.
        console: told of what is odd.

    Raises:
        UserError: there is no such thing, it is not readable, has no images, or contradicts itself.
    """
    if given.is_file():
        lines = _csv_lines(given) if given.suffix.lower() == ".csv" else _list_lines(given)
        return _from_lines(given, root or given.parent, lines, console)
    folder = domain_folder(given)
    train, folders = folder / "train", read_folder(folder).folders
    if "train" not in folders or not {*folders} <= {"train", *HELD_OUT}:  # a class may be called train
        return _from_layout(str(given), read_layout(folder), console)
    held_out = next((folder / name for name in HELD_OUT if name in folders), None)
    part = _from_layout(str(given), read_layout(train), console)
    if held_out is None:
        return part
    console.note(f"{given}: {train.name}/ is the domain, {held_out.name}/ is set aside to test on")
    aside = _from_layout(str(held_out), read_layout(held_out), console)
    return Listed(part.where, part.root, part.labels, part.class_names, aside)


def read_unlabelled(given: Path, console: Console) -> Listed:
    """The images at any depth in a folder, whatever its subfolders mean.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folder = domain_folder(given)
    images = {image.path: None for image in unlabelled_images(folder)}
    if not images:
        raise UserError("no images", str(given))
    console.detail(f"{given}: {len(images)} images, labels not looked at")
    return Listed(str(given), folder, dict(images))


def _from_layout(where: str, layout: Layout, console: Console) -> Listed:
    if layout.problems:
        first, more = layout.problems[0], len(layout.problems) - 1
        raise UserError(first.what + (f" (and {more} more)" if more else ""), first.where)
    if not layout.images:
        raise UserError("no images", where)
    names = layout.class_names
    if layout.unlabelled:
        console.warn(f"{where}: {len(layout.unlabelled)} images beside the class folders are left out")
    if names is not None and (note := benchmark_note(layout.root, len(layout.images), len(names))):
        console.warn(note)
    labels = {
        image.path: None if image.label is None else names[image.label] if names else str(image.label)
        for image in layout.images
    }
    return Listed(where, layout.root, labels, names)


def _from_lines(given: Path, root: Path, lines: list[_Line], console: Console) -> Listed:
    if not lines:
        raise UserError("lists no images", str(given))
    parts = {name: [line for line in lines if line.split in splits] for name, splits in _SPLITS}
    strange = next((line for line in lines if line.split not in {*TRAIN, *HELD_OUT}), None)
    if strange is not None:
        raise UserError(f"unknown split {strange.split!r}", f"{given}:{strange.number}", "write train, val or test")
    if not parts["train"]:
        raise UserError("every image is set aside to test on", str(given), "give some the split train")
    number_names = _names_of_numbers([line for line in lines if line.label is not None])
    listed = [
        _listed(str(given), root, one, number_names, console) if one else None
        for one in (parts["train"], parts["held out"])
    ]
    train, held_out = listed
    if train is None:
        raise UserError("lists no images", str(given))
    return Listed(train.where, train.root, train.labels, train.class_names, held_out)


_SPLITS = (("train", TRAIN), ("held out", HELD_OUT))


def _listed(where: str, root: Path, lines: list[_Line], names: dict[str, str] | None, console: Console) -> Listed:
    found: dict[str, _Line] = {}
    repeated = 0
    for line in lines:
        name = _relative(line, where, root)
        before = found.setdefault(name, line)
        if before is not line:
            repeated += 1
            if before.label != line.label:
                what = f"{name} has two labels: {before.label} (line {before.number}) and {line.label}"
                raise UserError(what, f"{where}:{line.number}", "keep one of the lines")
    if repeated:
        console.warn(f"{where}: {repeated} lines repeat an image; each is taken once")
    said = {name: found[name].label for name in sorted(found)}
    if names is not None:
        return Listed(where, root, {name: names[label] if label else None for name, label in said.items()},
                      tuple(names[number] for number in sorted(names, key=int)))  # fmt: skip
    words = sorted({label for label in said.values() if label is not None})
    numbers = all(word.isascii() and word.isdigit() for word in words)
    return Listed(where, root, said, None if numbers else tuple(words))


def _names_of_numbers(lines: Iterable[_Line]) -> dict[str, str] | None:
    """Class names by number, where each number has a folder of its own, and 0, 1, ... have one each; else None."""
    folders: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        folders[line.label or ""].add(PurePosixPath(line.path).parent.name)
    if set(folders) != {str(number) for number in range(len(folders))} or not folders:
        return None
    names = {number: next(iter(found)) for number, found in folders.items()}
    apart = all(len(found) == 1 for found in folders.values()) and len(set(names.values())) == len(names)
    return names if apart and all(names.values()) else None


def _relative(line: _Line, where: str, root: Path) -> str:
    """The path of a line below `root`, with `/` between.

    Raises:
        UserError: it is not below it.
    """
    place = path_within(root, line.path)
    if place is None:
        raise UserError(f"{line.path} is not in {root}", f"{where}:{line.number}", "give its folder with --root")
    return place.relative_to(os.path.normpath(Path.cwd() / root)).as_posix()


def _list_lines(given: Path) -> list[_Line]:
    text = read_text(given).replace("\t", " ")
    rows = [(number, row.strip()) for number, row in enumerate(text.splitlines(), 1) if row.strip()]
    split = [(number, row, *row.rpartition(" ")) for number, row in rows]
    labelled = [bool(path.strip()) and _is_label(label) for _, _, path, _, label in split]
    if not any(labelled):
        return [_Line(number, row, None) for number, row in rows]
    if not all(labelled):
        number, row = rows[labelled.index(False)]
        raise UserError(f"is not `path label`: {row}", f"{given}:{number}", "end it with a number from 0 on")
    return [_Line(number, path.strip(), str(int(label))) for number, _, path, _, label in split]


def _csv_lines(given: Path) -> list[_Line]:
    table = read_table(given)
    if "path" not in table.columns:
        raise UserError(
            f"has the columns {', '.join(table.columns) or 'none'}", f"{given}:1", "write path[,label][,split]"
        )
    lines = []
    for number, cells in table.rows:
        if not cells["path"]:
            raise UserError("a row has no path", f"{given}:{number}")
        label = cells.get("label", "")
        label = str(int(label)) if _is_label(label) else label
        lines.append(_Line(number, cells["path"], label or None, cells.get("split", "").lower()))
    return lines


def _is_label(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_LABEL))
