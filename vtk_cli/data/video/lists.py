"""Reads lists of videos in every format that video data sets come in; `read_video_list` tells them apart.

- `paths`, PySlowFast's form: `path label` a line, separated by a tab, a comma or a space; the last one separates, so
  paths may contain them. A file with no labels has a path a line; `path frames label` names folders of frames.
- `vtk`: the same with a header, `path,label[,start,end]`, in seconds.
- `folders`: one folder a class; sorted folder names are 0, 1, ...
- those of Kinetics, Something-Something v2, UCF101, HMDB51, Diving48 and Gym99: see `published_lists.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vtk_cli.data.problems import Problem
from vtk_cli.data.video.entries import Entry, assembled, csv_rows, is_label
from vtk_cli.data.video.published_lists import PUBLISHED
from vtk_cli.data.video.records import EXTENSIONS, ListFormat, Part, VideoFile, VideoList, is_video
from vtk_cli.data.walking import check_folder, is_there, read_folder, walk_files
from vtk_cli.errors import UserError

CLASS_NAMES = "classes.txt"
Reader = Callable[[Path, Path, Part], VideoList]
"""From a list, the folder that its paths start at, and the part that is wanted, where a list has several."""


def read_video_list(
    path: Path, *, list_format: ListFormat | None = None, root: Path | None = None, part: Part = "train"
) -> VideoList:
    """Read a list file, or a folder with one folder a class.

    Args:
        path: the file or folder.
        list_format: None looks at it.
        root: where relative paths start; None: the list's folder.
        part: of HMDB51's split files, which videos.

    Raises:
        UserError: it is missing, cannot be read, is not of this format, or holds no video.
    """
    if not path.is_file():
        check_folder(path)
    known = list_format or format_of(path)
    found = _READERS[known](path, root or (path.parent if path.is_file() else path), part)
    if not found.videos and not found.problems:
        raise UserError(f"no videos in {path}", fix=f"supported: {' '.join(EXTENSIONS)}")
    return found


def format_of(path: Path) -> ListFormat:
    """What a list is, by its name and its first bytes."""
    if path.is_dir():
        return "hmdb51" if any(path.glob("*_test_split?.txt")) else "folders"
    for name, published in PUBLISHED.items():
        if published.recognises(path):
            return name
    first = _lines(path)[:1]
    return "vtk" if first and re.fullmatch(r"path[\t, ]label([\t, ]start[\t, ]end)?", first[0].strip()) else "paths"


def class_names_beside(path: Path) -> tuple[str, ...] | None:
    """The names in the `classes.txt` beside a list, a line each; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    file = path.with_name(CLASS_NAMES)
    return tuple(line.strip() for line in _lines(file) if line.strip()) if file.is_file() else None


def _read_class_folders(root: Path, _: Path, __: Part) -> VideoList:
    folders = read_folder(root).folders
    videos = [
        VideoFile(root / file.path, label, str(root / file.path))
        for label, folder in enumerate(folders)
        for file in sorted(walk_files(root, folder, is_video), key=lambda file: file.path)
    ]
    return VideoList(tuple(videos), folders, ())


def _read_paths(path: Path, root: Path, _: Part) -> VideoList:
    lines = [(number, line.strip()) for number, line in enumerate(_lines(path), 1) if line.strip()]
    split = [(number, line, *_split(line)) for number, line in lines]
    labelled = any(label is not None for *_, label in split)
    entries: list[Entry | Problem] = []
    for number, line, name, label in split:
        where = f"{path}:{number} ({line})"
        if labelled and label is None:
            entries.append(Problem(where, "line is not `path label`"))
        else:
            entries.append(Entry(_without_count(name, root), label, where))
    return assembled(entries, root, None)


def _read_vtk(path: Path, root: Path, _: Part) -> VideoList:
    lines = _lines(path)
    separator = re.match(r"path([\t, ])", lines[0].strip()) if lines else None
    rows = csv_rows(path, lines, separator[1] if separator else ",")
    entries = [_vtk_entry(row, f"{path}:{line} ({','.join(map(str, row.values()))})") for line, row in rows]
    return assembled(entries, root, None)


def _vtk_entry(row: Mapping[str, str | None], where: str) -> Entry | Problem:
    try:
        label = int(row["label"] or "") if row.get("label") not in {None, "", "-"} else None
        seconds = (float(row["start"] or 0), float(row["end"] or "inf")) if row.get("start") or row.get("end") else None
    except ValueError:
        return Problem(where, "line is not `path,label[,start,end]`")
    if not row.get("path"):
        return Problem(where, "line is not `path,label[,start,end]`")
    if seconds is not None and not 0 <= seconds[0] < seconds[1]:
        return Problem(where, "part does not end after it starts")
    return Entry(str(row["path"]), label, where, seconds=seconds)


def _split(line: str) -> tuple[str, int | None]:
    """A line's path and its label, None where it does not end in an integer."""
    before, number = _parted(line)
    digits = number.removeprefix("-")
    return (before, int(number)) if before and digits and is_label(digits) else (line, None)


def _parted(line: str) -> tuple[str, str]:
    """What is before the last tab, comma or space, and what is behind it; nothing is before where there is none."""
    at = max(map(line.rfind, "\t, "))
    if at < 0:
        return "", line
    before, behind = line[:at].rstrip(), line[at + 1 :].strip()
    if line[at] != "," and before.endswith(","):  # `a.mp4, 3`
        before = before[:-1].rstrip()
    return before, behind


def _without_count(name: str, root: Path) -> str:
    """Of `path frames`, the path, where that is a folder of frames."""
    before, count = _parted(name)
    of_frames = before and count.isdecimal() and not is_video(name) and is_there(root / before)
    return before if of_frames and (root / before).is_dir() else name


def _lines(path: Path) -> Sequence[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the list cannot be read", str(path), str(error)) from error


_READERS: Mapping[ListFormat, Reader] = {
    "paths": _read_paths,
    "vtk": _read_vtk,
    "folders": _read_class_folders,
    **{name: published.read for name, published in PUBLISHED.items()},
}
