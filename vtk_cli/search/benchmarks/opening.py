"""Opening a benchmark by its path, whichever of the known layouts it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vtk_cli.errors import UserError
from vtk_cli.files import cache_folder, content_key, sha256_file, write_text
from vtk_cli.search.benchmarks.benchmark import Benchmark, Table
from vtk_cli.search.benchmarks.inert_pickle import read_pickle
from vtk_cli.search.benchmarks.naslib import naslib_rows
from vtk_cli.search.benchmarks.nats_folder import NatsFolder
from vtk_cli.search.benchmarks.table_file import read_table, write_table
from vtk_cli.search.benchmarks.trainings import file_rows, meta_archs

_TABLES = (".csv", ".json")
_PICKLES = (".pth", ".pickle", ".pkl", ".pbz2")
_LARGE = 256 * 2**20
"""Bytes from which on what a pickle holds is kept as a table in the cache: the 4.7 GB of NAS-Bench-201 would take a
minute and 23 GB of memory every time."""
_LAYOUT = 1
"""To be raised with every change of what is read from a pickle."""


def open_benchmark(path: Path) -> Benchmark:
    """A tabular benchmark that the user brings.

    Args:
        path: a table (`.csv`, `.json`), NAS-Bench-201's file (`.pth`), NATS-Bench's file (`.pickle.pbz2`) or folder
            (`-simple`), or one of NASLib's (`.pickle`).

    Raises:
        UserError: it is missing, damaged, cut short, of another version, none of these, or a pickle that names more
            than numbers, text and containers; such a pickle is not run.
    """
    if path.is_dir():
        return NatsFolder(path)
    if not path.is_file():
        raise UserError("no such benchmark", str(path), "check the path")
    if path.suffix.lower() in _TABLES:
        return read_table(path)
    if path.suffix.lower() not in _PICKLES:
        raise UserError("is no benchmark", str(path), f"known are {', '.join(_TABLES + _PICKLES)} and folders")
    if path.stat().st_size < _LARGE:
        return _read(path)
    kept = cache_folder() / "search" / "benchmarks" / f"{_key(path)}.csv"
    checksum = kept.with_suffix(".sha256")
    if not _is_whole(kept, checksum):
        write_table(kept, _read(path).all_rows())
        write_text(checksum, sha256_file(kept))
    return read_table(kept, str(path))


def _is_whole(kept: Path, checksum: Path) -> bool:
    """Whether what was kept is all there: a table that was cut short at the end of a line is a table, too."""
    try:
        return checksum.read_text(encoding="utf-8") == sha256_file(kept)
    except (OSError, ValueError):
        return False


def _read(path: Path) -> Table:
    content, name = read_pickle(path), str(path)
    if _is_naslib(content):
        return Table(name, naslib_rows(content, name))
    meta_archs(content, name)
    return Table(name, file_rows(content, name))


def _is_naslib(content: Any) -> bool:
    """Whether the keys are architectures."""
    return (
        isinstance(content, Mapping) and bool(content) and all(isinstance(key, str) and "|" in key for key in content)
    )


def _key(path: Path) -> str:
    """Other bytes have another size or a later time of change."""
    status = path.stat()
    return content_key([str(path.resolve()), status.st_size, status.st_mtime_ns, _LAYOUT])
