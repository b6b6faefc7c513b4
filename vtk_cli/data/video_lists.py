"""Reads lists of labelled videos: Kinetics CSV in both forms, and one folder a class.

- PySlowFast's form: `path label` a line, separated by a tab, a comma or a space; the last one separates, so paths may
  contain them. A file with no labels has a path a line. Relative paths start at the list's folder. A first line
  `path,label` is a header.
- The form of the Kinetics download, with the header `label,youtube_id,time_start,time_end,split`: the file is
  `<youtube_id>_<start>_<end>.mp4` (six digits each), beside the list, in `<label>/` or in `<split>/<label>/`.
- One folder a class: sorted folder names are 0, 1, ...
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.data.problems import Problem
from vtk_cli.data.walking import check_folder, read_folder, walk_files
from vtk_cli.errors import UserError

EXTENSIONS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv")
KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")


@dataclass(frozen=True)
class VideoFile:
    """A video: where it should lie, its label (None: unlabelled), and the entry that says so."""

    path: Path
    label: int | None
    where: str


@dataclass(frozen=True)
class VideoList:
    """The videos of a list or folder, class names by label where there are any, and entries that make no sense."""

    videos: tuple[VideoFile, ...]
    class_names: tuple[str, ...] | None
    problems: tuple[Problem, ...]


def is_video(name: str) -> bool:
    """Whether a file name has the extension of a video, in any letter case."""
    return name.lower().endswith(EXTENSIONS)


def read_video_list(path: Path) -> VideoList:
    """Read a list file, or a folder with one folder a class.

    Raises:
        UserError: it is missing, cannot be read, or holds no video.
    """
    if path.is_file():
        found = _read_list(path)
    else:
        check_folder(path)
        found = _read_class_folders(path)
    if not found.videos and not found.problems:
        raise UserError(f"no videos in {path}", fix=f"supported: {' '.join(EXTENSIONS)}")
    return found


def _read_class_folders(root: Path) -> VideoList:
    folders = read_folder(root).folders
    videos = [
        VideoFile(root / file.path, label, str(root / file.path))
        for label, folder in enumerate(folders)
        for file in sorted(walk_files(root, folder, is_video), key=lambda file: file.path)
    ]
    return VideoList(tuple(videos), folders, ())


def _read_list(path: Path) -> VideoList:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("the list cannot be read", str(path), str(error)) from error
    if lines and tuple(lines[0].split(",")[: len(KINETICS_COLUMNS)]) == KINETICS_COLUMNS:
        return _read_kinetics(path, lines)
    return _read_paths(path, lines)


def _read_paths(path: Path, lines: list[str]) -> VideoList:
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if numbered and re.fullmatch(r"path[\t, ]label", numbered[0][1].strip()):
        numbered = numbered[1:]
    rows = [(number, *_split(line)) for number, line in numbered]
    labelled = any(label is not None for _, _, label in rows)
    videos: dict[str, VideoFile] = {}
    problems: list[Problem] = []
    for number, name, label in rows:
        where = f"{path}:{number} ({lines[number - 1].strip()})"
        if labelled and label is None:
            problems.append(Problem(where, "line is not `path label`"))
        elif label is not None and label < 0:
            problems.append(Problem(where, "label is negative"))
        elif name in videos:
            same = videos[name].label == label
            problems.append(Problem(where, "video is listed twice" if same else "video is listed with two labels"))
        else:
            videos[name] = VideoFile(path.parent / name, label, where)
    return VideoList(tuple(videos.values()), None, tuple(problems))


def _split(line: str) -> tuple[str, int | None]:
    """A line's path and its label, None where it does not end in an integer."""
    match = re.fullmatch(r"(.+?)\s*[\t, ]\s*(-?\d+)", line.strip())
    return (match[1], int(match[2])) if match else (line.strip(), None)


def _read_kinetics(path: Path, lines: list[str]) -> VideoList:
    rows = list(csv.DictReader(lines))
    names = tuple(sorted({row["label"] for row in rows if row["label"]}))
    videos: list[VideoFile] = []
    problems: list[Problem] = []
    for number, row in enumerate(rows, 2):
        where = f"{path}:{number} ({row['youtube_id']})"
        try:
            name = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
            label = names.index(row["label"])
        except (TypeError, ValueError):
            problems.append(Problem(where, f"line is not `{','.join(KINETICS_COLUMNS)}`"))
            continue
        places = (row["label"], f"{row['split']}/{row['label']}", "")
        files = [path.parent / place / name for place in places]
        videos.append(VideoFile(next((file for file in files if file.exists()), files[0]), label, where))
    return VideoList(tuple(videos), names, tuple(problems))
