"""What a run and an evaluation show at their end: numbers, pictures, the page, and files for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli.data.detection import DetectionSet
from vtk_cli.data.detection.evaluation import NUMBERS, ClassScores, Evaluation
from vtk_cli.data.detection.results import Detections, write_results
from vtk_cli.detect.pictures import draw_evaluation, write_batch, write_predictions
from vtk_cli.detect.predictions import PaddedImages, Target
from vtk_cli.engine.metrics import Row
from vtk_cli.files import write_json, write_text
from vtk_cli.reports import page
from vtk_cli.reports.curves import Curve, draw_curves
from vtk_cli.reports.plain_names import spreadsheet_cell

PAGE, EVALUATION, RESULTS, PER_CLASS = "report.html", "evaluation.json", "results.json", "per-class.csv"
_MEANING = {
    "AP": "AP, IoU .5:.95",
    "AP50": "AP, IoU .5",
    "AP75": "AP, IoU .75",
    "APs": "AP, small objects",
    "APm": "AP, medium objects",
    "APl": "AP, large objects",
    "AR1": "recall, 1 detection an image",
    "AR10": "recall, 10 detections",
    "AR100": "recall, 100 detections",
    "ARs": "recall, small objects",
    "ARm": "recall, medium objects",
    "ARl": "recall, large objects",
}


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found in a data set, and how good that is: of boxes, and of masks where there are any."""

    dataset: DetectionSet
    detections: Sequence[Detections]
    boxes: Evaluation
    masks: Evaluation | None

    def scalars(self) -> dict[str, float]:
        """The numbers of an epoch: `ap`, `ap50`, ..., of masks `mask_ap` ...; what has no objects is left out."""
        named = {name.lower(): value for name, value in self.boxes.numbers.items()}
        if self.masks is not None:
            named |= {f"mask_{name.lower()}": value for name, value in self.masks.numbers.items()}
        return {name: value for name, value in named.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Both evaluations, for `summary.json`."""
        return {
            "boxes": self.boxes.to_json(),
            **({} if self.masks is None else {"masks": self.masks.to_json()}),
        }


@dataclass(frozen=True)
class Report:
    """What there is to say of a training or an evaluation.

    Args:
        title: the result in a line.
        about: on what it rests, in a sentence.
        history: the rows of `metrics.jsonl`.
        measured: at the end; None where there was nothing to measure on.
        batch: images and targets as the network saw them in training; None shows none.
        class_names: by label.
        cost: what it took, name to value.
        options: every option as resolved.
        warnings: what a reader must know, a sentence each.
        footer: how to make it again.
    """

    title: str
    about: str
    history: Sequence[Row]
    measured: Measured | None
    batch: tuple[PaddedImages, Sequence[Target]] | None
    class_names: Sequence[str]
    cost: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    footer: str = ""


def write_report(folder: Path, report: Report) -> Path:
    """Draw the pictures into `folder/plots` and write the page `folder/report.html`.

    Returns:
        The page's path.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    plots = folder / "plots"
    sections = [page.Section("Read this first", [page.Text(text, "warning") for text in report.warnings])]
    if report.measured is not None:
        sections += _measured_sections(report.measured, plots)
        write_text(folder / PER_CLASS, per_class_csv(report.measured))
    sections.append(page.Section("Training", _training_parts(report.history, plots, report.title)))
    if report.batch is not None:
        images, targets = report.batch
        write_batch(plots / "batch.png", images, targets, report.class_names)
        caption = "As the network saw them, with what it was to find."
        parts = [page.Image(plots / "batch.png", "a training batch with its boxes", caption)]
        sections.append(page.Section("A training batch", parts))
    sections += [page.Section("What it took", _pairs(report.cost)), page.Section("Options", _pairs(report.options))]
    headline = {} if report.measured is None else dict(number_rows(report.measured)[:3])
    content = page.Page(
        report.title, report.about, headline, [section for section in sections if section.parts], report.footer
    )
    page.write_page(folder / PAGE, content)
    return folder / PAGE


def write_evaluation(folder: Path, measured: Measured, title: str, about: str) -> Path:
    """Write `evaluation.json`, `results.json` (COCO's format), `per-class.csv`, the page and its pictures.

    Returns:
        The page's path.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    write_json(folder / EVALUATION, {"data": measured.dataset.name, **measured.to_json()})
    write_results(folder / RESULTS, measured.detections, measured.dataset.category_ids)
    return write_report(folder, Report(title, about, (), measured, None, measured.dataset.class_names))


def number_rows(measured: Measured) -> list[tuple[str, str]]:
    """COCO's 12 numbers of boxes, then of masks, in percent; those without objects are left out."""
    rows = []
    for what, evaluation in (("box", measured.boxes), ("mask", measured.masks)):
        for name in NUMBERS if evaluation is not None else ():
            value = evaluation.numbers[name] if evaluation is not None else None
            if value is not None:
                rows.append((f"{what} {_MEANING[name]}", f"{100 * value:.1f}"))
    return rows


def class_rows(evaluation: Evaluation) -> list[tuple[object, ...]]:
    """A row a class: name, objects, AP, AP50, AP75, small, medium, large, AR100, best F1 and its score."""
    return [
        (
            one.name,
            one.objects,
            *(_percent(value) for value in _values(one)),
            "-" if one.score is None else f"{one.score:.2f}",
        )
        for one in evaluation.classes
    ]


CLASS_COLUMNS = ("class", "objects", "AP", "AP50", "AP75", "small", "medium", "large", "AR100", "best F1", "at score")


def per_class_csv(measured: Measured) -> str:
    """A line a class and kind (box, mask), the values in [0, 1]; empty where there are no such objects."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("measured", *CLASS_COLUMNS))
    for what, evaluation in (("box", measured.boxes), ("mask", measured.masks)):
        for one in () if evaluation is None else evaluation.classes:
            values = ["" if value is None else f"{value:.6f}" for value in (*_values(one), one.score)]
            writer.writerow((what, spreadsheet_cell(one.name), one.objects, *values))
    return text.getvalue()


def _values(one: ClassScores) -> tuple[float | None, ...]:
    return one.ap, one.ap50, one.ap75, one.ap_small, one.ap_medium, one.ap_large, one.ar100, one.f1


def _measured_sections(measured: Measured, plots: Path) -> list[page.Section]:
    evaluations = [measured.boxes, *([] if measured.masks is None else [measured.masks])]
    curves = []
    for evaluation in evaluations:
        curve, confusion = draw_evaluation(plots, measured.dataset, evaluation, measured.detections)
        curves.append(page.Image(curve.svg, "precision over recall"))
    write_predictions(plots / "predictions.png", measured.dataset, measured.detections)
    shown = "Pairs: what is there, and what was found."
    tables = [
        page.Table(CLASS_COLUMNS, class_rows(one), "Boxes" if one.measured == "bbox" else "Masks")
        for one in evaluations
    ]
    return [
        page.Section("Found", [page.Image(plots / "predictions.png", "predictions beside the truth", shown)]),
        page.Section("COCO's numbers", [page.Table(("", "%"), number_rows(measured))]),
        page.Section("Classes, in %", tables),
        page.Section("Precision and recall", curves),
        page.Section("Mistakes", [page.Image(confusion.svg, "confusion matrix")]),
    ]


def _training_parts(history: Sequence[Row], plots: Path, title: str) -> list[page.Text | page.Table | page.Image]:
    rows = [row for row in history if row.get("epoch") is not None]
    parts: list[page.Text | page.Table | page.Image] = []
    losses = _curve("loss", rows, "loss", 1.0)
    if losses is not None:
        drawn = draw_curves(plots / "loss", [losses], title="Training loss", x_label="epoch", y_label="loss")
        parts.append(page.Image(drawn.svg, "the loss by epoch"))
    names = {"ap": "boxes", "ema_ap": "boxes, averaged weights", "mask_ap": "masks"}
    names["ema_mask_ap"] = "masks, averaged weights"
    curves = [curve for key, name in names.items() if (curve := _curve(name, rows, key, 100.0)) is not None]
    if curves:
        drawn = draw_curves(
            plots / "ap", curves, title=title, subtitle="on validation", x_label="epoch", y_label="AP in %"
        )
        parts.append(page.Image(drawn.svg, "average precision by epoch"))
    return parts


def _curve(name: str, rows: Sequence[Row], key: str, factor: float) -> Curve | None:
    held = [(float(row["epoch"] or 0), factor * float(value)) for row in rows if (value := row.get(key)) is not None]
    return Curve(name, *map(np.array, zip(*held, strict=True))) if held else None


def _pairs(values: Mapping[str, object]) -> list[page.Table]:
    rows = [(name, str(value).encode("utf-8", "backslashreplace").decode()) for name, value in values.items()]
    return [page.Table(("", "value"), rows)] if rows else []


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
