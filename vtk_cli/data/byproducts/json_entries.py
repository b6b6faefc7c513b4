"""The entries of a JSON list one by one, so that a file of 400 MB does not become 4 GB of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vtk_cli.errors import UserError

_SPACE = re.compile(r"[ \t\n\r]*")


def read_utf8(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        UserError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read", str(path), str(error)) from error


def entries(path: Path, text: str) -> Iterator[Any]:
    """The entries of the list in `text`; where the text is no list, its one value.

    Raises:
        UserError: it is not JSON (with the line), or nested too deeply.
    """
    decoder = json.JSONDecoder()

    def value(at: int) -> tuple[Any, int]:
        try:
            return decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise UserError(f"is not JSON: {error.msg}", f"{path}:{error.lineno}") from error
        except RecursionError as error:
            raise UserError("is nested too deeply", f"{path}:{_line(text, at)}") from error
        except ValueError as error:  # a number of thousands of digits
            raise UserError(f"is not JSON: {error}", f"{path}:{_line(text, at)}") from error

    def after_space(at: int) -> int:
        return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches the empty string

    at = after_space(0)
    if text[at : at + 1] != "[":
        only, at = value(at)
        yield only
    else:
        at = after_space(at + 1)
        more = text[at : at + 1] != "]"
        while more:
            entry, at = value(at)
            yield entry
            at = after_space(at)
            more = text[at : at + 1] == ","
            if more:
                at = after_space(at + 1)
            elif text[at : at + 1] != "]":
                raise UserError("is not JSON: expecting ',' or ']'", f"{path}:{_line(text, at)}")
        at += 1
    if after_space(at) != len(text):
        raise UserError("is not JSON: extra data", f"{path}:{_line(text, at)}")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
