"""What is taken for what: a confusion matrix as a picture, and its most frequent mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from vtk_cli.reports.plots import FAINT, INK, Picture, axes_in_inches, literal, save, shortened, style, write_titles

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CELLS = 24
"""Of more classes the matrix shows those that are confused most."""


def most_confused(confusion: Ints, count: int) -> list[tuple[int, int, int]]:
    """Up to `count` pairs (class, taken for, how often), the most frequent first."""
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    rows, columns = np.nonzero(off)
    order = np.argsort(-off[rows, columns], kind="stable")[:count]
    return [(int(rows[i]), int(columns[i]), int(off[rows[i], columns[i]])) for i in order]


def draw_confusion(path: Path, confusion: Ints, names: Sequence[str], *, title: str, subtitle: str = "") -> Picture:
    """Draw what is taken for what: each row is a class, and its cells say where its samples went, in percent.

    Mistakes are coloured by their share of the row; the diagonal (right answers) is slate, since next to it no mistake
    would show. Of more than `MOST_CELLS` classes those are kept that are confused most.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        confusion: (C, C), how often the row's class was taken for the column's.
        names: C.
        title, subtitle: one line each.
    """
    counts = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(100.0 * confusion, counts, out=np.full(confusion.shape, np.nan), where=counts > 0)
    if len(names) > MOST_CELLS:
        kept = _most_involved(confusion, MOST_CELLS)
        shares, names = shares[np.ix_(kept, kept)], [names[index] for index in kept]
        part = f"the {MOST_CELLS} of {len(confusion)} classes that are confused most"
        subtitle = f"{subtitle} · {part}" if subtitle else part
    count = len(names)
    with style():
        side = float(np.clip(0.45 * count, 3.0, 7.5))
        figure = Figure(figsize=(side + 4.5, side + 3.5))
        axes = axes_in_inches(figure, 2.2, 2.2, side, side)
        _draw_cells(axes, shares)
        middle = np.arange(count) + 0.5
        shown = [shortened(name) for name in names]
        size = 9.0 if count <= 12 else 7.5
        axes.set_xticks(middle, shown, rotation=90 if max(map(len, shown)) > 3 else 0, fontsize=size)
        axes.set_yticks(middle, shown, fontsize=size)
        axes.set_xlabel("answer")
        axes.set_ylabel("class")
        write_titles(axes, literal(title), literal(f"{subtitle} · % of the row" if subtitle else "% of the row"))
        return save(figure, path)


def _draw_cells(axes: Axes, shares: Floats) -> None:
    count = len(shares)
    wrong = shares.copy()
    np.fill_diagonal(wrong, np.nan)
    colours: Any = mpl.colormaps["OrRd"].with_extremes(bad=FAINT)
    largest = float(np.nanmax(wrong)) if np.isfinite(wrong).any() else 0.0
    axes.pcolormesh(
        np.ma.masked_invalid(wrong), cmap=colours, vmin=0.0, vmax=max(largest, 1e-9), edgecolors="white", linewidth=1.0
    )
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    size = 8.0 if count <= 12 else 6.0
    for (row, column), value in np.ndenumerate(shares):
        if row == column and np.isfinite(value):
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor="#64717e", edgecolor="white", zorder=2))
        if np.isfinite(value) and (value >= 0.05 or row == column):
            is_dark = row == column or value > 0.6 * largest
            text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size,
                color="white" if is_dark else INK, zorder=3,
            )  # fmt: skip


def _most_involved(confusion: Ints, count: int) -> list[int]:
    """`count` classes, in their own order: of the most frequent mistakes both classes, until there are enough."""
    kept: dict[int, None] = {}
    for row, column, _ in most_confused(confusion, count * count):
        kept |= {row: None, column: None}
    kept |= dict.fromkeys(range(len(confusion)))  # where there are fewer mistakes
    return sorted([*kept][:count])
