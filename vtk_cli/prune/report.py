"""What a search shows at its end: its pictures and its page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vtk_cli.engine.metrics import Row
from vtk_cli.engine.pieces.results import Result
from vtk_cli.engine.run_folder import RunFolder
from vtk_cli.prune.exports import Export
from vtk_cli.prune.metrics.quality import WEAKNESS, Quality
from vtk_cli.prune.options import TrialOptions
from vtk_cli.prune.pictures import Shown, draw_rows
from vtk_cli.prune.preparation import Arm, Lab, picture_noise
from vtk_cli.prune.samples import generated, write_sample_grid
from vtk_cli.prune.ticket_info import LAYER_COLUMNS, NO_SPEED_UP, SIZE_COLUMNS, layer_rows, size_rows, sizes
from vtk_cli.prune.trials import Settled, from_png, kernel_of, shown
from vtk_cli.reports import page
from vtk_cli.reports.training import Panel, draw_training

PAGE = "report.html"
GRID = 64
"""Samples in the grid of a run."""
_SAME_NOISE = "the same noise in every row"
_STOPS = 12
"""Rows of samples over the training, at most."""
_PANELS = (
    Panel("what the fakes' means lack, squared and summed", {"mean_gap": "means"}, best=-1),
    Panel("what their variances lack", {"variance_gap": "variances"}, best=-1),
    Panel("weights that changed sides since the row before", {"flips": "flips"}),
    Panel("distance on images that the report does not use", {"distance": "distance"}, best=-1),
    Panel("learning rate", {"lr": "learning rate"}),
)
BASELINE_NOTE = (
    "Baselines have the same loss, steps, batches and images, but each its learning rate: scores and weights differ in"
    " their scale. More steps may help some of them more than others."
)
_COLUMNS = ("model", "kept, %", "distance", "kernel distance", "precision", "recall", "density", "coverage")


@dataclass(frozen=True, eq=False)
class Outcome:
    """A search that is over and measured.

    Args:
        arm: what was searched for.
        settled: its generator, and its ticket.
        quality: of the generator.
        floor: of the train images, as if they were generated: what cannot be beaten.
        baselines: of the same lab.
        history: the rows of `metrics.jsonl`.
        steps: updates made.
        seconds: of them, in this sitting; None where none were made.
        chosen: the updates after which it was kept, if not at the end.
    """

    arm: Arm
    settled: Settled
    quality: Quality
    floor: Quality
    baselines: Sequence[Result]
    history: Sequence[Row]
    steps: int
    seconds: float | None
    chosen: int | None


@dataclass(frozen=True, eq=False)
class Report:
    """What there is to say of a search.

    Args:
        options: of the run.
        lab: of the run.
        outcome: what came out.
        stops: (updates, picture): samples of the same noise on the way.
        size: of the ticket's file in bytes.
        exports: files for others.
        warnings: of the counts.
    """

    options: TrialOptions
    lab: Lab
    outcome: Outcome
    stops: Sequence[tuple[int, Path]]
    size: int | None
    exports: Sequence[Export]
    warnings: tuple[str, ...]


def write_report(report: Report, run: RunFolder) -> Path:
    """Draw the pictures of a run into `plots/` and write its page.

    Returns:
        The page's path.

    Raises:
        JobError, UserError: the disk is full, or the folder may not be written.
    """
    outcome, options = report.outcome, report.options
    ticket, quality = outcome.settled.ticket, outcome.quality
    said = [*report.warnings, WEAKNESS, NO_SPEED_UP, *([BASELINE_NOTE] if outcome.baselines else [])]
    sections = [
        page.Section("Read this first", [page.Text(text, "warning") for text in said]),
        page.Section("Samples", _samples(report, run)),
    ]
    columns, rows = comparison_rows(outcome)
    caption = f"{quality.described()}; k = {quality.fidelity.k}; {quality.embedder}"
    sections.append(page.Section("Measured", [page.Table(columns, rows, caption)]))
    if any(row.get("epoch") is not None for row in outcome.history):
        drawn = draw_training(run.plots / "search", outcome.history, _PANELS, title=outcome.arm.name)
        sections.append(page.Section("The search", [page.Image(drawn.svg, "gaps and flips over the search")]))
    if ticket is not None:
        found = sizes(ticket, report.size)
        sections += [
            page.Section("Layers", [page.Table(LAYER_COLUMNS, layer_rows(ticket))]),
            page.Section("Sizes", [page.Table(SIZE_COLUMNS, size_rows(found))]),
        ]
    if report.exports:
        files = [(one.form, one.path.name, one.bytes) for one in report.exports]
        sections.append(page.Section("Exports", [page.Table(("form", "file", "bytes"), files)]))
    took = [("steps", outcome.steps), ("seconds, this sitting", _short(outcome.seconds))]
    took += [("weights before", outcome.settled.theta[0]), ("weights after", outcome.settled.theta[1])]
    sections += [
        page.Section("What it took", [page.Table(("", "value"), took)]),
        page.Section("Options", [page.Table(("", "value"), [(k, str(v)) for k, v in options.as_config().items()])]),
    ]
    counts = outcome.settled.counts
    headline: dict[str, object] = {
        quality.distance_name: f"{quality.frechet:.4g}",
        "kept": f"{counts.kept:,} of {counts.n:,}",
    }
    if report.size is not None:
        headline["ticket"] = f"{report.size:,} bytes"
    about = f"{options.gen}, {outcome.arm.name}, on {options.data}, seed {outcome.arm.seed}"
    title = f"{outcome.arm.name}: {quality.distance_name} {quality.frechet:.4g}"
    content = page.Page(title, about, headline, sections, " ".join(sys.argv))
    page.write_page(run.path / PAGE, content)
    return run.path / PAGE


def comparison_rows(outcome: Outcome) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """(columns, rows): the search, its baselines, and the floor."""
    counts = outcome.settled.counts
    found, floor = outcome.quality, outcome.floor
    rows = [_row(outcome.arm.name, counts.kept_fraction, found.frechet, found.to_json())]
    rows += [_row(one["name"], one["kept"] / one["weights"], one["fd"], one["quality"]) for one in outcome.baselines]
    return _COLUMNS, [*rows, _row("train images (the floor)", None, floor.frechet, floor.to_json())]


def _row(name: str, kept: float | None, distance: float, quality: Mapping[str, Any]) -> tuple[str, ...]:
    shares = (f"{quality[key]:.3f}" for key in ("precision", "recall", "density", "coverage"))
    return (name, "" if kept is None else f"{100 * kept:.2f}", f"{distance:.4g}", f"{kernel_of(quality):.4g}", *shares)


def _samples(report: Report, run: RunFolder) -> list[page.Image]:
    outcome, device = report.outcome, report.lab.device
    generator, seed = outcome.settled.generator, outcome.arm.seed
    images = torch.cat(list(generated(generator, picture_noise(seed, generator.nz, GRID), device=device)))
    grid = run.plots / "samples.png"
    write_sample_grid(grid, images)
    parts = [page.Image(grid, "generated images", f"{GRID} samples, seed {seed}")]
    if report.stops:
        last = len(report.stops) - 1
        chosen = [report.stops[at] for at in sorted({round(at) for at in np.linspace(0, last, min(_STOPS, last + 1))})]
        rows = [Shown(f"{step:,} steps", _picture(path)) for step, path in chosen]
        path = run.plots / "samples-over-training"
        drawn = draw_rows(path, rows, title="Samples over the search", subtitle=_SAME_NOISE)
        parts.append(page.Image(drawn.png, "samples of the same noise over the search"))
    if outcome.baselines:
        rows = [Shown(outcome.arm.name, shown(generator, generator.nz, seed, device))]
        rows += [Shown(one["name"], from_png(one["samples"])) for one in outcome.baselines]
        path = run.plots / "baselines"
        drawn = draw_rows(path, rows, title="The search and its baselines", subtitle=_SAME_NOISE)
        parts.append(page.Image(drawn.png, "samples of the search and of its baselines"))
    return parts


def _picture(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB"))


def _short(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f}"
