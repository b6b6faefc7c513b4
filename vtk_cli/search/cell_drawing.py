"""Cells as circuits: a node's output runs to the right, operations hang from it, and what they put out is summed.

No two lines cover each other and no line crosses a box, whatever the cell, so every picture can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from vtk_cli.reports.plots import PALETTE, SOFT
from vtk_cli.search.sketching import Sheet, colour_of

_RAIL = 0.8  # from one node's line to the next one's
_BOX = (1.16, 0.34)
_STEP = 1.26  # from one operation's middle to the next one's
_NODE = 0.16  # from the last operation to the middle of the node
_NEXT = -0.32  # from the node to the next node's operations: the first one's line keeps clear of the node
_LEFT = 0.75
_OUT = 0.5  # from the last node to the end of the lines
_HEAD = 0.35
_PART = 0.88  # from one part of the network to the next


@dataclass(frozen=True)
class Edge:
    """An operation of a cell.

    Args:
        source: the line it hangs from: first the inputs, then the nodes.
        operation: its name.
        note: more about it, or empty.
    """

    source: int
    operation: str
    note: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell to be drawn.

    Args:
        title: over it.
        inputs: what its inputs are called.
        nodes: the operations that each node sums.
        names: of the nodes.
        concatenated: whether all nodes side by side are its output; otherwise the last one is.
        output: what its output is called.
    """

    title: str
    inputs: tuple[str, ...]
    nodes: tuple[tuple[Edge, ...], ...]
    names: tuple[str, ...]
    concatenated: bool
    output: str


@dataclass(frozen=True)
class Stage:
    """A part of a network to be drawn.

    Args:
        letter: what it is, in a letter or a word.
        channels: of its output; 0 is not told.
        side: of its output's map; 0 is not told.
        accent: whether it halves the map.
    """

    letter: str
    channels: int = 0
    side: int = 0
    accent: bool = False


def cell_height(cell: Cell) -> float:
    """What `draw_cell` takes, in inches."""
    return _HEAD + _RAIL * (len(cell.inputs) + len(cell.nodes) - 1) + 0.35


def cell_width(cell: Cell) -> float:
    """What `draw_cell` takes at most, in inches."""
    nodes = sum(_span(len(edges)) + _NODE + _NEXT for edges in cell.nodes)
    return _LEFT + _NODE + nodes - _NEXT + _OUT + 1.1


def draw_cell(sheet: Sheet, cell: Cell, top: float) -> None:
    """Draw a cell whose upper edge is `top` inches from the sheet's lower edge."""
    first = top - _HEAD - 0.15
    sheet.words((0.0, top - 0.1), cell.title, points=10.0, bold=True)
    heights = [first - _RAIL * number for number in range(len(cell.inputs) + len(cell.nodes))]
    starts = [_LEFT] * len(cell.inputs)
    reach = [_LEFT + 0.1] * len(cell.inputs)
    x = _LEFT + _NODE
    for name, height in zip(cell.inputs, heights, strict=False):
        sheet.words((0.0, height), name)
    for number, edges in enumerate(cell.nodes):
        height = heights[len(cell.inputs) + number]
        node = _draw_node(sheet, edges, cell.names[number], (x, height), heights=heights, reach=reach)
        starts.append(node)
        reach.append(node)
        x = node + _NEXT
    end = starts[-1] + _OUT
    summed = range(len(cell.inputs), len(heights)) if cell.concatenated else [len(heights) - 1]
    for rail in summed:
        reach[rail] = end
    for start, height, stop in zip(starts, heights, reach, strict=True):
        if stop > start:
            sheet.line((start, height), (stop, height))
    lowest, highest = heights[-1], heights[summed[0]]
    if cell.concatenated:
        sheet.line((end, lowest), (end, highest), width=3.0)
    middle = (lowest + highest) / 2.0
    sheet.arrow((end, middle), (end + 0.4, middle))
    sheet.words((end + 0.47, middle), cell.output)


def _draw_node(
    sheet: Sheet,
    edges: Sequence[Edge],
    name: str,
    start: tuple[float, float],
    *,
    heights: Sequence[float],
    reach: list[float],
) -> float:
    """Draw a node and the operations that it sums; returns how far to the right it stands.

    Args:
        sheet: to draw on.
        edges: what the node sums.
        name: of the node.
        start: where its first operation begins, on the node's own line.
        heights: of all lines.
        reach: how far to the right each line is needed; is made to reach the operations.
    """
    left, own = start
    centres = [left + _BOX[0] / 2.0 + _STEP * number for number in range(len(edges))]
    for x, edge in zip(centres, edges, strict=True):
        source, middle = heights[edge.source], own + 0.36
        reach[edge.source] = max(reach[edge.source], x)
        text = f"{edge.operation}\n{edge.note}" if edge.note else edge.operation
        sheet.line((x, source), (x, own), (x + 0.01, own))
        sheet.dots([(x, source)])
        sheet.box((x, middle), _BOX, text, colour_of(edge.operation), points=7.5)
    node = left + _span(len(edges)) + _NODE
    if not centres:
        sheet.words((node - 0.22, own), "no input", colour=SOFT, across="right")
    else:
        sheet.arrow((centres[0], own), (node - 0.15, own))
    sheet.ring((node, own), name)
    return node


def _span(count: int) -> float:
    """How wide the operations of a node are; of a node without any, what keeps it clear of the one before."""
    return _BOX[0] + _STEP * (count - 1) if count else _BOX[0]


def draw_network(sheet: Sheet, stages: Sequence[Stage], title: str, top: float) -> None:
    """Draw the parts of a network in a row, equal ones as one; channels and side are told where they change."""
    sheet.words((0.0, top - 0.1), title, points=10.0, bold=True)
    told, y = (0, 0), top - 0.55
    for number, (stage, run) in enumerate(groupby(stages)):
        x, count = _PART * (number + 0.5) - 0.08, len(list(run))
        colour = PALETTE[1] if stage.accent else PALETTE[0] if len(stage.letter) == 1 else SOFT
        text = stage.letter if count == 1 else f"{count} x {stage.letter}"
        sheet.box((x, y), (_PART - 0.2, 0.34), text, colour)
        if number:
            sheet.arrow((x - _PART / 2.0 - 0.1, y), (x - _PART / 2.0 + 0.1, y))
        if stage.channels and (stage.channels, stage.side) != told:
            told = (stage.channels, stage.side)
            sheet.words((x, y - 0.4), f"{stage.channels}\n{stage.side}x{stage.side}", points=7.5, across="center")
