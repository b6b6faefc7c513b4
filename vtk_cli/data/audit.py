"""`vtk data check`: reads a dataset as the subcommands would and reports every entry that is wrong."""

from __future__ import annotations

from pathlib import Path

from vtk_cli.console import Console
from vtk_cli.data.audit_coco import audit_coco
from vtk_cli.data.audit_detection import audit_voc, audit_yolo
from vtk_cli.data.audit_images import audit_images
from vtk_cli.data.audit_video import audit_videos, is_json_list, list_format_of, video_parts
from vtk_cli.data.catalog import ENTRIES, Entry, Kind, folder_of
from vtk_cli.data.coco_files import find_coco_files
from vtk_cli.data.detection.voc import find_voc_splits
from vtk_cli.data.detection.yolo import SUFFIXES, find_yolo_config
from vtk_cli.data.embedded import open_embedded, wrong_files
from vtk_cli.data.image_layouts import is_image
from vtk_cli.data.problems import Audit, Problem
from vtk_cli.data.video.records import ListFormat, is_video
from vtk_cli.data.walking import walk_files
from vtk_cli.errors import UserError, nearest

AUDITS = {
    "images": audit_images,
    "coco": audit_coco,
    "yolo": audit_yolo,
    "voc": audit_voc,
    "video": audit_videos,
}


def audit(
    target: str,
    console: Console,
    kind: Kind | None = None,
    *,
    list_format: ListFormat | None = None,
    root: Path | None = None,
) -> Audit:
    """Check a dataset.

    Args:
        target: the name of an embedded dataset, or the path of an image folder, of a COCO file or folder, of a
            YOLO `data.yaml` or its folder, of a folder of Pascal VOC, or of a video list or folder of videos.
        console: shows the progress.
        kind: how to read it; found from the files when None.
        list_format, root: of lists of videos; see `audit_videos`.

    Raises:
        UserError: there is no such thing, or nothing in it that could be checked.
    """
    entry = next((entry for entry in ENTRIES if entry.name == target), None)
    if entry is not None:
        if kind not in (None, entry.kind):
            raise UserError(f"{target} is read as {entry.kind}, not as {kind}", "--as", "leave it out")
        if list_format is None and root is None:
            return _audit_embedded(entry, console)
        raise UserError(f"{target} needs no --format and no --root", fix="leave them out")
    path = Path(target)
    if not path.exists():
        names = [entry.name for entry in ENTRIES]
        raise UserError(f"no such file, folder or embedded dataset: {target}", fix=nearest(target, names))
    kind = kind or ("video" if list_format is not None else kind_of(path))
    if kind == "video":
        entries, problems = audit_videos(path, console, list_format, root)
    elif list_format is not None or root is not None:
        raise UserError(f"only lists of videos have a --format and a --root; {target} is read as {kind}", "--root")
    else:
        entries, problems = AUDITS[kind](path, console)
    return Audit(target, kind, entries, tuple(problems))


def kind_of(path: Path) -> Kind:
    """What a path holds: annotations of boxes where there are any, else what the first image or video found says."""
    if path.is_file():
        if path.suffix == ".json":
            return "video" if is_json_list(path) else "coco"
        return "yolo" if path.suffix.lower() in SUFFIXES else "video"
    if find_coco_files(path):
        return "coco"
    if find_yolo_config(path) is not None:
        return "yolo"
    if find_voc_splits(path):
        return "voc"
    if list_format_of(path) == "hmdb51":
        return "video"
    first = next(walk_files(path, "", lambda name: is_image(name) or is_video(name)), None)
    only_lists = first is None and any(listed.path.is_file() for listed in video_parts(path))
    return "video" if only_lists or (first is not None and is_video(first.path)) else "images"


def _audit_embedded(entry: Entry, console: Console) -> Audit:
    """A dataset that was made is checked as it lies, not mended first; one that was not is made."""
    folder = folder_of(entry)
    if not folder.exists():
        open_embedded(entry.name, console)
    torn = [Problem(str(folder / path), "file is missing or not as it was made") for path in wrong_files(folder)]
    try:
        entries, problems = AUDITS[entry.kind](folder, console)
    except UserError as error:  # torn beyond reading
        entries, problems = 0, [Problem(error.where or str(folder), error.what)]
    return Audit(entry.name, entry.kind, entries, (*torn, *problems))
