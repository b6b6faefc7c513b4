"""Networks of layers in a row, drawn a stage a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vtk_cli.reports.plots import FAINT, SOFT
from vtk_cli.search.sketching import Sheet, colour_of

_LINE = 0.92
_LEFT = 1.9
_STEP = 1.16


@dataclass(frozen=True)
class Block:
    """A layer.

    Args:
        number: of its gene.
        name: of its choice; the first line tells its kind.
        kernel: side of its kernel, which the box's height shows.
        absent: whether the layer is left out.
    """

    number: int
    name: str
    kernel: int
    absent: bool = False


@dataclass(frozen=True)
class Row:
    """A stage, or what is before or after the layers.

    Args:
        title: what it is.
        detail: its channels and side.
        blocks: its layers; none where it is fixed.
    """

    title: str
    detail: str
    blocks: tuple[Block, ...] = ()


def rows_height(rows: Sequence[Row]) -> float:
    """What `draw_rows` takes, in inches."""
    return sum(_height(row) for row in rows) + 0.1


def rows_width(rows: Sequence[Row]) -> float:
    """What `draw_rows` takes, in inches."""
    return _LEFT + _STEP * max(len(row.blocks) for row in rows)


def draw_rows(sheet: Sheet, rows: Sequence[Row], top: float, width: float) -> None:
    """Draw stages from `top` inches downwards."""
    upper = top
    for number, row in enumerate(rows):
        middle = upper - _height(row) / 2.0
        if number:
            sheet.line((0.0, upper), (width, upper), colour=FAINT, width=0.6)
        sheet.words((0.0, middle + 0.09), row.title, bold=True, points=9.0)
        sheet.words((0.0, middle - 0.11), row.detail, colour=SOFT, points=8.0)
        for place, block in enumerate(row.blocks):
            x = _LEFT + _STEP * (place + 0.5)
            if place:
                sheet.arrow((x - _STEP / 2.0 - 0.09, middle), (x - _STEP / 2.0 + 0.09, middle))
            size = (_STEP - 0.18, 0.38 + 0.04 * block.kernel)
            colour = SOFT if block.absent else colour_of(block.name)
            sheet.box((x, middle), size, block.name, colour, dashed=block.absent, points=7.5)
            sheet.words((x - size[0] / 2.0, middle + 0.39), str(block.number), colour=SOFT, points=6.5)
        upper -= _height(row)


def _height(row: Row) -> float:
    return _LINE if row.blocks else 0.5
