"""A page to label images on: one file, no network, by mouse or keyboard; it saves a CSV file."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import jinja2
from PIL import Image

from vtk_cli.adapt.ledger import MARKS
from vtk_cli.adapt.pool import Pool
from vtk_cli.files import write_text

LARGEST = 512
"""Pixels of the longer side of an image in the page."""
_SMALL = 128
"""Images up to this side are kept exact."""
_QUALITY = 88


class Shown(Protocol):
    """What the page shows of an image."""

    @property
    def sample_id(self) -> str:
        """Of the image."""

    @property
    def pred(self) -> str:
        """The model's guess, or empty."""

    @property
    def second(self) -> str:
        """Its second guess, or empty."""


def write_labelling_page(path: Path, title: str, rows: Sequence[Shown], class_names: Sequence[str], pool: Pool) -> None:
    """Write the page, atomically.

    Number keys choose one of the ten classes shown first, or, where every class is called by one digit, that one;
    typing `/` filters the classes. What was chosen is kept by the browser until the file is saved.

    Args:
        path: of the HTML file.
        title: above all.
        rows: the images in order.
        class_names: to choose from.
        pool: where the images are.

    Raises:
        BrokenImage: an image cannot be read.
    """
    items = [
        {"id": row.sample_id, "guess": row.pred, "second": row.second, "src": data_uri(pool.image(row.sample_id))}
        for row in rows
    ]
    key = hashlib.sha256("\n".join([title, *(row.sample_id for row in rows)]).encode()).hexdigest()[:20]
    page = {"title": title, "key": key, "items": items, "classes": list(class_names), "marks": list(MARKS)}
    write_text(path, _template().render(page=page))


def data_uri(image: Image.Image) -> str:
    """An image inside an address: small ones as PNG, larger ones as JPEG of at most `LARGEST` pixels."""
    small = max(image.size) <= _SMALL
    shown = image if small else image.copy()
    shown.thumbnail((LARGEST, LARGEST))
    out = io.BytesIO()
    if small:
        shown.save(out, "PNG")
    else:
        shown.save(out, "JPEG", quality=_QUALITY)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("labelling.html")
