"""Reads annotation byproducts in any of their formats; what takes long to read is kept in the cache."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vtk_cli.console import Console
from vtk_cli.data.byproducts.annotation_tool import collect_tool_records
from vtk_cli.data.byproducts.coco_ab import collect_coco_items
from vtk_cli.data.byproducts.coco_boxes import collect_coco_boxes
from vtk_cli.data.byproducts.imagenet_ab import read_imagenet_ab
from vtk_cli.data.byproducts.json_entries import entries, read_utf8
from vtk_cli.data.byproducts.marks import (
    Byproducts,
    Collected,
    Form,
    Marks,
    Point,
    Read,
    Source,
    Table,
    Units,
    no_marks,
)
from vtk_cli.data.byproducts.own_files import collect_csv, collect_json
from vtk_cli.data.walking import walk_files
from vtk_cli.errors import UserError
from vtk_cli.files import atomic_path, cache_folder, content_key, lock

FORMS: tuple[Form, ...] = ("imagenet-ab", "tool-json", "coco-ab", "csv", "json", "coco-boxes")
READER_VERSION = 1
"""Part of the cache's key: raised when a reader changes what it reads."""
_STAMPED = 1000  # files whose status is asked for in one go
FLAG = "--byproducts"
FORM_FLAG = "--ab-format"
KEPT_FORMS: tuple[Form, ...] = ("imagenet-ab", "tool-json", "coco-ab")
"""What may take long to read."""

_POINTS_OF: dict[Form, tuple[Point, ...]] = {
    "imagenet-ab": ("last", "final", "first", "mean", "trace-end"),
    "tool-json": ("last", "final", "first", "mean", "trace-end"),
    "coco-ab": ("last", "final", "add"),
    "csv": ("last", "final", "first", "mean"),
    "json": ("last", "final", "first", "mean"),
}


@dataclass(frozen=True)
class _Found:
    """The files of the byproducts: paths relative to `root`, and their format."""

    form: Form
    root: Path
    files: tuple[str, ...]


def read_byproducts(
    path: Path,
    *,
    form: Form | Literal["auto"] = "auto",
    source: Source = "clicks",
    point: Point = "last",
    units: Units = "fraction",
    console: Console,
) -> Byproducts:
    """Read annotation byproducts.

    Args:
        path: a folder of XML files (ImageNet-AB), one of the annotation tool's JSON files, or a file: COCO-AB, the own
            CSV or JSON, COCO annotations for their boxes.
        form: the format; `auto` looks at what is there.
        source: `boxes` makes the centres of boxes the points.
        point: which click counts. `last` and `final`: where the annotator left it. `first`; `mean` of all;
            `trace-end`: where the mouse was last recorded; `add`: COCO-AB's places of `add` alone. With `first`,
            `mean` and `last` the annotators of an image are averaged afterwards.
        units: of the points.
        console: for progress.

    Raises:
        UserError: nothing is there, the format cannot be told, a file is wrong (with its line), or the choice of point
            or source does not go with the format.
    """
    found = _find(path, form)
    source_of_boxes = found.form == "coco-boxes"
    if source_of_boxes and source != "boxes":
        raise UserError("COCO annotations hold boxes, no clicks", str(path), "use --ab-from boxes")
    if source == "clicks" and point not in _POINTS_OF[found.form]:
        known = ", ".join(_POINTS_OF[found.form])
        raise UserError(f"{point!r} is no point of {found.form} byproducts", "--ab-point", f"choose {known}")
    if units == "px" and found.form not in {"csv", "json"}:
        raise UserError(f"{found.form} byproducts are fractions by their format", "--ab-units", "use fraction")
    read = _read_or_recall(found, console)
    if source == "boxes" and "boxes" not in read.tables:
        raise UserError(f"there are no boxes in these {found.form} byproducts", str(path), "use --ab-from clicks")
    table: Table = "trace-end" if point == "trace-end" else "add" if point == "add" else "clicks"
    return Byproducts(
        path,
        found.form,
        source,
        point,
        units,
        read.images,
        read.classes,
        read.tables.get(table, no_marks(2)) if source == "clicks" else no_marks(2),
        read.tables.get("boxes"),
        read.trace,
        read.skipped,
    )


def _find(path: Path, form: Form | Literal["auto"]) -> _Found:
    if form != "auto" and form not in FORMS:
        raise UserError(f"unknown format {form!r}", FORM_FLAG, f"choose auto, {', '.join(FORMS)}")
    if not path.exists():
        raise UserError("no such file or folder", f"{FLAG} {path}")
    if path.is_file():
        told = form if form != "auto" else _form_of_file(path)
        return _Found(told, path.parent, (path.name,))
    found = [file.path for file in walk_files(path, "", lambda name: name.lower().endswith((".xml", ".json")))]
    xml = tuple(sorted(file for file in found if file.lower().endswith(".xml")))
    loose = tuple(sorted(file for file in found if file.lower().endswith(".json")))
    if xml and form in {"auto", "imagenet-ab"}:
        return _Found("imagenet-ab", path, xml)
    if not loose or form == "imagenet-ab":
        wanted = "XML files" if form == "imagenet-ab" else "XML or JSON files"
        raise UserError(f"holds no {wanted}", f"{FLAG} {path}", "give the unpacked dataset, or the file itself")
    forms = {_form_of_file(path / file) for file in loose} if form == "auto" else {form}
    if len(forms) > 1:
        named = " and ".join(sorted(forms))
        raise UserError(f"holds byproducts of several formats ({named})", f"{FLAG} {path}", f"choose with {FORM_FLAG}")
    return _Found(forms.pop(), path, loose)


