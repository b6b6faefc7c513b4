"""Opens a dataset of detection in whatever format it has."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.catalog import ENTRIES
from vtk_cli.data.coco_files import ROBOFLOW, find_coco_files
from vtk_cli.data.detection.coco import read_coco
from vtk_cli.data.detection.reading import Reading, accepted
from vtk_cli.data.detection.records import DetectionSet, Format, Split
from vtk_cli.data.detection.splits import of_split, split_called
from vtk_cli.data.detection.voc import find_voc_splits, read_voc
from vtk_cli.data.detection.yolo import find_yolo_config, read_yolo, read_yolo_config
from vtk_cli.data.embedded import open_embedded
from vtk_cli.errors import UserError, nearest

DEFAULT = "digits-coco"
"""The embedded dataset that stands in where no data is given."""
_EXPECTED = (
    "expected COCO (annotations/instances_train.json or train/_annotations.coco.json), YOLO (data.yaml) or Pascal VOC"
    " (Annotations/*.xml, or XML files beside the images)"
)


def open_detection(path: Path | str, split: Split, *, skip_bad: bool = False, console: Console) -> DetectionSet:
    """Open a split of a dataset; every image is decoded once, and every entry checked.

    Args:
        path: a COCO JSON file, a YOLO `data.yaml`, a folder of COCO, YOLO or Pascal VOC, or of what Roboflow exports of
            them; or `digits-coco`, the embedded dataset. A JSON file or folder whose name says no split is taken for
            any.
        split: which part. Where there is no `val`, `test` stands in, with a warning.
        skip_bad: leave out what is wrong in place of refusing it; see `coco.MENDED` for what is mended.
        console: shows progress, what there is and what was left out.

    Raises:
        UserError: there is no such dataset or split, the format is not known, or something is wrong: one line that
            counts each fault.
    """
    root = located(path, console)
    kind = format_of(root)
    there = splits_of(root)
    if split == "val" and "val" not in there and "test" in there:
        console.warn(f"{root}: has no val split; test stands in for it")
        split = "test"
    if there and split not in there:
        raise UserError(f"has no {split} split", str(root), f"there are {', '.join(there)}")
    return accepted(_read(root, kind, split, console), root, skip_bad=skip_bad, console=console)


def located(path: Path | str, console: Console) -> Path:
    """The file or folder of a dataset; an embedded one is made first.

    Raises:
        UserError: there is none.
    """
    if str(path) in {entry.name for entry in ENTRIES if entry.kind == "coco"}:
        return open_embedded(str(path), console).folder
    if not Path(path).exists():
        fix = nearest(str(path), [DEFAULT]) or f"the embedded dataset is {DEFAULT}"
        raise UserError(f"no such file, folder or embedded dataset: {path}", fix=fix)
    return Path(path)


def format_of(path: Path) -> Format:
    """The format of a file or folder.

    Raises:
        UserError: it is none that is known.
    """
    if path.is_file():
        if path.suffix.lower() == ".json":
            return "coco"
        if find_yolo_config(path) is not None:
            return "yolo"
        raise UserError("is neither a COCO file (.json) nor a YOLO dataset (.yaml)", str(path))
    if find_coco_files(path):
        return "coco"
    if find_yolo_config(path) is not None:
        return "yolo"
    if find_voc_splits(path):
        return "voc"
    raise UserError("holds no boxes", str(path), _EXPECTED)


def splits_of(path: Path) -> tuple[Split, ...]:
    """The splits that a dataset names; empty where nothing tells them apart and any may be asked for."""
    kind = format_of(path)
    if kind == "coco":
        named = [split_called(_split_name(file)) for file in find_coco_files(path)]
        return tuple(dict.fromkeys(split for split in named if split is not None))
    if kind == "yolo":
        return tuple(read_yolo_config(_config_of(path)).parts)
    return tuple(part for part in find_voc_splits(path) if part != "all")


def read_split(path: Path, split: Split, console: Console) -> Reading:
    """Read a split as `open_detection` does, and say what is wrong in place of refusing it."""
    return _read(path, format_of(path), split, console)


def _read(path: Path, kind: Format, split: Split, console: Console) -> Reading:
    if kind == "coco":
        return read_coco(_coco_file(path, split), console)
    if kind == "yolo":
        return read_yolo(_config_of(path), split, console)
    return read_voc(path, split, console)


def _coco_file(path: Path, split: Split) -> Path:
    files = find_coco_files(path)
    found = of_split(files, split, _split_name) or ([] if len(files) > 1 else files)
    if len(found) != 1:
        names = ", ".join(file.name if file.name != ROBOFLOW else f"{file.parent.name}/{ROBOFLOW}" for file in files)
        what = f"{len(found)} annotation files of {split}" if found else f"no annotation file of {split}"
        raise UserError(f"{what} among {names}", str(path), "give the JSON file itself")
    return found[0]


def _split_name(file: Path) -> str:
    return file.parent.name if file.name == ROBOFLOW else file.stem.removeprefix("instances_")


def _config_of(path: Path) -> Path:
    config = find_yolo_config(path)
    if config is None:
        raise UserError("has no data.yaml", str(path))
    return config
