"""The images and videos that a user names: files, folders, patterns."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from vtk_cli.data.image_layouts import EXTENSIONS as IMAGES
from vtk_cli.data.video.records import EXTENSIONS as VIDEOS
from vtk_cli.data.walking import walk_files
from vtk_cli.errors import UserError


def find_inputs(named: Sequence[str]) -> list[Path]:
    """The files that are named, each once: files as they are, folders with what they hold at any depth, patterns.

    Raises:
        UserError: nothing is named, something named is not there, or a folder holds no image and no video.
    """
    if not named:
        raise UserError("name images, videos or folders", "IMAGES")
    found: dict[Path, None] = {}
    for name in named:
        found |= dict.fromkeys(_files_of(name))
    return list(found)


def is_video(path: Path) -> bool:
    """Whether the name of a file says that it is a video."""
    return path.suffix.lower() in VIDEOS


def _files_of(name: str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return _inside(path)
    if path.exists():
        return [path]
    # pathlib's own takes no absolute patterns.
    matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))] if glob.has_magic(name) else []  # noqa: PTH207
    if not matches:
        raise UserError("no such image, video, folder or pattern", name, "check the path")
    return [file for match in matches for file in (_inside(match, needed=False) if match.is_dir() else [match])]


def _inside(folder: Path, *, needed: bool = True) -> list[Path]:
    known = (*IMAGES, *VIDEOS)
    files = [folder / file.path for file in walk_files(folder, "", lambda name: Path(name).suffix.lower() in known)]
    if needed and not files:
        raise UserError("no images and no videos in the folder", str(folder), f"supported: {' '.join(known)}")
    return sorted(files)
