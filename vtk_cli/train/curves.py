"""Pictures of a training: its curves from `metrics.jsonl`, each class's accuracy, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vtk_cli.reports.plots import FAINT, INK, PALETTE, SOFT, Picture, axes_in_inches, save, style, write_titles
from vtk_cli.train.accuracy import Floats, Ints, most_confused

Row = Mapping[str, float | None]

MOST_BARS = 40
"""Of more classes the worst and the best are shown, half of this each."""
MOST_CELLS = 24
"""Of more classes the confusion matrix shows those that are confused most."""

_WIDTH, _LEFT = 6.4, 0.9  # inches
_EMA = "ema_"
_FEW = 40  # points along a line up to which each is marked


@dataclass(frozen=True)
class _Panel:
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


_PANELS = (
    _Panel(
        "loss, training and validation", {"loss": "training", "nll": "validation", f"{_EMA}nll": "validation, averaged"}
    ),
    _Panel("top-1 accuracy on validation, %", {"top1": "weights", f"{_EMA}top1": "averaged weights"}, 1, 100.0),
    _Panel("mean average precision on validation, %", {"map": "weights", f"{_EMA}map": "averaged weights"}, 1, 100.0),
    _Panel(
        "click error, % of the diagonal",
        {"click_error": "weights", f"{_EMA}click_error": "averaged weights"},
        -1,
        100.0,
    ),
    _Panel("learning rate", {"lr": "learning rate"}),
)


def draw_training(path: Path, rows: Sequence[Row], *, title: str, subtitle: str = "") -> Picture:
    """Draw what the rows of a training hold: loss, accuracy (plain and averaged weights), click error, learning rate.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        rows: of `metrics.jsonl`; those of single updates (without `epoch`) are passed over. null is a gap.
        title, subtitle: one line each.

    Raises:
        ValueError: no row has an epoch.
    """
    epochs = [row for row in rows if row.get("epoch") is not None]
    if not epochs:
        raise ValueError("no epoch has ended: there is nothing to draw")
    panels = [panel for panel in _PANELS if any(_values(epochs, key).any() for key in panel.lines)]
    height, gap = 1.75, 0.62
    with style():
        figure = Figure(figsize=(_LEFT + _WIDTH + 2.2, 0.9 + len(panels) * (height + gap) + 0.7))
        for index, panel in enumerate(panels):
            bottom = 0.7 + (len(panels) - 1 - index) * (height + gap)
            axes = axes_in_inches(figure, _LEFT, bottom, _WIDTH, height)
            _draw_panel(axes, panel, epochs)
            if index == 0:
                write_titles(axes, _literal(title), _literal(subtitle), above=0.42)
            if index == len(panels) - 1:
                axes.set_xlabel("epoch")
            else:
                axes.tick_params(labelbottom=False)
        return save(figure, path)


def draw_class_bars(path: Path, values: Floats, names: Sequence[str], *, title: str, subtitle: str = "") -> Picture:
    """Draw a bar a class, the lowest on top; of more than `MOST_BARS` the lowest and the highest.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        values: (C,) in [0, 1]; classes with NaN are left out.
        names: C.
        title, subtitle: one line each.

    Raises:
        ValueError: every value is NaN.
    """
    order = [int(index) for index in np.argsort(values, kind="stable") if np.isfinite(values[index])]
    if not order:
        raise ValueError("no class has a value")
    left_out = len(order) - MOST_BARS
    if left_out > 0:
        order = order[: MOST_BARS // 2] + order[-MOST_BARS // 2 :]
        between = f"the {MOST_BARS // 2} lowest and the {MOST_BARS // 2} highest of {left_out + MOST_BARS} classes"
        subtitle = f"{subtitle} · {between}" if subtitle else between
    shown = 100.0 * values[order]
    mean = 100.0 * float(np.nanmean(values))
    places = np.arange(len(order)) + (np.arange(len(order)) >= MOST_BARS // 2) * (0.8 if left_out > 0 else 0.0)
    with style():
        height = 0.2 * (places[-1] + 1.0) + 0.1
        figure = Figure(figsize=(9.0, height + 1.8))
        axes = axes_in_inches(figure, 2.4, 0.7, 5.0, height)
        axes.barh(places, shown, height=0.72, color=PALETTE[0], zorder=2)
        axes.axvline(mean, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=3)
        axes.annotate(
            f"mean {mean:.1f}", (mean, 1.0), (0, 2), xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            ha="center", fontsize=8, color=SOFT,
        )  # fmt: skip
        for place, value in zip(places, shown, strict=True):
            axes.annotate(
                f"{value:.1f}", (1.0, place), (8, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                va="center", fontsize=8,
            )  # fmt: skip
        axes.set_yticks(places, [_short(names[index]) for index in order], fontsize=8)
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.set_xlim(0.0, 100.0)
        axes.set_xlabel("%")
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        write_titles(axes, _literal(title), _literal(subtitle), above=0.28)
        return save(figure, path)


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
        shown = [_short(name) for name in names]
        size = 9.0 if count <= 12 else 7.5
        axes.set_xticks(middle, shown, rotation=90 if max(map(len, shown)) > 3 else 0, fontsize=size)
        axes.set_yticks(middle, shown, fontsize=size)
        axes.set_xlabel("answer")
        axes.set_ylabel("class")
        write_titles(axes, _literal(title), _literal(f"{subtitle} · % of the row" if subtitle else "% of the row"))
        return save(figure, path)


def _values(rows: Sequence[Row], key: str) -> NDArray[np.bool_]:
    """(rows,) where the rows hold a value of `key`."""
    return np.array([row.get(key) is not None for row in rows])


def _draw_panel(axes: Axes, panel: _Panel, rows: Sequence[Row]) -> None:
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


def _short(name: str, most: int = 26) -> str:
    return _literal(name if len(name) <= most else name[: most - 1] + "…")


def _literal(text: str) -> str:
    """`text` as it is: matplotlib would read what stands between two dollars as a formula."""
    return text.replace("$", r"\$")
