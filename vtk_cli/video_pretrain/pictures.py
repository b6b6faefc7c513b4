"""Pictures of a training and of its answers: curves from `metrics.jsonl`, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from vtk_cli.reports.plots import FAINT, INK, PALETTE, SOFT, Picture, axes_in_inches, save, style, write_titles
from vtk_cli.video_pretrain.scores import Floats, Ints, most_confused

Row = Mapping[str, float | None]
MOST_CELLS = 24
"""Of more classes the confusion matrix shows those that are confused most."""
_LEFT, _WIDTH, _HEIGHT, _GAP = 0.9, 6.4, 1.75, 0.62  # inches
_PANELS: tuple[tuple[str, Mapping[str, str], float], ...] = (
    ("loss", {"loss": "training"}, 1.0),
    ("top-1 accuracy on the test videos, %", {"top1": "weights", "ema_top1": "averaged weights"}, 100.0),
    ("nearest neighbours on the test videos, top-1, %", {"knn_top1": "features"}, 100.0),
    ("learning rate", {"lr": "learning rate"}, 1.0),
)
"""Title, key in the rows -> name, and the factor to the unit shown."""


def draw_training(path: Path, rows: Sequence[Row], *, title: str) -> Picture:
    """Draw what the rows of a training hold, a panel a quantity.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        rows: of `metrics.jsonl`; those without an `epoch` are passed over. null is a gap.
        title: one line.

    Raises:
        ValueError: no row has an epoch.
    """
    epochs = [row for row in rows if row.get("epoch") is not None]
    if not epochs:
        raise ValueError("no epoch has ended: there is nothing to draw")
    panels = [panel for panel in _PANELS if any(row.get(key) is not None for row in epochs for key in panel[1])]
    with style():
        figure = Figure(figsize=(_LEFT + _WIDTH + 2.2, 1.6 + len(panels) * (_HEIGHT + _GAP)))
        for index, (name, lines, factor) in enumerate(panels):
            bottom = 0.7 + (len(panels) - 1 - index) * (_HEIGHT + _GAP)
            axes = axes_in_inches(figure, _LEFT, bottom, _WIDTH, _HEIGHT)
            _draw_lines(axes, epochs, lines, factor)
            axes.set_title(name, loc="left", fontsize=9.0, color=SOFT, pad=5)
            if index == 0:
                write_titles(axes, _literal(title), above=0.42)
            if index == len(panels) - 1:
                axes.set_xlabel("epoch")
            else:
                axes.tick_params(labelbottom=False)
        return save(figure, path)


def draw_confusion(path: Path, confusion: Ints, names: Sequence[str], *, title: str, subtitle: str = "") -> Picture:
    """Draw what is taken for what: each row is a class, its cells say where its videos went, in percent.

    Mistakes are coloured by their share of the row, the diagonal is slate. Of more than `MOST_CELLS` classes those are
    kept that are confused most.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        confusion: (K, K), how often the row's class was taken for the column's.
        names: K.
        title, subtitle: one line each.
    """
    counts = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(100.0 * confusion, counts, out=np.full(confusion.shape, np.nan), where=counts > 0)
    if len(names) > MOST_CELLS:
        kept = _most_involved(confusion, MOST_CELLS)
        shares, names = shares[np.ix_(kept, kept)], [names[at] for at in kept]
        part = f"the {MOST_CELLS} of {len(confusion)} classes that are confused most"
        subtitle = f"{subtitle} · {part}" if subtitle else part
    count = len(names)
    with style():
        side = float(np.clip(0.45 * count, 3.0, 7.5))
        figure = Figure(figsize=(side + 4.5, side + 3.5))
        axes = axes_in_inches(figure, 2.2, 2.2, side, side)
        _draw_cells(axes, shares)
        middle, size = np.arange(count) + 0.5, 9.0 if count <= 12 else 7.5
        shown = [_literal(name if len(name) <= 26 else f"{name[:25]}…") for name in names]
        axes.set_xticks(middle, shown, rotation=90 if max(map(len, shown)) > 6 else 0, fontsize=size)
        axes.set_yticks(middle, shown, fontsize=size)
        axes.set_xlabel("answer")
        axes.set_ylabel("class")
        write_titles(axes, _literal(title), _literal(f"{subtitle} · % of the row" if subtitle else "% of the row"))
        return save(figure, path)


def _draw_lines(axes: Axes, rows: Sequence[Row], lines: Mapping[str, str], factor: float) -> None:
    held = [(key, name) for key, name in lines.items() if any(row.get(key) is not None for row in rows)]
    for index, (key, name) in enumerate(held):
        points = [
            (float(row["epoch"] or 0), factor * float(value)) for row in rows if (value := row.get(key)) is not None
        ]
        x, y = np.array(points).T
        label = f"{name}: {y[-1]:.1f} at the end" if factor != 1 else name
        axes.plot(
            x, y, color=PALETTE[(0, 5)[index]], linewidth=1.7, label=label, marker="o" if len(x) <= 40 else "", ms=3.2
        )
    axes.grid(visible=True, axis="y")
    axes.tick_params(length=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    last = max(float(row["epoch"] or 0) for row in rows)
    axes.set_xlim(0.0, last * 1.02 if last > 1 else 2.0)
    if factor != 1 or len(held) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0, handlelength=2.2)


def _draw_cells(axes: Axes, shares: Floats) -> None:
    count = len(shares)
    wrong = shares.copy()
    np.fill_diagonal(wrong, np.nan)
    largest = float(np.nanmax(wrong)) if np.isfinite(wrong).any() else 0.0
    colours = mpl.colormaps["OrRd"].with_extremes(bad=FAINT)
    axes.pcolormesh(
        np.ma.masked_invalid(wrong), cmap=colours, vmin=0.0, vmax=max(largest, 1e-9), edgecolors="white", linewidth=1.0
    )
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(shares):
        if not np.isfinite(value) or (value < 0.05 and row != column):
            continue
        if row == column:
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor="#64717e", edgecolor="white", zorder=2))
        ink = "white" if row == column or value > 0.6 * largest else INK
        text = f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"
        size = 8.0 if count <= 12 else 6.0
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=size, color=ink, zorder=3)


def _most_involved(confusion: Ints, count: int) -> list[int]:
    """`count` classes, in their own order: of the most frequent mistakes both classes, until there are enough."""
    kept: dict[int, None] = {}
    for row, column, _ in most_confused(confusion, count * count):
        kept |= {row: None, column: None}
    kept |= dict.fromkeys(range(len(confusion)))  # where there are fewer mistakes
    return sorted([*kept][:count])


def _literal(text: str) -> str:
    """`text` as it is: matplotlib would read what stands between two dollars as a formula."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("$", r"\$")
