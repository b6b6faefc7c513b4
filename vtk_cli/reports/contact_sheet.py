"""Many small images with their captions on one sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vtk_cli.files import atomic_path
from vtk_cli.reports.plain_names import printable
from vtk_cli.reports.plots import INK, SOFT

_GAP, _FRAME, _MARGIN = 14, 4, 24
_TITLE, _CAPTION = 22, 13


@dataclass(frozen=True)
class Tile:
    """One image of a sheet.

    Args:
        image: (H, W, 3) or (H, W) uint8, or a PIL image.
        caption: below it; line breaks are kept, what is too wide ends in an ellipsis.
        frame: a colour (`#D55E00`) to draw round it, or None.
    """

    image: NDArray[Any] | Image.Image
    caption: str = ""
    frame: str | None = None


def contact_sheet(tiles: Sequence[Tile], *, columns: int = 6, cell: int = 160, title: str = "") -> Image.Image:
    """Lay tiles out row by row.

    Each image is scaled to fit a square of `cell` pixels: small ones by a whole factor with their pixels kept square,
    large ones with Lanczos.

    Args:
        tiles: at least one.
        columns: at most so many a row.
        cell: pixels.
        title: above all, or empty.

    Returns:
        An RGB image on white.

    Raises:
        ValueError: there are no tiles, `columns` or `cell` is below 1, or an array is not uint8 of a fitting shape.
    """
    if not tiles or columns < 1 or cell < 1:
        raise ValueError(f"{len(tiles)} tiles in {columns} columns of {cell} pixels: each must be at least 1")
    columns, title = min(columns, len(tiles)), printable(title)
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    line = sum(_font(_CAPTION).getmetrics())
    heights = [cell + 2 * _FRAME + line * max(_lines(tile) for tile in row) + _GAP for row in rows]
    pitch = cell + 2 * _FRAME + _GAP
    head = _TITLE + 18 if title else 0
    width = max(columns * pitch - _GAP, int(_font(_TITLE, "bold").getlength(title)))
    sheet = Image.new("RGB", (width + 2 * _MARGIN, sum(heights) - _GAP + head + 2 * _MARGIN), "white")
    if title:
        ImageDraw.Draw(sheet).text((_MARGIN, _MARGIN - 4), title, fill=INK, font=_font(_TITLE, "bold"))
    top = _MARGIN + head
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _draw_tile(sheet, tile, (_MARGIN + column * pitch, top), cell)
        top += height
    return sheet


def write_contact_sheet(
    path: Path, tiles: Sequence[Tile], *, columns: int = 6, cell: int = 160, title: str = ""
) -> None:
    """Write `contact_sheet` as a PNG (or what the suffix of `path` says), atomically."""
    sheet = contact_sheet(tiles, columns=columns, cell=cell, title=title)
    with atomic_path(path) as temporary:
        sheet.save(temporary)


def _draw_tile(sheet: Image.Image, tile: Tile, corner: tuple[int, int], cell: int) -> None:
    (left, top), draw = corner, ImageDraw.Draw(sheet)
    image = _fitted(_pil(tile.image), cell)
    at = (left + _FRAME + (cell - image.width) // 2, top + _FRAME + (cell - image.height) // 2)
    if tile.frame is not None:
        box = (at[0] - _FRAME, at[1] - _FRAME, at[0] + image.width + _FRAME - 1, at[1] + image.height + _FRAME - 1)
        draw.rectangle(box, outline=tile.frame, width=_FRAME - 1)
    sheet.paste(image, at)
    line = sum(_font(_CAPTION).getmetrics())
    for index, text in enumerate(tile.caption.split("\n") if tile.caption else []):
        below = top + cell + 2 * _FRAME + 3 + index * line
        draw.text(
            (left + _FRAME, below),
            _shortened(printable(text), cell),
            fill=INK if index == 0 else SOFT,
            font=_font(_CAPTION),
        )


def _pil(image: NDArray[Any] | Image.Image) -> Image.Image:
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim not in {2, 3} or image.shape[2:] not in {(), (3,)}:
        raise ValueError(f"an image must be uint8 of shape (H, W, 3) or (H, W), got {image.dtype} {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image)).convert("RGB")


def _fitted(image: Image.Image, cell: int) -> Image.Image:
    width, height = image.size
    longer = max(width, height)
    if longer <= cell:
        return image.resize((width * (cell // longer), height * (cell // longer)), Image.Resampling.NEAREST)
    fitted = (max(1, round(width * cell / longer)), max(1, round(height * cell / longer)))
    return image.resize(fitted, Image.Resampling.LANCZOS)


def _lines(tile: Tile) -> int:
    return tile.caption.count("\n") + 1 if tile.caption else 0


def _shortened(text: str, width: int) -> str:
    font = _font(_CAPTION)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@cache
def _font(size: int, weight: str = "normal") -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so that captions look the same everywhere."""
    found = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
    return ImageFont.truetype(found, size)
