"""Files that are whole or absent: atomic writes, checksums, locks, and the cache folder.

Whatever another process, a kill or a full disk does, a reader of these files sees the old content or the new one,
never a part. Nothing here imports torch.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from vtk_cli.errors import JobError, UserError

CACHE_VARIABLE = "VTK_CACHE"
TEMPORARY_PREFIX = ".tmp-"
"""What the names of files begin with while they are being written."""

_SEAL = "checksum"
_LONGEST_PART = 120
"""Bytes; file systems allow 255 for a whole name."""
_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_A_FOLDER = {errno.EEXIST, errno.ENOTDIR}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
_NOT_A_PATH = {errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}


class Busy(UserError):
    """Another process holds a lock that was not to be waited for."""


def cache_folder() -> Path:
    """The folder for what can be made again: `$VTK_CACHE`, else the user's cache directory (`~/.cache/vtk`)."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("vtk")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into one line with the right exit code.

    Raises:
        JobError: the disk or the quota is full (exit code 1).
        UserError: the folder may not be written, or cannot be (exit code 2).
    """
    try:
        yield
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            raise JobError(
                f"{path}: no space left to write; free some space and run the same command again"
                " (earlier results are intact)"
            ) from error
        if error.errno in _NOT_A_FOLDER:
            raise UserError("a file is in the way of a folder", str(path), "choose another folder") from error
        if error.errno in _NOT_WRITABLE:
            raise UserError("cannot be written", str(path), "choose another folder or mend its rights") from error
        if error.errno in _NOT_A_PATH:
            raise UserError(f"no file can be there ({error.strerror})", str(path), "choose another folder") from error
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; one that is there already is left as it is.

    Raises:
        JobError, UserError: see `disk_errors`; `UserError` also where no folder can be made, as under `/proc`.
    """
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:
            raise UserError("no folder can be made there", str(folder), "choose another folder") from error


def require_folder(folder: Path) -> None:
    """Refuse a folder that is none or may not be written, before the work whose results are to go there.

    Nothing is made; the folder need not be there yet.

    Raises:
        UserError: a file is there or above, or the rights are missing.
    """
    with disk_errors(folder):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not there.is_dir():
            raise UserError("is a file, not a folder", str(there), "choose another folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UserError("cannot be written", str(there), "choose another folder or mend its rights")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it and rename it over `path`, on failure remove it.

    The temporary name keeps `path`'s suffix, so that writers who look at the suffix (matplotlib, PyAV) are content.

    Raises:
        JobError, UserError: see `disk_errors`.
    """
    with temporary_path(path.parent, path.suffix) as temporary:
        with disk_errors(path):
            yield temporary
        publish(temporary, path)


@contextmanager
def temporary_path(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Yield a new empty file `.tmp-...` in `folder` (made if missing); at the end it is removed if still there.

    For a file whose name is known only when its content is: write it, then `publish` it. Otherwise `atomic_path`.
    """
    make_folder(folder)
    with disk_errors(folder):
        _sweep(folder)
        temporary = folder / f"{TEMPORARY_PREFIX}{_owner()}{uuid.uuid4().hex}{suffix}"
        temporary.touch(exist_ok=False)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers of this machine left under `folder` when they were killed; those at work keep theirs.

    For folders that several processes write to; whoever owns a folder alone may remove every `.tmp-...` in it.
    """
    _remove_dead(folder.rglob(f"{TEMPORARY_PREFIX}*"))


@cache
def _sweep(folder: Path) -> None:
    """Remove leftovers from the very folder that is about to be written to, once a process.

    What was not finished is wanted again, in the same place: so it goes wherever it was, also in the cache.
    """
    _remove_dead(folder.glob(f"{TEMPORARY_PREFIX}*"))


def _remove_dead(leftovers: Iterable[Path]) -> None:
    for leftover in leftovers:
        host, _, rest = leftover.name.removeprefix(TEMPORARY_PREFIX).rpartition("~")[0].rpartition("~")
        if host == socket.gethostname() and rest.isdecimal() and not is_alive(int(rest)):
            leftover.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Sync a finished file to the disk and rename it over `path`, in the same folder."""
    with disk_errors(path):
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)


def name_part(text: str) -> str:
    """What someone called a file or a class as part of a file's name: no separators, no ends of lines, not too long."""
    plain = re.sub(r"[\x00-\x1f\x7f-\x9f/\\]+", "-", text.encode("utf-8", "backslashreplace").decode("utf-8"))
    return plain.encode("utf-8")[:_LONGEST_PART].decode("utf-8", "ignore")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, keys in the given order; NaN and infinity are an error (`ValueError`)."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, and in it the checksum of its content: `read_sealed` believes no other."""
    content = json.loads(json.dumps(dict(value), allow_nan=False))
    if _SEAL in content:
        raise ValueError(f"{_SEAL!r} is the seal's own name")
    write_json(path, {**content, _SEAL: content_key(content)})


def read_sealed(path: Path) -> dict[str, Any] | None:
    """What `write_sealed` wrote; None where there is nothing, or what is there is torn or was changed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and found.pop(_SEAL, None) == content_key(found) else None
    except (OSError, ValueError):
        return None


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_key(value: Any) -> str:
    """A short key (20 hexadecimal digits of SHA-256) for anything JSON can hold, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextmanager
def lock(path: Path, *, wait: bool = True, busy: str = "in use by another process") -> Iterator[None]:
    """Hold an exclusive lock on the file `path` (made if missing); released when the process ends, however it ends.

    Raises:
        Busy: `wait` is false and another process holds it; the message is `busy`.
    """
    make_folder(path.parent)
    with disk_errors(path):
        held = FileLock(path)
        try:
            held.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise Busy(busy, str(path.parent), "wait for it to end or choose another --out") from None
    try:
        yield
    finally:
        held.release()


def is_alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _owner() -> str:
    return f"{socket.gethostname()}~{os.getpid()}~"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
