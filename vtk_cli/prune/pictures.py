"""Pictures of searches: samples row by row, and the distance against how much is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vtk_cli.reports.plots import (
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

_TILE, _LABEL = 0.5, 2.6  # inches
_GAP = 16
"""Of a side, the part that is left white between two samples."""
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.2, 1.2, 1.2)))


@dataclass(frozen=True, eq=False)
class Shown:
    """A row of samples.

    Args:
        name: before it.
        images: uint8 (N, 1 or 3, R, R), or a picture of a row of them (H, W, 3).
    """

    name: str
    images: Tensor | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Curve:
    """One way along the fractions kept.

    Args:
        name: for the legend.
        keeps: (P,) fractions, rising.
        distances: (P, seeds).
    """

    name: str
    keeps: Sequence[float]
    distances: NDArray[np.float64]


def draw_rows(path: Path, rows: Sequence[Shown], *, title: str, subtitle: str = "") -> Picture:
    """Rows of samples, their names at the left.

    Args:
        path: where to, without a suffix.
        rows: from top to bottom, at least one.
        title, subtitle: one line each.

    Raises:
        JobError, UserError: the disk is full, or the picture cannot be written there.
    """
    strips = [_strip(row.images) for row in rows]
    heights = [_TILE] * len(rows)
    widths = [_TILE * strip.shape[1] / strip.shape[0] for strip in strips]
    with style():
        height = sum(heights) + 0.06 * len(rows)
        figure = Figure(figsize=(_LABEL + max(widths) + 0.2, height + 0.7))
        top = height
        for index, (row, strip) in enumerate(zip(rows, strips, strict=True)):
            top -= heights[index] + 0.06
            axes = axes_in_inches(figure, _LABEL, top, widths[index], heights[index])
            axes.imshow(strip, interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            axes.annotate(
                literal(row.name), (0, 0.5), (-6, 0), xycoords="axes fraction", textcoords="offset points",
                ha="right", va="center", color=INK, annotation_clip=False,
            )  # fmt: skip
            if index == 0:
                write_titles(axes, literal(title), literal(subtitle), left=-_LABEL + 0.2)
        return save(figure, path)


def draw_sweep(
    path: Path,
    curves: Sequence[Curve],
    *,
    levels: Sequence[tuple[str, Sequence[float]]],
    title: str,
    subtitle: str,
    y_label: str,
) -> Picture:
    """The distance against the fraction of weights that is kept, both by their ratios.

    Args:
        path: where to, without a suffix.
        curves: each with its mean as a line and its seeds as points, up to 8.
        levels: (name, one value a seed): horizontal lines, the dense generator and the floor.
        title, subtitle: one line each.
        y_label: the distance.

    Raises:
        JobError, UserError: the disk is full, or the picture cannot be written there.
    """
    with style():
        figure = Figure(figsize=(9.4, 5.0))
        axes = axes_in_inches(figure, 0.8, 0.7, 5.6, 3.6)
        for index, curve in enumerate(curves):
            _draw_curve(axes, curve, index)
        for index, (name, values) in enumerate(levels):
            axes.axhline(
                float(np.mean(values)), color=INK if index == 0 else SOFT, linewidth=1.3,
                linestyle=_DASHES[1 + index % 3], label=literal(name), zorder=2,
            )  # fmt: skip
            if len(values) > 1:
                axes.axhspan(min(values), max(values), color=SOFT, alpha=0.12, linewidth=0, zorder=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({100 * keep for curve in curves for keep in curve.keeps})
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("weights kept, %")
        axes.grid(visible=True, axis="y", which="both")
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, handlelength=2.6)
        write_titles(axes, literal(title), literal(f"{subtitle} · {y_label}"))
        return save(figure, path)


def _draw_curve(axes: Axes, curve: Curve, index: int) -> None:
    x = 100 * np.array(curve.keeps)
    colour, marker = PALETTE[index], MARKERS[index]
    axes.plot(
        x, curve.distances.mean(axis=1), color=colour, marker=marker, linestyle=_DASHES[index % len(_DASHES)],
        linewidth=1.8, markersize=6, markeredgecolor="white", markeredgewidth=0.8, label=literal(curve.name), zorder=4,
    )  # fmt: skip
    seeds = curve.distances.shape[1]
    if seeds > 1:
        axes.plot(
            np.repeat(x, seeds), curve.distances.ravel(), color=colour, marker=marker, linestyle="", markersize=2.8,
            alpha=0.65, markeredgewidth=0, zorder=3,
        )  # fmt: skip


def _strip(images: Tensor | NDArray[np.uint8]) -> NDArray[np.uint8]:
    if isinstance(images, np.ndarray):
        return images
    side = images.shape[2]
    coloured = images.expand(-1, 3, -1, -1)
    apart = F.pad(coloured, (0, max(1, side // _GAP)), value=255)  # white at the right of each
    return apart.permute(2, 0, 3, 1).reshape(side, -1, 3).numpy()
