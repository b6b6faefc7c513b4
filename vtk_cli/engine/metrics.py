"""`metrics.jsonl`: one JSON object a line, the same lines whether or not the run was interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from vtk_cli.files import disk_errors, write_text

Row = Mapping[str, float | None]


class MetricsLog:
    """The rows so far, in memory and in a file.

    The rows travel in the checkpoint, so that a resumed run cuts the file back to what the checkpoint knows. No time
    of day is written: the file of an interrupted run equals that of one that never was.

    Args:
        path: the file; None for rows in memory only. What an earlier run left there is replaced.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows: list[dict[str, float | None]] = []

    def replace(self, rows: Sequence[Row]) -> None:
        """Start from `rows`, whatever the file holds."""
        self.rows = [dict(row) for row in rows]
        if self._path is not None:
            write_text(self._path, "".join(map(_line, self.rows)))

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row; NaN and infinity, which JSON cannot hold, become null.

        Raises:
            JobError: the disk is full.
        """
        self.rows.append({key: value if math.isfinite(value) else None for key, value in row.items()})
        if self._path is not None:
            with disk_errors(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(_line(self.rows[-1]))


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
