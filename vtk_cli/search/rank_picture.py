"""How scores rank architectures, in a picture: accuracy over score, a panel a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vtk_cli.reports.plots import PALETTE, SOFT, Picture, axes_in_inches, literal, save, style, write_titles
from vtk_cli.search.ranking import Agreement, Estimate, Floats, best_by

_PANEL = (2.7, 2.1)
_ACROSS = 3
_LEFT, _BOTTOM, _GAP, _TITLE = 0.75, 0.6, (0.75, 1.0), 0.9


@dataclass(frozen=True)
class RankedScore:
    """A score to be shown.

    Args:
        name: of the score.
        values: (N,) of N architectures, larger is better; what is not finite is left out of the picture.
        agreement: with the truth.
    """

    name: str
    values: Floats
    agreement: Agreement


def draw_ranking(
    path: Path, scores: Sequence[RankedScore], truth: Floats, *, title: str, accuracy: str = "accuracy (%)"
) -> Picture:
    """Draw the accuracy of N architectures over each of their scores; the best by score stand out.

    Args:
        path: where to, without a suffix; written as .png and .svg.
        scores: one panel each.
        truth: (N,) accuracies.
        title: one line.
        accuracy: what the accuracies are, for their axis.

    Raises:
        JobError, UserError: the disk is full, or the picture cannot be written there.
    """
    across = min(len(scores), _ACROSS)
    down = math.ceil(len(scores) / across)
    width = _LEFT + across * _PANEL[0] + (across - 1) * _GAP[0] + 0.2
    height = _BOTTOM + down * _PANEL[1] + (down - 1) * _GAP[1] + _TITLE
    with style():
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        for number, score in enumerate(scores):
            left = _LEFT + (number % across) * (_PANEL[0] + _GAP[0])
            bottom = _BOTTOM + (down - 1 - number // across) * (_PANEL[1] + _GAP[1])
            axes = axes_in_inches(figure, left, bottom, *_PANEL)
            _draw_panel(axes, score, truth)
            if number % across == 0:
                axes.set_ylabel(literal(accuracy))
            if number == 0:
                best = f"dark: the {score.agreement.regret_of} best by score"
                write_titles(axes, literal(title), f"{len(truth):,} architectures; {best}", above=0.55)
        return save(figure, path)


def told(estimate: Estimate) -> str:
    """`0.70 [0.61, 0.78]`, or `undefined`."""
    if estimate.value is None:
        return "undefined"
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}{interval}"


def _draw_panel(axes: Axes, score: RankedScore, truth: Floats) -> None:
    finite = np.isfinite(score.values)
    chosen = np.zeros(len(truth), dtype=bool)
    chosen[best_by(score.values, truth, score.agreement.regret_of)] = True
    for marked, colour, size in ((False, PALETTE[4], 9.0), (True, PALETTE[6], 16.0)):
        shown = finite & (chosen == marked)
        axes.scatter(score.values[shown], truth[shown], s=size, color=colour, alpha=0.8, linewidths=0)
    axes.set_xlabel(literal(score.name))
    axes.ticklabel_format(axis="x", scilimits=(-3, 4))
    axes.locator_params(axis="x", nbins=4)
    axes.locator_params(axis="y", nbins=5)
    axes.annotate(
        f"tau {told(score.agreement.tau)}",
        (0.0, 1.0),
        (0.0, 6.0),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9.0,
        color=SOFT,
        va="bottom",
    )
