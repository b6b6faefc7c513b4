"""Pictures of a search: how the best got better, and what is bought with more multiply-accumulates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vtk_cli.reports.plots import PALETTE, Picture, axes_in_inches, literal, save, style, write_titles
from vtk_cli.search.evolution import Evolution
from vtk_cli.search.scored import Scored, Scores

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 6.4, 3.4, 0.9, 0.6, 0.7
_FAINT = 0.75


def draw_progress(path: Path, evolution: Evolution, scores: Scores) -> Picture:
    """Every architecture that was scored, in the order of the search, and the best so far.

    Args:
        path: where to, without a suffix.
        evolution: which knows the generations.
        scores: of all that were scored.

    Raises:
        JobError, UserError: the disk is full, or the picture cannot be written there.
    """
    value = {row.genes: row.score for row in scores.rows}
    order = [value[genes] for genes in evolution.scored]
    with style():
        figure, axes = _sheet(f"The search by {scores.judgement.name}", f"{scores.space.name}, {len(order):,} scored")
        axes.scatter(range(1, len(order) + 1), order, s=12, color=PALETTE[4], alpha=_FAINT, linewidths=0)
        axes.plot(range(1, len(order) + 1), _best_so_far(order), color=PALETTE[0], drawstyle="steps-post")
        for generation in evolution.history[:-1]:
            axes.axvline(generation.evaluated + 0.5, color="0.85", linewidth=0.6, zorder=0)
        axes.set_xlabel("architectures, one generation between two lines")
        axes.set_ylabel(literal(scores.judgement.name))
        _finite_limits(axes, order)
        return save(figure, path)


def draw_pareto(path: Path, scores: Scores) -> Picture:
    """Score against multiply-accumulates, the front of those that no other beats at no higher cost, the best of all.

    Raises:
        JobError, UserError: the disk is full, or the picture cannot be written there.
    """
    rows = [row for row in scores.rows if math.isfinite(row.score)]
    front = scores.pareto()
    with style():
        figure, axes = _sheet("What more multiply-accumulates buy", f"{scores.space.name}, {len(rows):,} scored")
        axes.scatter(_macs(rows), [row.score for row in rows], s=12, color=PALETTE[4], alpha=_FAINT, linewidths=0)
        axes.plot(_macs(front), [row.score for row in front], color=PALETTE[0], marker="o", markersize=3.5)
        if rows:
            axes.scatter(_macs(rows[:1]), [rows[0].score], s=60, marker="*", color=PALETTE[5], zorder=5)
        axes.set_xlabel("multiply-accumulates, millions")
        axes.set_ylabel(literal(scores.judgement.name))
        return save(figure, path)


def _sheet(title: str, subtitle: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_LEFT + _WIDTH + 0.2, _BOTTOM + _HEIGHT + _TOP))
    FigureCanvasAgg(figure)
    axes = axes_in_inches(figure, _LEFT, _BOTTOM, _WIDTH, _HEIGHT)
    write_titles(axes, literal(title), literal(subtitle))
    return figure, axes


def _macs(rows: Sequence[Scored]) -> list[float]:
    return [row.cost.macs / 1e6 for row in rows]


def _best_so_far(values: Sequence[float]) -> list[float]:
    best, found = -math.inf, []
    for value in values:
        best = max(best, value)
        found.append(best if math.isfinite(best) else math.nan)
    return found


def _finite_limits(axes: Axes, values: Sequence[float]) -> None:
    """The range of the upper nine tenths: a few hopeless architectures would flatten the rest."""
    known = sorted(value for value in values if math.isfinite(value))
    if len(known) > 1 and known[-1] > known[0]:
        low = known[len(known) // 10]
        margin = 0.05 * (known[-1] - low) or 1e-9
        axes.set_ylim(low - margin, known[-1] + margin)
