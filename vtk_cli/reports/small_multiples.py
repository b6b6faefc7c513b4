"""Many quantities along one axis, each in a small panel of its own: a run's curves, or those of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vtk_cli.reports.plots import (
    PALETTE,
    SOFT,
    Picture,
    axes_in_inches,
    literal,
    save,
    shortened,
    style,
    write_titles,
)

Floats = NDArray[np.float64]

_ACROSS = 3
_WIDTH, _HEIGHT = 2.7, 1.45  # inches of a panel
_BESIDE, _ABOVE = 0.75, 0.62  # inches between panels
_FEW = 30  # points of a line up to which each is marked
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))


@dataclass(frozen=True)
class Line:
    """One thing's values.

    Args:
        name: the same in every panel; it gives the colour.
        x, y: (P,) each; NaN in y is a gap.
    """

    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Small:
    """One quantity: its name, and a line for each thing that has it."""

    title: str
    lines: Sequence[Line]


def draw_small_multiples(path: Path, panels: Sequence[Small], *, x_label: str, title: str) -> Picture:
    """Draw a grid of panels, three in a row; where there are several names, they are told on top.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        panels: from left to right, from top to bottom.
        x_label: of every panel, with units.
        title: one line.

    Raises:
        ValueError: there is no panel, or there are more than 10 names.
    """
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    if not panels or not 1 <= len(names) <= len(PALETTE):
        raise ValueError(f"{len(panels)} panels of {len(names)} names: draw at least one, and of at most 10 names")
    down = -(-len(panels) // _ACROSS)
    across = min(len(panels), _ACROSS)
    legend = 0.3 * -(-len(names) // 2) if len(names) > 1 else 0.0
    with style():
        wide = 0.6 + across * (_WIDTH + _BESIDE)
        high = 0.5 + down * (_HEIGHT + _ABOVE) + legend + 0.6
        figure = Figure(figsize=(wide, high))
        first: Axes | None = None
        for index, panel in enumerate(panels):
            row, column = divmod(index, _ACROSS)
            left = 0.6 + column * (_WIDTH + _BESIDE)
            axes = axes_in_inches(figure, left, 0.5 + (down - 1 - row) * (_HEIGHT + _ABOVE), _WIDTH, _HEIGHT)
            first = first or axes
            _draw(axes, panel, names)
            if index + _ACROSS >= len(panels):
                axes.set_xlabel(x_label)
        assert first is not None  # there is a panel  # noqa: S101
        write_titles(first, literal(title), above=0.42 + legend)
        if len(names) > 1:
            _tell(figure, names, at=(0.6 / wide, (0.5 + down * (_HEIGHT + _ABOVE) - _ABOVE + 0.32 + legend) / high))
        return save(figure, path)


def _draw(axes: Axes, panel: Small, names: Sequence[str]) -> None:
    for line in panel.lines:
        which = names.index(line.name)
        axes.plot(
            line.x, line.y, color=PALETTE[which], linestyle=_DASHES[which % len(_DASHES)], linewidth=1.5,
            marker="o" if len(line.x) <= _FEW else "", markersize=2.8,
        )  # fmt: skip
    axes.set_title(shortened(panel.title, 40), loc="left", fontsize=9.0, color=SOFT, pad=5)
    axes.grid(visible=True, axis="y")
    axes.tick_params(length=3, labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def _tell(figure: Figure, names: Sequence[str], at: tuple[float, float]) -> None:
    axes = figure.axes[0]
    handles = [
        axes.plot([], [], color=PALETTE[which], linestyle=_DASHES[which % len(_DASHES)], linewidth=1.8)[0]
        for which in range(len(names))
    ]
    figure.legend(
        handles, [shortened(name, 48) for name in names], loc="upper left", bbox_to_anchor=at, ncols=2,
        borderaxespad=0.0, handlelength=2.4,
    )  # fmt: skip
