"""Pictures of a training of classes: which quantities its curves show, and each class's accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vtk_cli.models.accuracy import Floats
from vtk_cli.reports.plots import (
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
from vtk_cli.reports.training import Panel

MOST_BARS = 40
"""Of more classes the worst and the best are shown, half of this each."""
_EMA = "ema_"
PANELS = (
    Panel(
        "loss, training and validation", {"loss": "training", "nll": "validation", f"{_EMA}nll": "validation, averaged"}
    ),
    Panel("top-1 accuracy on validation, %", {"top1": "weights", f"{_EMA}top1": "averaged weights"}, 1, 100.0),
    Panel("mean average precision on validation, %", {"map": "weights", f"{_EMA}map": "averaged weights"}, 1, 100.0),
    Panel(
        "click error, % of the diagonal",
        {"click_error": "weights", f"{_EMA}click_error": "averaged weights"},
        -1,
        100.0,
    ),
    Panel("learning rate", {"lr": "learning rate"}),
)


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
        axes.set_yticks(places, [shortened(names[index]) for index in order], fontsize=8)
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.set_xlim(0.0, 100.0)
        axes.set_xlabel("%")
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        write_titles(axes, literal(title), literal(subtitle), above=0.28)
        return save(figure, path)
