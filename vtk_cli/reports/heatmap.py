"""A square matrix as a heat map, in the order of its tree, with the tree beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray
from scipy.cluster.hierarchy import dendrogram

from vtk_cli.reports.plots import (
    INK,
    SOFT,
    Picture,
    axes_in_inches,
    group_styles,
    literal,
    save,
    style,
    write_titles,
)

MOST_PRINTED = 12
"""Up to so many rows the values are printed in the cells."""
_SMOOTH_ABOVE = 40
"""Above so many rows the cells become one image in the SVG: thousands of squares make it slow to open."""

_OWN = "#64717e"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SecondScale:
    """Another unit for the colour bar, marked along its upper side.

    Args:
        label: of the unit.
        marks: where to mark, in the matrix's unit, and what to write there; those outside the colours are left out.
    """

    label: str
    marks: Mapping[float, str]


def draw_heatmap(
    path: Path,
    matrix: Floats,
    names: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
    value_label: str = "",
    linkage: Floats | None = None,
    groups: Sequence[str] | None = None,
    second_scale: SecondScale | None = None,
) -> Picture:
    """Draw an (N, N) matrix; colours span the values off the diagonal, NaN is light grey.

    The diagonal (a thing compared with itself) usually lies far outside that span and is drawn in slate.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        matrix: (N, N), N >= 2.
        names: N.
        title, subtitle: one line each.
        value_label: of the colour bar.
        linkage: (N - 1, 4) as scipy's `linkage` gives it; rows and columns are drawn in its order and the tree beside
            them. None keeps the order given.
        groups: N, drawn as a strip of colours with a legend.
        second_scale: another unit for the colour bar.
    """
    order = list(range(len(names)))
    with style():
        figure, cells = _figure(names)
        if linkage is not None:
            order = _draw_tree(figure, cells, linkage)
        shown, labels = matrix[np.ix_(order, order)], [literal(names[i]) for i in order]
        colours, scale = _colours(shown)
        _draw_cells(cells, shown, labels, colours, scale)
        _draw_colour_bar(cells, ScalarMappable(scale, colours), value_label, second_scale)
        if groups is not None:
            _draw_groups(figure, cells, groups, order)
        write_titles(cells, literal(title), literal(subtitle), above=0.95, left=-_TREE if linkage is not None else 0.0)
        return save(figure, path)


_TREE = 1.25  # inches from the left edge of the tree to the cells


def _figure(names: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure whose cells are large enough to read: the side grows with N, from 3 inches to what 69 names need."""
    side = float(np.clip(0.45 * len(names), 3.0, max(5.5, 0.155 * len(names))))
    figure = Figure(figsize=(side + 5.0, side + 5.0))
    return figure, axes_in_inches(figure, 2.0, 3.0, side, side)


def _side(figure: Figure, axes: Axes) -> tuple[float, float, float]:
    """Left, bottom and side of the square axes, in inches."""
    box = axes.get_position()
    across, up = figure.get_size_inches()
    return box.x0 * across, box.y0 * up, box.width * across


def _draw_tree(figure: Figure, cells: Axes, linkage: Floats) -> list[int]:
    left, bottom, side = _side(figure, cells)
    drawn = dendrogram(linkage, no_plot=True)
    count = len(linkage) + 1
    axes = axes_in_inches(figure, left - _TREE, bottom, _TREE - 0.22, side)
    # scipy puts leaf k at 10 k + 5 and heights on the other axis; here leaves run downward like the rows.
    lines = [
        np.column_stack([heights, np.asarray(places) / 10.0])
        for places, heights in zip(drawn["icoord"], drawn["dcoord"], strict=True)
    ]
    axes.add_collection(LineCollection(lines, colors=SOFT, linewidths=1.0 if count <= 30 else 0.8, capstyle="round"))
    tallest = float(linkage[:, 2].max())
    axes.set_xlim(tallest * 1.03 if tallest > 0.0 else 1.0, 0.0)
    axes.set_ylim(count, 0.0)
    axes.axis("off")
    return [int(leaf) for leaf in drawn["leaves"]]


