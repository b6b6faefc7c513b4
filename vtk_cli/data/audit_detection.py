"""Checks YOLO and Pascal VOC datasets: every image, box and polygon of every split, as training reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.detection.reading import Reading
from vtk_cli.data.detection.voc import find_voc_splits, read_voc
from vtk_cli.data.detection.yolo import find_yolo_config, read_yolo, read_yolo_config
from vtk_cli.data.problems import Problem
from vtk_cli.errors import UserError


def audit_yolo(path: Path, console: Console) -> tuple[int, list[Problem]]:
    """The number of images and lines of a YOLO dataset, and what is wrong with them.

    Raises:
        UserError: there is no `data.yaml`, or it is none.
    """
    config = find_yolo_config(path)
    if config is None:
        raise UserError("no YOLO dataset", str(path), "give the data.yaml, or its folder")
    return _summed(read_yolo(config, split, console) for split in read_yolo_config(config).parts)


def audit_voc(path: Path, console: Console) -> tuple[int, list[Problem]]:
    """The number of XML files and objects of a Pascal VOC dataset, and what is wrong with them.

    Raises:
        UserError: there are no XML files, or they name no object.
    """
    parts = find_voc_splits(path) if path.is_dir() else {}
    if not parts:
        raise UserError("no Pascal VOC annotations", str(path), "give the folder of the XML files")
    return _summed(read_voc(path, "train" if part == "all" else part, console) for part in parts)


def _summed(readings: Iterable[Reading]) -> tuple[int, list[Problem]]:
    entries = 0
    problems: list[Problem] = []
    for reading in readings:
        entries += reading.entries
        problems += reading.problems
    return entries, problems
