"""Measurements over several seeds: every seed is shown, and their mean.

`draw_curves` is for something that varies along a number (steps, images, epsilon), `draw_points` for things that have
only names (methods, datasets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from vtk_cli.reports.plots import (
    FAINT,
    INK,
    MARKERS,
    PALETTE,
    SOFT,
    Picture,
    axes_in_inches,
    literal,
    save,
    style,
    write_titles,
)

Floats = NDArray[np.float64]

_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
_MOST_CURVES = len(PALETTE)


@dataclass(frozen=True)
class Curve:
    """One method along a number.

    Args:
        name: for the legend.
        x: (P,) increasing.
        y: (P, seeds), or (P,) where there is one seed; NaN = not measured.
    """

    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class Points:
    """One named thing.

    Args:
        name: its row.
        values: (seeds,).
        ours: drawn in the accent colour; the others are what it is compared with.
    """

    name: str
    values: Floats
    ours: bool = False


def draw_curves(
    path: Path,
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_label: str,
    subtitle: str = "",
    log_x: bool = False,
    target: float | None = None,
) -> Picture:
    """Draw each curve's mean as a line, its seeds as small points, and the range between them as a band.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        curves: up to 10.
        title, subtitle: one line each.
        x_label, y_label: with units.
        log_x: space the measured x by their ratios.
        target: a horizontal line to reach.

    Raises:
        ValueError: there are more than 10 curves, or none.
    """
    if not 1 <= len(curves) <= _MOST_CURVES:
        raise ValueError(f"{len(curves)} curves: draw 1 to {_MOST_CURVES}")
    with style():
        figure = Figure(figsize=(9.0, 5.0))
        axes = axes_in_inches(figure, 0.8, 0.7, 6.0, 3.6)
        for index, curve in enumerate(curves):
            _draw_curve(axes, curve, index)
        if log_x:
            axes.set_xscale("log")
            axes.set_xticks(sorted({float(x) for curve in curves for x in curve.x}))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        elif all(float(x).is_integer() for curve in curves for x in curve.x):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # there is no epoch 2.5
        if target is not None:
            axes.axhline(target, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label="target", zorder=1)
        axes.set_xlabel(x_label)
        axes.grid(visible=True, axis="y")
        axes.tick_params(length=3)
        if len(curves) > 1 or target is not None:
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, handlelength=2.6)
        write_titles(axes, literal(title), literal(f"{subtitle} · {y_label}" if subtitle else y_label))
        return save(figure, path)


def draw_points(
    path: Path,
    rows: Sequence[Points],
    *,
    title: str,
    x_label: str,
    subtitle: str = "",
    target: float | None = None,
) -> Picture:
    """Draw a row for each named thing: its seeds as points, its mean as a bar across with the number beside it.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        rows: from top to bottom.
        title, subtitle: one line each.
        x_label: with units.
        target: a vertical line to reach.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("0 rows: draw at least one")
    with style():
        height = 0.42 * len(rows) + 0.1
        figure = Figure(figsize=(9.0, height + 2.5))
        axes = axes_in_inches(figure, 2.0, 1.0, 5.0, height)
        for index, row in enumerate(rows):
            _draw_row(axes, row, index)
        if target is not None:
            axes.axvline(target, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
            place = axes.get_xaxis_transform()
            axes.annotate(
                "target",
                (target, 1.0),
                (0, 2),
                xycoords=place,
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=SOFT,
            )
        axes.set_yticks(range(len(rows)), [literal(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlabel(x_label)
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", length=3)
        axes.margins(x=0.08)
        figure.canvas.draw()
        _write_means(axes, rows)
        write_titles(axes, literal(title), literal(subtitle), above=0.25 if target is not None else 0.12)
        return save(figure, path)


def _draw_curve(axes: Axes, curve: Curve, index: int) -> None:
    colour, marker = PALETTE[index], MARKERS[index]
    seeds = curve.y.reshape(len(curve.x), -1)
    measured = np.isfinite(seeds).any(axis=1)
    x, seeds = curve.x[measured], seeds[measured]
    axes.plot(
        x,
        np.nanmean(seeds, axis=1),
        color=colour,
        marker=marker,
        linestyle=_DASHES[index % len(_DASHES)],
        linewidth=1.8,
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.8,
        label=literal(curve.name),
        zorder=3,
    )
    if seeds.shape[1] > 1:
        axes.fill_between(
            x, np.nanmin(seeds, axis=1), np.nanmax(seeds, axis=1), color=colour, alpha=0.13, linewidth=0, zorder=1
        )
        axes.plot(
            np.repeat(x, seeds.shape[1]),
            seeds.ravel(),
            color=colour,
            marker=marker,
            linestyle="",
            markersize=2.6,
            alpha=0.65,
            markeredgewidth=0,
            zorder=2,
        )


def _draw_row(axes: Axes, row: Points, index: int) -> None:
    colour = PALETTE[0] if row.ours else SOFT
    axes.plot([row.values.min(), row.values.max()], [index, index], color=FAINT, linewidth=3.2, zorder=1)
    axes.plot(
        row.values,
        np.full(len(row.values), index),
        color=colour,
        marker="o",
        linestyle="",
        markersize=6.5,
        alpha=0.75,
        markeredgecolor="white",
        markeredgewidth=0.7,
        zorder=3,
    )
    mean = float(row.values.mean())
    axes.plot([mean, mean], [index - 0.26, index + 0.26], color=colour, linewidth=2.4, zorder=4)


def _write_means(axes: Axes, rows: Sequence[Points]) -> None:
    """The mean at the right end of its row, in as many digits as tell the rows apart at the axis' scale."""
    low, high = axes.get_xlim()
    digits = int(np.clip(2 - np.floor(np.log10(high - low)), 0, 6))
    for index, row in enumerate(rows):
        axes.annotate(
            f"{float(row.values.mean()):.{digits}f}",
            (1.0, index),
            (8, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontweight="bold" if row.ours else "normal",
            color=PALETTE[0] if row.ours else INK,
        )
    axes.annotate(
        "mean",
        (1.0, -0.55),
        (8, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="bottom",
        fontsize=8,
        color=SOFT,
    )
