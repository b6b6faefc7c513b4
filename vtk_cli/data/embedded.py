"""Opens the embedded datasets: made once, cached, checksummed, made again when torn.

A dataset is built in a temporary folder beside its place and renamed, under a lock: whoever opens it sees it whole, and
two processes that ask at once build it once. `manifest.json` holds every file's size and SHA-256. Opening compares the
sizes; `make` and `check` compare the checksums. The same library versions give the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from vtk_cli.console import Console
from vtk_cli.data.catalog import MANIFEST, Entry, find_entry, folder_of, read_manifest
from vtk_cli.data.digits import build_digits
from vtk_cli.data.digits_coco import build_digits_coco
from vtk_cli.data.digits_m import build_digits_m
from vtk_cli.data.moving_digits import build_moving_digits
from vtk_cli.data.walking import file_size
from vtk_cli.errors import JobError, UserError
from vtk_cli.files import content_key, disk_errors, lock, sha256_file, write_json

BUILDERS: dict[str, Callable[..., None]] = {
    "digits": build_digits,
    "digits-coco": build_digits_coco,
    "moving-digits": build_moving_digits,
    "digits-m": build_digits_m,
}
LIBRARIES = ("scikit-learn", "numpy", "pillow", "pycocotools", "av")


@dataclass(frozen=True)
class Embedded:
    """An embedded dataset on disk: its folder, and the content key of all its files' checksums."""

    name: str
    folder: Path
    fingerprint: str


def open_embedded(name: str, console: Console | None = None, **counts: int) -> Embedded:
    """Open an embedded dataset, building it first where the cache has none or a torn one.

    Args:
        name: a name of `catalog.ENTRIES`.
        console: told when something is built.
        counts: images or clips a split, e.g. `train=3000`; those not given are the entry's own.

    Raises:
        UserError: no such dataset, or a count it has not or that is below 1.
        JobError: the disk is full.
    """
    entry = find_entry(name)
    return _open(entry, _all_counts(entry, counts), wrong_sizes, console)


def make_embedded(name: str, console: Console | None = None, **counts: int) -> Embedded:
    """As `open_embedded`, but a cached dataset is held against its checksums, and made again if one differs."""
    entry = find_entry(name)
    return _open(entry, _all_counts(entry, counts), wrong_files, console)


def export_embedded(name: str, out: Path, console: Console | None = None, **counts: int) -> Embedded:
    """Put a copy of an embedded dataset at `out/<name>`, whole or not at all.

    Raises:
        UserError: something else is there already.
    """
    made = make_embedded(name, console, **counts)
    target = out / name
    there = _opened(name, target)
    if there is not None and there.fingerprint == made.fingerprint and not wrong_files(target):
        return there
    if target.exists():
        raise UserError("is there already and is not this dataset", str(target), "remove it or choose another --out")
    temporary = out / f".making-{name}-{uuid4().hex}"
    with disk_errors(target):
        try:
            shutil.copytree(made.folder, temporary)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Embedded(name, target, made.fingerprint)


def wrong_sizes(folder: Path) -> list[str]:
    """The files of a dataset folder that are missing or have another size than its manifest says."""
    manifest = read_manifest(folder)
    if manifest is None:
        return [MANIFEST]
    return [path for path, (size, _) in manifest["files"].items() if file_size(folder / path) != size]


def wrong_files(folder: Path) -> list[str]:
    """The files of a dataset folder that are missing or differ from the checksum in its manifest."""
    manifest = read_manifest(folder)
    if manifest is None:
        return [MANIFEST]
    files = manifest["files"].items()
    return [
        path for path, (size, sha) in files if file_size(folder / path) != size or sha256_file(folder / path) != sha
    ]


def _open(
    entry: Entry, counts: dict[str, int], wrong: Callable[[Path], list[str]], console: Console | None
) -> Embedded:
    folder = folder_of(entry, counts)
    if wrong(folder):
        with lock(folder.with_name(f"{folder.name}.lock")):
            broken = wrong(folder)  # another process may have built it while this one waited
            if broken:
                _announce(console, entry, folder, broken)
                _build(entry, counts, folder)
    opened = _opened(entry.name, folder)
    if opened is None:
        raise JobError(f"{folder}: removed while it was being opened; run the same command again")
    return opened


def _announce(console: Console | None, entry: Entry, folder: Path, broken: list[str]) -> None:
    if console is None:
        return
    if folder.exists():
        console.warn(f"{folder}: {len(broken)} files missing or torn, first {broken[0]}; making it again")
    console.note(f"making {entry.name} in {folder}")


def _opened(name: str, folder: Path) -> Embedded | None:
    manifest = read_manifest(folder)
    return None if manifest is None else Embedded(name, folder, content_key(manifest["files"]))


def _all_counts(entry: Entry, counts: dict[str, int]) -> dict[str, int]:
    for name, count in counts.items():
        if name not in entry.counts:
            raise UserError(f"{entry.name} has no count {name!r}", fix=f"there are {', '.join(entry.counts) or 'none'}")
        if count < 1:
            raise UserError(f"{count} is out of range", f"{name} of {entry.name}", "give at least 1")
    return {**entry.counts, **counts}


def _build(entry: Entry, counts: dict[str, int], folder: Path) -> None:
    """Build into `folder`, replacing what is there. Only under the lock: what a killed build left is removed."""
    with disk_errors(folder):
        temporary, old = (folder.with_name(f".{state}-{folder.name}") for state in ("making", "old"))
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            BUILDERS[entry.name](temporary, **counts)
            write_json(temporary / MANIFEST, _manifest(entry, counts, temporary))
            if folder.exists():
                folder.rename(old)
            temporary.rename(folder)
        finally:  # half a dataset would keep a full disk full
            shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _manifest(entry: Entry, counts: dict[str, int], folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "name": entry.name,
        "version": entry.version,
        "counts": counts,
        "libraries": {library: version(library) for library in LIBRARIES},
        "files": {path.relative_to(folder).as_posix(): [path.stat().st_size, sha256_file(path)] for path in files},
    }