def _form_of_file(path: Path) -> Form:
    suffix = path.suffix.lower()
    if suffix in {".csv", ".xml"}:
        return "csv" if suffix == ".csv" else "imagenet-ab"
    if suffix != ".json":
        raise UserError("is no byproduct format by its name", f"{FLAG} {path}", "give .csv, .json, .xml or a folder")
    first = next(entries(path, read_utf8(path)), None)
    if isinstance(first, dict):
        if isinstance(first.get("annotations"), list) and first["annotations"] and "images" not in first:
            first = first["annotations"][0]
        known: tuple[tuple[str, Form], ...] = (
            ("images", "coco-boxes"),
            ("actionHistories", "coco-ab"),
            ("imageID", "tool-json"),
            ("points", "json"),
        )
        for key, form in known:
            if isinstance(first, dict) and key in first:
                return form
    keys = f" (its first entry has {', '.join(map(str, list(first)[:5]))})" if isinstance(first, dict) and first else ""
    raise UserError(f"is no byproduct format that is known{keys}", f"{FLAG} {path}", f"choose one with {FORM_FLAG}")


def _read_or_recall(found: _Found, console: Console) -> Read:
    if found.form not in KEPT_FORMS:
        return _read(found, console)
    kept = cache_folder() / "byproducts" / f"{_key(found)}.npz"
    with lock(kept.with_suffix(".lock")):  # of several processes one reads, the others wait for it
        recalled = _recall(kept)
        if recalled is None:
            recalled = _read(found, console)
            _keep(kept, recalled)
    return recalled


def _key(found: _Found) -> str:
    root, files = str(found.root), found.files

    def stamps(start: int) -> list[tuple[int, int]]:
        return [_stamp(f"{root}/{file}") for file in files[start : start + _STAMPED]]

    with ThreadPoolExecutor(8) as pool:  # on the file systems of clusters a file's status takes its time
        found_stamps = list(pool.map(stamps, range(0, len(files), _STAMPED)))
    return content_key([READER_VERSION, found.form, str(found.root.resolve()), files, found_stamps])


def _stamp(path: str) -> tuple[int, int]:
    """Bytes and time of change."""
    try:
        status = os.stat(path)  # noqa: PTH116  (a million times: a Path would take longer than the file system)
    except OSError:  # a dead link, which the reader will name
        return -1, 0
    return status.st_size, status.st_mtime_ns


def _read(found: _Found, console: Console) -> Read:
    with console.progress("reading annotation byproducts", len(found.files)) as progress:
        if found.form == "imagenet-ab":
            return read_imagenet_ab(found.root, found.files, progress)
        collected = Collected()
        for file in found.files:
            _READERS[found.form](collected, found.root / file)
            progress.advance()
    return Read.of(collected)


def _read_tool(collected: Collected, path: Path) -> None:
    collect_tool_records(collected, entries(path, read_utf8(path)))


def _read_coco(collected: Collected, path: Path) -> None:
    collect_coco_items(collected, entries(path, read_utf8(path)))


def _read_csv(collected: Collected, path: Path) -> None:
    collect_csv(collected, path, read_utf8(path))


def _read_json(collected: Collected, path: Path) -> None:
    collect_json(collected, path, entries(path, read_utf8(path)))


_READERS: dict[Form, Callable[[Collected, Path], None]] = {
    "tool-json": _read_tool,
    "coco-ab": _read_coco,
    "csv": _read_csv,
    "json": _read_json,
    "coco-boxes": collect_coco_boxes,
}


def _keep(path: Path, read: Read) -> None:
    arrays: dict[str, Any] = {
        f"{name} {column}": getattr(marks, column)
        for name, marks in read.tables.items()
        for column in ("image", "label", "block", "line", "values")
    }
    words = {"images": read.images, "classes": read.classes, "skipped": read.skipped, "tables": list(read.tables)}
    arrays["words"] = np.frombuffer(json.dumps(words).encode("ascii"), np.uint8)
    if read.trace is not None:
        arrays["trace"] = read.trace
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)


def _recall(path: Path) -> Read | None:
    """What `_keep` wrote; None where there is nothing or it is torn."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            words = json.loads(arrays["words"].tobytes())
            tables = {
                name: Marks(*(arrays[f"{name} {column}"] for column in ("image", "label", "block", "line", "values")))
                for name in words["tables"]
            }
            trace = arrays.get("trace")
    except (OSError, EOFError, ValueError, LookupError, zipfile.BadZipFile):
        return None
    return Read(tuple(words["images"]), tuple(words["classes"]), tables, trace, words["skipped"])