def _colours(matrix: Floats) -> tuple[Colormap, Normalize]:
    """Light to dark blue, even steps to the eye with and without red-green vision, over the range off the diagonal."""
    colours = mpl.colormaps["YlGnBu"].with_extremes(bad="#e4e7ea", over=_OWN)
    values = matrix[~np.eye(len(matrix), dtype=np.bool_)]
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return colours, Normalize(0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    return colours, Normalize(low, high) if high > low else Normalize(low - 0.5, high + 0.5)


def _draw_cells(axes: Axes, matrix: Floats, names: Sequence[str], colours: Colormap, scale: Normalize) -> None:
    count = len(names)
    coloured = matrix.copy()
    np.fill_diagonal(coloured, cast("float", scale.vmax) + 1.0)  # beyond the colours, so drawn in the colour for that
    axes.pcolormesh(
        np.ma.masked_invalid(coloured),
        cmap=colours,
        norm=scale,
        edgecolors="white",
        linewidth=1.5 if count <= MOST_PRINTED else 14.0 / count,
        rasterized=count > _SMOOTH_ABOVE,
    )
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    middle = np.arange(count) + 0.5
    size = float(np.clip(10.5 - 0.055 * count, 6.6, 9.5))
    axes.set_xticks(middle, names, rotation=90 if count > 4 or max(map(len, names)) > 9 else 0, fontsize=size)
    axes.set_yticks(middle, names, fontsize=size)
    axes.yaxis.tick_right()
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)
    if count <= MOST_PRINTED:
        for (row, column), value in np.ndenumerate(matrix):
            text = f"{value:.2f}" if np.isfinite(value) else "none"
            ink = _readable_on(colours(scale(coloured[row, column])))
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontsize=8.5)


def _readable_on(colour: tuple[float, float, float, float]) -> str:
    """White or ink, whichever contrasts more (relative luminance as in WCAG 2.2)."""
    channels = np.array(colour[:3])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "white" if float(linear @ [0.2126, 0.7152, 0.0722]) < 0.22 else INK


def _draw_colour_bar(cells: Axes, mappable: ScalarMappable, label: str, second: SecondScale | None) -> None:
    figure = cast("Figure", cells.figure)
    left, bottom, side = _side(figure, cells)
    width = min(side, 4.0)
    axes = axes_in_inches(figure, left + side - width, bottom + side + 0.42, width, 0.12)
    figure.colorbar(mappable, cax=axes, orientation="horizontal").outline.set_visible(False)
    axes.tick_params(length=2, pad=2, labelsize=7.5)
    axes.annotate(
        label, (0.0, 0.0), (-6, -11), xycoords="axes fraction", textcoords="offset points", ha="right", fontsize=8
    )
    if second is None:
        return
    above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    low, high = axes.get_xlim()
    for at, text in second.marks.items():
        if low <= at <= high:
            axes.plot(
                [at, at], [1.0, 1.22], color=SOFT, linewidth=0.8, transform=axes.get_xaxis_transform(), clip_on=False
            )
            axes.annotate(text, (at, 1.0), (0, 4), ha="center", fontsize=7.5, **above)
    axes.annotate(second.label, (0.0, 1.0), (-6, 4), ha="right", fontsize=8, **{**above, "xycoords": "axes fraction"})


def _draw_groups(figure: Figure, cells: Axes, groups: Sequence[str], order: Sequence[int]) -> None:
    """A strip of the groups' colours left of the rows, and what they mean below the tree."""
    left, bottom, side = _side(figure, cells)
    styles = group_styles(groups)
    axes = axes_in_inches(figure, left - 0.17, bottom, 0.11, side)
    rows = np.arange(len(groups)) + 0.5
    axes.barh(rows, 1.0, height=1.0, color=[styles[groups[i]][0] for i in order], edgecolor="white", linewidth=0.4)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(groups), 0)
    axes.axis("off")
    axes.legend(
        handles=[Patch(color=colour, label=literal(group)) for group, (colour, _) in styles.items()],
        loc="upper right",
        bbox_to_anchor=(0.0, 0.0),
        fontsize=8,
        handlelength=0.9,
        handleheight=0.9,
        borderaxespad=0.0,
        bbox_transform=axes.transAxes + ScaledTranslation(0.06, -0.08, figure.dpi_scale_trans),
    )
