"""The report of a run as one HTML file: no script, no network, nothing beside it; light and dark, desk and phone."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import jinja2

from vtk_cli.errors import UserError
from vtk_cli.files import write_text
from vtk_cli.reports.plain_names import printable_lines

_TYPES: Mapping[str, str] = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Text:
    """A paragraph. `tone` sets warnings and good news apart from plain text."""

    text: str
    tone: Literal["plain", "warning", "good"] = "plain"


@dataclass(frozen=True)
class Table:
    """A table; columns in which every filled cell is a number are aligned right.

    Args:
        columns: the headings.
        rows: as many cells each; numbers are shown as they are, so round them first.
        caption: above it, or empty.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {index + 1} has {len(row)} cells for {len(self.columns)} columns")

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        columns = [[row[index] for row in self.rows] for index in range(len(self.columns))]
        return [
            any(_is_number(cell) for cell in column) and all(_is_number(cell) or _is_empty(cell) for cell in column)
            for column in columns
        ]


@dataclass(frozen=True)
class Image:
    """A picture (.png, .svg or .jpg), carried inside the page.

    Args:
        path: of the file.
        alt: what it shows, for those who do not see it.
        caption: below it, or empty.
    """

    path: Path
    alt: str
    caption: str = ""

    @property
    def data(self) -> str:
        """The file as a data URI.

        Raises:
            UserError: the file is missing or of another type.
        """
        kind = _TYPES.get(self.path.suffix.lower())
        if kind is None:
            raise UserError("is no picture a page can hold", str(self.path), f"give one of {', '.join(_TYPES)}")
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"the picture cannot be read ({error.strerror})", str(self.path)) from error
        return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    heading: str
    parts: Sequence[Text | Table | Image]


@dataclass(frozen=True)
class Page:
    """A report.

    Args:
        title: what was measured.
        subtitle: one sentence: on what, when.
        summary: the headline numbers, name to value, shown large above everything else.
        sections: from the most to the least important.
        footer: how to make it again: command, versions.
    """

    title: str
    subtitle: str = ""
    summary: Mapping[str, object] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    footer: str = ""


def render_page(page: Page) -> str:
    """The HTML of `page`; every text in it is escaped."""
    return _template().render(page=page)


def write_page(path: Path, page: Page) -> None:
    """Write `page` as one HTML file, atomically."""
    write_text(path, render_page(page))


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable_lines(value) if type(value) is str else value,
    )
    environment.tests |= {
        "text": lambda part: isinstance(part, Text),
        "table": lambda part: isinstance(part, Table),
    }
    return environment.get_template("page.html")


def _is_number(cell: object) -> bool:
    try:
        float(str(cell).strip().removesuffix("%"))
    except ValueError:
        return False
    return True


def _is_empty(cell: object) -> bool:
    return cell is None or str(cell).strip() in {"", "-"}
