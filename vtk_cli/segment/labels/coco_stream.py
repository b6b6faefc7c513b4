"""A COCO file written annotation by annotation, so that no more of them are held than whoever makes them holds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from vtk_cli.data.detection import ImageRecord
from vtk_cli.data.points import Classes, PointImage
from vtk_cli.files import atomic_path

Write = Callable[[Mapping[str, Any]], None]
"""Writes the next annotation."""


@contextmanager
def coco_stream(
    path: Path, images: Sequence[PointImage | ImageRecord], folder: Path, classes: Classes
) -> Iterator[Write]:
    """Yield what writes annotations; the file is there, whole, at the end.

    Args:
        path: the file, written atomically.
        images: all of them.
        folder: that their `file_name` is relative to.
        classes: what labels mean.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    listed = [_image(image, folder.absolute()) for image in images]
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"images": {json.dumps(listed)},\n"categories": {json.dumps(categories(classes))},\n')
        stream.write('"annotations": [')
        yield _writer(stream)
        stream.write("]}\n")


def categories(classes: Classes) -> list[dict[str, Any]]:
    """COCO's `categories`."""
    return [{"id": identity, "name": name} for identity, name in zip(classes.ids, classes.names, strict=True)]


def _writer(stream: TextIO) -> Write:
    before = itertools.chain(["\n"], itertools.repeat(",\n"))

    def write(entry: Mapping[str, Any]) -> None:
        # not `dump`, which is a great deal slower
        stream.write(f"{next(before)}{json.dumps(dict(entry), allow_nan=False)}")

    return write


def _image(image: PointImage | ImageRecord, folder: Path) -> dict[str, Any]:
    name = image.file.absolute().relative_to(folder).as_posix()
    return {"id": image.id, "file_name": name, "width": image.width, "height": image.height}
