"""Pictures of a detector's evaluation: precision over recall, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vtk_cli.reports.plots import (
    FAINT,
    INK,
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

MOST_PRINTED = 25
"""Up to so many classes the counts are printed in the cells."""
MOST_NAMED = 80
"""Up to so many classes are named along the sides."""
_NAMED_CURVES = 8
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
_PALE_BELOW = 0.55

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PrecisionCurve:
    """Precision at each recall: its name, and (R,) precision in [0, 1]; NaN where nothing is."""

    name: str
    precision: Floats


def draw_precision_recall(
    path: Path,
    recalls: Floats,
    means: Sequence[PrecisionCurve],
    classes: Sequence[PrecisionCurve],
    *,
    title: str,
    subtitle: str = "",
) -> Picture:
    """Draw mean curves boldly, and each class' faintly behind them; the area below a curve is its average precision.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        recalls: (R,) increasing.
        means: up to 3, over classes.
        classes: any number; up to 8 are named, of more the 4 best and the 4 worst.
        title, subtitle: one line each.

    Raises:
        ValueError: there are more than 3 means, or none.
    """
    if not 1 <= len(means) <= len(_DASHES):
        raise ValueError(f"{len(means)} mean curves: draw 1 to {len(_DASHES)}")
    shown = [curve for curve in classes if np.isfinite(curve.precision).all()]
    ranked = sorted(shown, key=lambda curve: -float(curve.precision.mean()))
    named = ranked if len(ranked) <= _NAMED_CURVES else [*ranked[:4], *ranked[-4:]]
    with style():
        figure = Figure(figsize=(9.0, 5.4))
        axes = axes_in_inches(figure, 0.8, 0.7, 4.6, 4.0)
        for curve in ranked:
            if curve not in named:
                axes.plot(recalls, curve.precision, color=FAINT, linewidth=0.8, zorder=1)
        for index, curve in enumerate(named):
            label = f"{shortened(curve.name)}  {float(curve.precision.mean()):.3f}"
            axes.plot(
                recalls, curve.precision, color=PALETTE[index + 1], linewidth=1.0, alpha=0.85, label=label, zorder=2
            )
        for mean, dashes in zip(means, _DASHES, strict=False):
            area = "" if np.isnan(mean.precision).any() else f"  {float(mean.precision.mean()):.3f}"
            axes.plot(
                recalls,
                mean.precision,
                color=INK,
                linestyle=dashes,
                linewidth=2.2,
                label=f"{literal(mean.name)}{area}",
                zorder=3,
            )
        axes.set_xlim(0, 1.005)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall")
        axes.grid(visible=True)
        axes.tick_params(length=3)
        handles, labels = axes.get_legend_handles_labels()
        count = len(means)
        axes.legend(
            [*handles[-count:], *handles[:-count]],
            [*labels[-count:], *labels[:-count]],
            title="area under the curve",
            alignment="left",
            loc="upper left",
            bbox_to_anchor=(1.04, 1.0),
            borderaxespad=0.0,
            handlelength=2.6,
        )
        write_titles(axes, literal(title), literal(f"{subtitle} · precision" if subtitle else "precision"))
        return save(figure, path)


def draw_confusion(
    path: Path, counts: NDArray[np.int64], names: Sequence[str], *, title: str, subtitle: str = ""
) -> Picture:
    """Draw a confusion matrix: rows are what is there, columns what was detected; the last of each is background.

    Colours are shares of the row, the counts are printed where there is room.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        counts: (K + 1, K + 1).
        names: K.
        title, subtitle: one line each.
    """
    size = len(counts)
    with style():
        side = float(np.clip(0.36 * size, 3.2, 13.0))
        figure = Figure(figsize=(side + 4.0, side + 3.2))
        axes = axes_in_inches(figure, 2.0, 1.8, side, side)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        colours = mpl.colormaps["Blues"]
        scale = PowerNorm(0.5, 0.0, 1.0)  # confusions are rare: small shares must be seen
        axes.pcolormesh(
            shares,
            cmap=colours,
            norm=scale,
            edgecolors="white",
            linewidth=1.2 if size <= MOST_PRINTED else 0.2,
            rasterized=size > MOST_PRINTED,
        )
        axes.set_xlim(0, size)
        axes.set_ylim(size, 0)
        axes.spines[:].set_visible(False)
        _name_sides(axes, names, side / size)
        axes.set_xlabel("detected", color=SOFT)
        axes.set_ylabel("there", color=SOFT)
        axes.axhline(size - 1, color=INK, linewidth=0.9)
        axes.axvline(size - 1, color=INK, linewidth=0.9)
        if size <= MOST_PRINTED:
            _print_counts(axes, counts, shares, scale)
        write_titles(axes, literal(title), literal(subtitle))
        return save(figure, path)


def _name_sides(axes: Axes, names: Sequence[str], cell: float) -> None:
    if len(names) > MOST_NAMED:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    labels = [*map(shortened, names), "background"]
    middle = np.arange(len(labels)) + 0.5
    size = float(np.clip(cell * 26, 5.5, 9.0))
    axes.set_xticks(middle, labels, rotation=90, fontsize=size)
    axes.set_yticks(middle, labels, fontsize=size)
    axes.tick_params(length=0, pad=3)


def _print_counts(axes: Axes, counts: NDArray[np.int64], shares: Floats, scale: PowerNorm) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = INK if float(scale(shares[row, column])) < _PALE_BELOW else "white"
            text = f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=ink, fontsize=7.5)
