"""Puts what a family made between its marks of a Markdown file."""

from __future__ import annotations

import re
from pathlib import Path

from vtk_cli.errors import UserError
from vtk_cli.files import write_text


def insert_in(file: Path, name: str, text: str) -> None:
    """Put `text` between `<!-- NAME -->` and `<!-- end -->`, NAME being `proof similarity` or `bench kernels cpu`.

    Raises:
        UserError: the file has no such marks, or cannot be read.
    """
    marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    try:
        before = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError("cannot be read", str(file), str(error)) from error
    if not marks.search(before):
        raise UserError(f"has no marks for {name}", str(file), f"add the lines <!-- {name} --> and <!-- end -->")
    write_text(file, marks.sub(lambda match: f"{match[1]}{text}{match[2]}", before))
