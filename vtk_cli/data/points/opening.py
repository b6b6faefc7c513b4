"""Opens clicks in whatever format they have."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.points.clicks import Mode
from vtk_cli.data.points.coco import read_coco_points
from vtk_cli.data.points.reading import accepted, check_classes
from vtk_cli.data.points.records import Classes, PointSet
from vtk_cli.data.points.table import read_point_table
from vtk_cli.errors import UserError

TABLES = frozenset({".csv", ".tsv"})


def open_points(
    path: Path,
    *,
    images: Path | None = None,
    classes: Classes | None = None,
    mode: Mode = "random",
    seed: int = 0,
    first_id: int = 1,
    skip_bad: bool = False,
    console: Console,
) -> PointSet:
    """Open a file of clicks; every image is decoded once, and every entry checked.

    Args:
        path: COCO JSON, or CSV with the columns image, category, x, y.
        images: the folder of the images; None looks for it beside the file.
        classes: of the fully labelled images; those of the file must be the same. None takes the file's.
        mode: how clicks are derived where there are only masks.
        seed: of the mode `random`.
        first_id: of the images of a table, which has no ids; COCO's keep theirs.
        skip_bad: leave out what is wrong in place of refusing it.
        console: shows progress, what there is and what was left out.

    Raises:
        UserError: there is no such file, its format is not known, its classes differ, or something is wrong: one line
            that counts each fault.
    """
    if not path.is_file():
        raise UserError("no such file of points", str(path), "give COCO JSON or CSV (image, category, x, y)")
    if path.suffix.lower() in TABLES:
        reading = read_point_table(path, console, images=images, classes=classes, first_id=first_id)
    elif path.suffix.lower() == ".json":
        reading = read_coco_points(path, console, images=images, mode=mode, seed=seed)
        if classes is not None:
            check_classes(reading.classes, classes, str(path))
    else:
        raise UserError("is neither COCO JSON nor CSV", str(path), "points of other tools: vtk segment import")
    return accepted(reading, skip_bad=skip_bad, console=console)
