"""Named points on a plane, coloured and shaped by group, each name where it covers no other if there is room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vtk_cli.reports.plots import (
    FAINT,
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

Floats = NDArray[np.float64]

_ANGLES = np.deg2rad([0, 180, 90, 270, 30, 150, 210, 330, 60, 120, 240, 300])
_DISTANCES = (6.0, 10.0, 16.0, 24.0, 34.0, 46.0)  # points (1/72 inch) from the marker's centre to the name's box
_LEADER_FROM = 14.0
_MARKER = 7.0  # points


def draw_scatter(
    path: Path,
    points: Floats,
    names: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
    groups: Sequence[str] | None = None,
) -> Picture:
    """Draw N named points. The axes have equal scales and no numbers: only the arrangement means something.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        points: (N, 2).
        names: N, written beside their points.
        title, subtitle: one line each.
        groups: N; a colour and a marker each, explained in a legend.
    """
    with style():
        figure, axes = _figure(points)
        of = list(groups) if groups is not None else [""] * len(names)
        styles = group_styles(of)
        for group, (colour, marker) in styles.items():
            across, up = points[[name == group for name in of]].T
            axes.scatter(
                across, up, s=_MARKER**2, c=colour, marker=marker, edgecolors="white", linewidths=0.7, zorder=3
            )
        _write_names(figure, axes, points, [*map(literal, names)])
        if groups is not None:
            _draw_legend(axes, styles)
        write_titles(axes, literal(title), literal(subtitle))
        return save(figure, path)


def _figure(points: Floats) -> tuple[Figure, Axes]:
    """A frame of the points' own proportions (within reason), larger the more points there are, with room for names."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.maximum(high - low, 1e-9 + 0.02 * float((high - low).max())) * [1.3, 1.14]
    proportion = float(np.clip(room[0] / room[1], 0.8, 1.7))
    side = float(np.clip(3.2 + 0.1 * len(points), 4.5, 9.5))
    width, height = side * proportion**0.5, side / proportion**0.5
    figure = Figure(figsize=(width + 3.0, height + 2.0))
    FigureCanvasAgg(figure)
    axes = axes_in_inches(figure, 0.5, 0.5, width, height)
    half = max(room[0] / width, room[1] / height) * np.array([width, height]) / 2.0  # one scale on both axes
    centre = (low + high) / 2.0
    axes.set_xlim(centre[0] - half[0], centre[0] + half[0])
    axes.set_ylim(centre[1] - half[1], centre[1] + half[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(FAINT)
    return figure, axes


def _draw_legend(axes: Axes, styles: Mapping[str, tuple[str, str]]) -> None:
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            linestyle="",
            markersize=_MARKER,
            markeredgecolor="white",
            label=literal(name),
        )
        for name, (colour, marker) in styles.items()
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, handletextpad=0.3)


def place_names(centres: Floats, extents: Floats, frame: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Where to write each point's name so that it covers little else; all in units of 1/72 inch.

    Names are placed one by one, those with the least room first. Each tries places round its point, near ones before
    far ones, and takes the one that overlaps markers, names already placed and the outside of the frame the least.

    Args:
        centres: (N, 2) the points.
        extents: (N, 2) width and height of the names.
        frame: (4,) left, bottom, right, top.

    Returns:
        (N, 4) boxes as left, bottom, right, top; and (N,) whether a name is so far off that a line should lead to it.
    """
    markers = np.hstack([centres - _MARKER / 2.0, centres + _MARKER / 2.0])
    placed, far = np.zeros((len(centres), 4)), np.zeros(len(centres), dtype=np.bool_)
    order = np.argsort(-_crowding(centres))
    for rank, index in enumerate(order):
        boxes, distances = _places(centres[index], extents[index])
        others = np.vstack([np.delete(markers, index, axis=0), placed[order[:rank]]])
        outside = boxes_area(boxes) - boxes_overlap(boxes, frame[None])[:, 0]
        cost = boxes_overlap(boxes, others).sum(axis=1) + 3.0 * outside + 0.02 * distances * distances
        best = int(np.argmin(cost))
        placed[index], far[index] = boxes[best], distances[best] >= _LEADER_FROM
    return placed, far


def _write_names(figure: Figure, axes: Axes, points: Floats, names: Sequence[str]) -> None:
    pixel = figure.dpi / 72.0
    size = 8.0 if len(names) <= 30 else 7.0
    centres = axes.transData.transform(points) / pixel
    extents = np.array([_extent(figure, name, size) for name in names]) / pixel
    frame = np.array(axes.get_window_extent().extents) / pixel
    boxes, far = place_names(centres, extents, frame)
    for index, name in enumerate(names):
        axes.annotate(
            name,
            tuple(points[index]),
            tuple(boxes[index, :2] - centres[index]),
            textcoords="offset points",
            fontsize=size,
            color=INK,
            va="bottom",
            zorder=4,
        )
        if far[index]:
            nearest = np.clip(centres[index], boxes[index, :2], boxes[index, 2:])
            ends = axes.transData.inverted().transform(np.array([centres[index], nearest]) * pixel)
            axes.plot(*ends.T, color=SOFT, linewidth=0.5, zorder=2, scalex=False, scaley=False)


def _extent(figure: Figure, text: str, size: float) -> tuple[float, float]:
    drawn = figure.text(0.0, 0.0, text, fontsize=size)
    box = drawn.get_window_extent()
    drawn.remove()
    return box.width, box.height


def _crowding(centres: Floats) -> Floats:
    """How close all the other points are: large in the middle of a clump."""
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    return np.asarray((1.0 / (gaps + 1.0)).sum(axis=1))


def _places(centre: Floats, extent: Floats) -> tuple[Floats, Floats]:
    """Boxes (left, bottom, right, top) whose near edge or corner lies at each angle and distance; (P, 4) and (P,)."""
    distances = np.repeat(_DISTANCES, len(_ANGLES))
    angles = np.tile(_ANGLES, len(_DISTANCES))
    direction = np.column_stack([np.cos(angles), np.sin(angles)])
    anchor = centre + direction * distances[:, None]
    corner = anchor - extent * (1.0 - np.round(direction * 1.2).clip(-1, 1)) / 2.0
    return np.hstack([corner, corner + extent]), distances


def boxes_area(boxes: Floats) -> Floats:
    """The area of each of (P, 4) boxes: (P,)."""
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def boxes_overlap(boxes: Floats, others: Floats) -> Floats:
    """The area that each of (P, 4) boxes shares with each of (Q, 4): (P, Q)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.maximum(high - low, 0.0).prod(axis=-1))
