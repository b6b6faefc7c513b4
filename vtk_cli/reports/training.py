"""A training by its epochs, from `metrics.jsonl`: a panel a quantity, one above another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vtk_cli.reports.plots import PALETTE, SOFT, Picture, axes_in_inches, literal, save, style, write_titles

Row = Mapping[str, float | None]
_WIDTH, _LEFT = 6.4, 0.9  # inches
_FEW = 40  # points along a line up to which each is marked


@dataclass(frozen=True)
class Panel:
    """One quantity along the epochs.

    Args:
        title: above it, with units.
        lines: key in the rows -> name.
        best: whether the highest (1) or the lowest (-1) value is the one to look for; 0: neither is marked.
        factor: from the rows' unit to the shown one.
    """

    title: str
    lines: Mapping[str, str]
    best: int = 0
    factor: float = 1.0


def draw_training(
    path: Path, rows: Sequence[Row], panels: Sequence[Panel], *, title: str, subtitle: str = ""
) -> Picture:
    """Draw what the rows of a training hold; a panel that they have nothing for is left out.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        rows: of `metrics.jsonl`; those of single updates (without `epoch`) are passed over. null is a gap.
        panels: from top to bottom.
        title, subtitle: one line each.

    Raises:
        ValueError: no row has an epoch.
    """
    epochs = [row for row in rows if row.get("epoch") is not None]
    if not epochs:
        raise ValueError("no epoch has ended: there is nothing to draw")
    shown = [panel for panel in panels if any(_values(epochs, key).any() for key in panel.lines)]
    height, gap = 1.75, 0.62
    with style():
        figure = Figure(figsize=(_LEFT + _WIDTH + 2.2, 0.9 + len(shown) * (height + gap) + 0.7))
        for index, panel in enumerate(shown):
            bottom = 0.7 + (len(shown) - 1 - index) * (height + gap)
            axes = axes_in_inches(figure, _LEFT, bottom, _WIDTH, height)
            _draw_panel(axes, panel, epochs)
            if index == 0:
                write_titles(axes, literal(title), literal(subtitle), above=0.42)
            if index == len(shown) - 1:
                axes.set_xlabel("epoch")
            else:
                axes.tick_params(labelbottom=False)
        return save(figure, path)


def _values(rows: Sequence[Row], key: str) -> NDArray[np.bool_]:
    """(rows,) where the rows hold a value of `key`."""
    return np.array([row.get(key) is not None for row in rows])


def _draw_panel(axes: Axes, panel: Panel, rows: Sequence[Row]) -> None:
    drawn = 0
    for key, name in panel.lines.items():
        held = _values(rows, key)
        if not held.any():
            continue
        colour = (PALETTE[0], PALETTE[5], PALETTE[2])[drawn]
        x = np.array([float(row["epoch"] or 0.0) for row in rows])
        y = np.array([panel.factor * float(row[key] or 0.0) if row.get(key) is not None else np.nan for row in rows])
        is_sparse = held.sum() < len(rows)  # measured every few epochs: the gaps are not missing values
        x, y = (x[held], y[held]) if is_sparse and key != "loss" else (x, y)
        dashes = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))[drawn]
        label = name
        if panel.best:
            best = int(np.nanargmax(panel.best * y))
            label = f"{name}: {y[best]:.1f} at best"
            axes.plot(x[best], y[best], marker="o", markersize=6.5, color="white", markeredgecolor=colour, zorder=4)
        axes.plot(
            x, y, color=colour, linewidth=1.7, linestyle=dashes, label=label, zorder=3,
            marker="o" if len(x) <= _FEW else "", markersize=3.2,
        )  # fmt: skip
        drawn += 1
    axes.set_title(panel.title, loc="left", fontsize=9.0, color=SOFT, pad=5)
    axes.grid(visible=True, axis="y")
    axes.tick_params(length=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    last = max(float(row["epoch"] or 0.0) for row in rows)
    axes.set_xlim(0.0, last * 1.02 if last > 1 else 2.0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if drawn > 1 or panel.best:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, handlelength=2.2)
