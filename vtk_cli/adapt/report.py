"""The page of a run: accuracy against labels, every round, what was asked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli.adapt.options import AdaptOptions
from vtk_cli.adapt.outcome import LEVELLED_OFF, round_table
from vtk_cli.adapt.run_files import RunFiles
from vtk_cli.adapt.scoreboard import ACCURACIES
from vtk_cli.reports import page
from vtk_cli.reports.curves import Curve, draw_curves

PAGE = "report.html"
WHICH = (
    "Three accuracies: of target images without label (the headline), of the whole target with those that were asked"
    " for among it (what most papers report, and higher by what was labelled), and of images that are not in the pool."
)
RELATIVE = "A predicted loss ranks the images of one round; its values mean nothing across rounds."


def write_report(
    files: RunFiles, options: AdaptOptions, summary: Mapping[str, Any], *, plots: Path, sheets: int = 3
) -> Path:
    """Draw the pictures of a run and write its page.

    Args:
        files: of the run.
        options: of the run.
        summary: `outcome.standing_summary`.
        plots: the folder for pictures.
        sheets: contact sheets shown a round, at most.

    Returns:
        The page's path.

    Raises:
        JobError, UserError: the disk is full, or the folder may not be written.
    """
    metrics = summary["metrics"]
    sections = []
    if drawn := _accuracies(metrics, options, plots):
        sections.append(page.Section("Accuracy against labels", [drawn]))
    if metrics:
        sections.append(
            page.Section("Rounds", [page.Table(*round_table(metrics)), page.Text(WHICH), page.Text(RELATIVE)])
        )
    if summary["levelled_off"]:
        sections.append(page.Section("Stop?", [page.Text(LEVELLED_OFF, "good")]))
    labels = [(name, count) for name, count in summary["labels_by_class"].items()]
    sections.append(page.Section("Labels by class", [page.Table(("class", "labels"), labels)]))
    for number in range(summary["round"], 0, -1):
        found = sorted(files.round(number).glob("contact_sheet_*.png"))[:sheets]
        if found:
            images = [page.Image(path, f"images asked about in round {number}") for path in found]
            sections.append(page.Section(f"Asked in round {number}", images))
    settings = [(name, str(value)) for name, value in options.as_config().items()]
    sections.append(page.Section("Options", [page.Table(("", "value"), settings)]))
    budget = summary["budget"]
    headline: dict[str, object] = {
        "phase": summary["phase"],
        "round": f"{summary['round']} of {summary['rounds']}",
        "labels": f"{budget['used']} of {budget['total']}",
    }
    for name, title in ACCURACIES.items():
        if metrics and metrics[-1].get(name) is not None:
            headline[title] = f"{metrics[-1][name]:.1f} %"
    about = f"{options.recipe}, query {options.query}, seed {options.seed}"
    whole = page.Page(f"Adaptation: {options.name}", about, headline, sections, " ".join(sys.argv))
    page.write_page(files.folder / PAGE, whole)
    return files.folder / PAGE


def _accuracies(metrics: Sequence[Mapping[str, Any]], options: AdaptOptions, plots: Path) -> page.Image | None:
    curves = []
    for name, title in ACCURACIES.items():
        points = [(row["labels"], row[name]) for row in metrics if row.get(name) is not None]
        if points:
            x, y = zip(*points, strict=True)
            curves.append(Curve(title, np.array(x, np.float64), np.array(y, np.float64)))
    if not curves:
        return None
    drawn = draw_curves(
        plots / "accuracy",
        curves,
        title="Accuracy against labels",
        subtitle=f"{options.name}, {options.recipe}, query {options.query}",
        x_label="labels of the target",
        y_label="accuracy, %",
    )
    return page.Image(drawn.svg, "accuracy against labels")
