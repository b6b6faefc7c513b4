"""What the images of a target were when a run began: sizes and checksums, so that a change is noticed."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vtk_cli.adapt.pool import Pool
from vtk_cli.console import Console
from vtk_cli.data.walking import file_size
from vtk_cli.errors import UserError
from vtk_cli.files import write_text

COLUMNS = ("sample_id", "size", "sha1_16")
_THREADS = 8
_NAMED = 3


@dataclass(frozen=True)
class Manifest:
    """The images of a pool.

    Args:
        entries: by sample id, sorted: bytes, and the first 16 hexadecimal digits of their SHA-1.
    """

    entries: Mapping[str, tuple[int, str]]

    @cached_property
    def sha1(self) -> str:
        """The SHA-1 of the manifest as it is written."""
        return _sha1(self.text.encode("utf-8", "surrogateescape"))

    @cached_property
    def text(self) -> str:
        """The manifest as CSV."""
        out = io.StringIO(newline="")
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((name, size, sha) for name, (size, sha) in self.entries.items())
        return out.getvalue()

    @cached_property
    def by_checksum(self) -> dict[str, list[str]]:
        """Sample ids by checksum: more than one where images are the same."""
        found: dict[str, list[str]] = {}
        for name, (_, sha) in self.entries.items():
            found.setdefault(sha, []).append(name)
        return found


def make_manifest(pool: Pool, console: Console) -> Manifest:
    """Read every image's bytes once.

    Raises:
        UserError: one cannot be read.
    """
    return Manifest(dict(zip(pool.ids, _entries(pool, range(len(pool)), console), strict=True)))


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write it as CSV, atomically."""
    write_text(path, manifest.text)


def read_manifest(path: Path) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        rows = csv.DictReader(io.StringIO(text, newline=""))
        entries = {row["sample_id"]: (int(row["size"]), row["sha1_16"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"is no manifest of a run ({error})", str(path), "restore it, or start anew") from error
    return Manifest(entries)


def require_same_files(manifest: Manifest, pool: Pool) -> None:
    """Refuse a target in which images are missing, or files have another size; their content is not read.

    Raises:
        UserError: naming the first three.
    """
    missing = [name for name in manifest.entries if name not in pool.row_of]
    _refuse(missing, "are missing", pool)
    if pool.root is not None:
        root = pool.root
        sizes = ((name, size) for name, (size, _) in manifest.entries.items())
        _refuse([name for name, size in sizes if file_size(root / name) != size], "have changed", pool)


def require_same_contents(manifest: Manifest, pool: Pool, console: Console) -> None:
    """Refuse a target that is not, byte for byte, what the manifest says.

    Raises:
        UserError: naming the first three.
    """
    require_same_files(manifest, pool)
    names = tuple(manifest.entries)
    now = _entries(pool, pool.rows(names), console)
    _refuse(
        [name for name, entry in zip(names, now, strict=True) if entry != manifest.entries[name]], "have changed", pool
    )


def checksum(content: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-1."""
    return _sha1(content)[:16]


def shared_images(manifest: Manifest, others: Iterable[bytes]) -> list[str]:
    """The images of a manifest whose content is among `others`; to see that a test set is apart."""
    known = manifest.by_checksum
    return sorted({name for content in others for name in known.get(checksum(content), ())})


def _entries(pool: Pool, rows: Sequence[int], console: Console) -> list[tuple[int, str]]:
    def entry(row: int) -> tuple[int, str]:
        try:
            content = pool.content(row)
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", pool.path(pool.ids[row])) from error
        return len(content), checksum(content)

    with console.progress("checksums", len(rows)) as progress, ThreadPoolExecutor(_THREADS) as threads:
        found = []
        for one in threads.map(entry, rows):
            found.append(one)
            progress.advance()
        return found


def _refuse(names: Sequence[str], verb: str, pool: Pool) -> None:
    if names:
        first = ", ".join(names[:_NAMED])
        what = f"{len(names)} target images {verb} since the run began, first {first}"
        raise UserError(what, pool.name, "put them back, or start a new run")


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
