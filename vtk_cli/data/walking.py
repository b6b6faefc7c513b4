"""Walks folders as people keep them: links followed, loops ended, hidden entries left out, everything in name order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vtk_cli.errors import UserError


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file: its path relative to where the walk began, with `/` between, and its bytes (-1: a dead link)."""

    path: str
    size: int


@dataclass(frozen=True)
class Content:
    """What lies directly in a folder, by name."""

    folders: tuple[str, ...]
    files: tuple[FoundFile, ...]


def check_folder(root: Path) -> None:
    """Raise `UserError` unless `root` is a folder."""
    if not root.exists():
        raise UserError("no such folder", str(root))
    if not root.is_dir():
        raise UserError("is a file", str(root), "give the folder that holds the data")


def read_folder(folder: Path) -> Content:
    """What lies in `folder`; hidden entries (`.git`, `._x.jpg`) are left out.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError("the folder cannot be read", str(folder), error.strerror or "") from error
    kinds = [(entry, _is_folder(entry)) for entry in shown]
    files = tuple(FoundFile(entry.name, _size(entry)) for entry, is_folder in kinds if not is_folder)
    return Content(tuple(entry.name for entry, is_folder in kinds if is_folder), files)


def file_size(path: Path) -> int | None:
    """The bytes of the file `path`; None where there is no such file, also where no file could have that name."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def is_there(path: Path) -> bool:
    """Whether a file or folder is at `path`; none is where no file could have that name."""
    try:
        return path.exists()
    except OSError:
        return False


def path_within(root: Path, name: str) -> Path | None:
    """Where a file that is called `name` in a dataset lies in the folder `root`; None where that is outside of it.

    A dataset may come from anyone: what it calls `../../x` or `/etc/x` is not to be opened. Links inside `root` are
    followed, whoever made them owns the folder.
    """
    top = Path(os.path.normpath(Path.cwd() / root))
    place = Path(os.path.normpath(top / name))  # pathlib's `resolve` would follow links, and so call them outside
    return place if top in place.parents else None


def walk_files(root: Path, within: str, wanted: Callable[[str], bool]) -> Iterator[FoundFile]:
    """The files at any depth in `root/within` whose name is `wanted`; each real folder is entered once."""
    seen: set[tuple[int, int]] = set()
    waiting = [within]
    while waiting:
        folder = waiting.pop()
        status = (root / folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        content, prefix = read_folder(root / folder), f"{folder}/" if folder else ""
        yield from (FoundFile(prefix + file.path, file.size) for file in content.files if wanted(file.path))
        waiting.extend(prefix + name for name in reversed(content.folders))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:
        return -1
