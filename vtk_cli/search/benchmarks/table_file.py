"""The plain form of a benchmark, as CSV or JSON: a row a training, with the fields of `Row`.

    arch,dataset,split,hp,seed,accuracy,loss,flops,params
    0 1 2,digits,test,20,0,91.3,0.31,248064,1510

Only `arch` and `accuracy`, in percent, are needed. JSON is a list of objects with these fields, alone or as `rows` of
what `write_table` writes.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vtk_cli.errors import UserError, nearest
from vtk_cli.files import write_json, write_text
from vtk_cli.search.benchmarks.benchmark import Row, Table

FORMAT, VERSION = "vtk architecture benchmark", 1
FIELDS = tuple(field.name for field in dataclasses.fields(Row))

_NEEDED = ("arch", "accuracy")
_OPEN = "default"
"""The dataset, the split and the hyper-parameters of a file that does not name them."""
_FETCH_ANEW = "write it anew"


def read_table(path: Path, name: str | None = None) -> Table:
    """A benchmark in the plain form.

    Args:
        path: `.json`, or any other suffix for CSV.
        name: what messages call it; its path if None.

    Raises:
        UserError: it is missing, cut short, of another version, or a row cannot be read; the line is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError("no such benchmark", str(path), "check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("is no text", str(path), "give a table as CSV or JSON") from error
    rows = _json_rows(text, path) if path.suffix == ".json" else _csv_rows(text, path)
    return Table(name or str(path), rows)


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write a benchmark in the plain form, atomically; `read_table` reads it back.

    Args:
        path: where to; `.json`, or any other suffix for CSV.
        rows: in the order to be written.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    if path.suffix == ".json":
        write_json(path, {"format": FORMAT, "version": VERSION, "rows": [dataclasses.asdict(row) for row in rows]})
        return
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in rows:
        writer.writerow("" if value is None else value for value in _values(row))
    write_text(path, stream.getvalue())


def _values(row: Row) -> Iterator[Any]:
    return (getattr(row, field) for field in FIELDS)


def _csv_rows(text: str, path: Path) -> Iterator[Row]:
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        _check_fields(header, str(path))
        for values in lines:
            if not values:
                continue
            where = f"{path}:{lines.line_num}"
            if len(values) != len(header):
                what = f"has {len(values)} of {len(header)} fields: the file is cut short or damaged"
                raise UserError(what, where, _FETCH_ANEW)
            yield _row(dict(zip(header, values, strict=True)), where)
    except csv.Error as error:
        raise UserError(f"is cut short or no CSV ({error})", f"{path}:{lines.line_num}", _FETCH_ANEW) from error


def _json_rows(text: str, path: Path) -> Iterator[Row]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"is cut short or no JSON ({error})", str(path), _FETCH_ANEW) from error
    if isinstance(content, Mapping):
        if content.get("format") != FORMAT:
            raise UserError("is no benchmark", str(path), f'its "format" must be "{FORMAT}"')
        if content.get("version") != VERSION:
            what = f"is of version {content.get('version')!r}, known is {VERSION}"
            raise UserError(what, str(path), "write it with this version of vtk")
        content = content.get("rows")
    if not isinstance(content, list):
        raise UserError("holds no list of rows", str(path), _FETCH_ANEW)
    for number, fields in enumerate(content):
        where = f"{path}: row {number} (from 0)"
        if not isinstance(fields, Mapping):
            raise UserError("is no object", where, 'write {"arch": ..., "accuracy": ...}')
        _check_fields(list(fields), where)
        yield _row({name: "" if value is None else str(value) for name, value in fields.items()}, where)


def _check_fields(fields: list[str], where: str) -> None:
    for needed in _NEEDED:
        if needed not in fields:
            fix = nearest(needed, fields).replace("did you mean", "is it") or f"the fields are {', '.join(FIELDS)}"
            raise UserError(f"has no field {needed!r}", where, fix)


def _row(texts: Mapping[str, str], where: str) -> Row:
    given = {name: text.strip() for name, text in texts.items() if text is not None and text.strip()}
    for needed in _NEEDED:
        if needed not in given:
            raise UserError(f"has no {needed}", where, "the file is cut short or damaged")
    try:
        return Row(
            given["arch"],
            given.get("dataset", _OPEN),
            given.get("split", _OPEN),
            given.get("hp", _OPEN),
            int(given["seed"]) if "seed" in given else None,
            float(given["accuracy"]),
            *(_finite(given[name]) if name in given else None for name in ("loss", "flops", "params")),
        )
    except ValueError as error:
        raise UserError(f"cannot be read: {error}", where, "accuracies are percentages, seeds whole numbers") from error


def _finite(text: str) -> float | None:
    """A number; what diverged has no loss."""
    number = float(text)
    return number if math.isfinite(number) else None
