"""What a run shows at its end: its pictures, its page, and the files of an evaluation."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import BrokenImage
from vtk_cli.files import write_json, write_text
from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation, most_confident_mistakes
from vtk_cli.reports import page
from vtk_cli.reports.confusion import draw_confusion, most_confused
from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet
from vtk_cli.reports.plain_names import spreadsheet_cell
from vtk_cli.reports.plots import PALETTE
from vtk_cli.reports.training import Row, draw_training
from vtk_cli.train.curves import PANELS, draw_class_bars
from vtk_cli.train.robustness import SetScore

PAGE, EVALUATION, PER_CLASS = "report.html", "evaluation.json", "per-class.csv"
MISTAKES = 24
"""How many of the surest mistakes are shown."""
_PAIRS = 10
_LARGEST_MATRIX = 1000


@dataclass(frozen=True)
class Report:
    """What there is to say of a training.

    Args:
        title: the result in a line.
        about: on what it rests, in a sentence.
        headline: the numbers to show large, name to value.
        history: the rows of `metrics.jsonl`.
        evaluation: of the network at the end; None where there is nothing to evaluate on.
        class_names: by label.
        images: what `evaluation` is over, to show its mistakes; None shows none.
        cost: what the training took, name to value.
        scores: on other sets.
        options: every option as resolved.
        warnings: what a reader must know, a sentence each.
        footer: how to make it again: command, versions.
    """

    title: str
    about: str
    headline: Mapping[str, object]
    history: Sequence[Row]
    evaluation: Evaluation | MultiLabelEvaluation | None
    class_names: Sequence[str]
    images: ImageSource | None = None
    cost: Mapping[str, object] = field(default_factory=dict)
    scores: Sequence[SetScore] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    footer: str = ""


def write_report(folder: Path, report: Report) -> Path:
    """Draw the pictures of a run into `folder/plots` and write its page, `folder/report.html`.

    Returns:
        The page's path.

    Raises:
        JobError, UserError: the disk is full, or `folder` may not be written.
    """
    plots = folder / "plots"
    sections = [page.Section("Read this first", [page.Text(text, "warning") for text in report.warnings])]
    if any(row.get("epoch") is not None for row in report.history):
        curves = draw_training(plots / "training", report.history, PANELS, title=report.title)
        sections.append(page.Section("Training", [page.Image(curves.svg, "loss, accuracy and learning rate by epoch")]))
    if report.evaluation is not None:
        sections += evaluation_sections(report.evaluation, report.class_names, plots, report.images)
    sections += [
        page.Section("Other sets", [score_table(report.scores)] if report.scores else []),
        page.Section("What it took", [_pairs(report.cost)] if report.cost else []),
        page.Section("Options", [_pairs(report.options)] if report.options else []),
    ]
    shown = [section for section in sections if section.parts]
    content = page.Page(report.title, report.about, report.headline, shown, report.footer)
    page.write_page(folder / PAGE, content)
    return folder / PAGE


def write_evaluation(
    folder: Path,
    evaluation: Evaluation | MultiLabelEvaluation,
    class_names: Sequence[str],
    *,
    images: ImageSource | None,
    title: str,
    scores: Sequence[SetScore] = (),
) -> Path:
    """Write an evaluation: `evaluation.json`, `per-class.csv`, `report.html` and the pictures in `plots/`.

    Args:
        folder: made if missing.
        evaluation: the answers.
        class_names: by label.
        images: what was evaluated on, to show the mistakes; None shows none.
        title: of the page.
        scores: on other sets.

    Returns:
        The page's path.

    Raises:
        JobError, UserError: the disk is full, or `folder` may not be written.
    """
    write_json(folder / EVALUATION, evaluation_json(evaluation, class_names, scores))
    write_text(folder / PER_CLASS, per_class_csv(evaluation, class_names))
    headline = dict(result_rows(evaluation))
    report = Report(title, "", headline, (), evaluation, class_names, images, scores=scores)
    return write_report(folder, report)


def result_rows(evaluation: Evaluation | MultiLabelEvaluation) -> list[tuple[str, str]]:
    """Name and value of each number of an evaluation, for a table or a page."""
    if isinstance(evaluation, Evaluation):
        rows = [
            ("top-1", _percent(evaluation.top1)),
            ("top-5", _percent(evaluation.top5)),
            ("NLL", f"{evaluation.nll:.4f}"),
            ("calibration error", _percent(evaluation.ece)),
        ]
        if len(evaluation.per_class) <= 5:  # every answer is among the best five
            del rows[1]
    else:
        rows = [("mAP", _percent(evaluation.mean_ap)), ("BCE", f"{evaluation.bce:.4f}")]
    points = evaluation.points
    if points is not None and points.count:
        rows.append(("click error", f"{points.click_error_px:.2f} px ({_percent(points.click_error)} of the diagonal)"))
    if points is not None and math.isfinite(points.pointing_hits):
        rows.append(("points inside boxes", _percent(points.pointing_hits)))
    return [*rows, ("images", f"{evaluation.n:,}")]


def evaluation_json(
    evaluation: Evaluation | MultiLabelEvaluation, class_names: Sequence[str], scores: Sequence[SetScore] = ()
) -> dict[str, Any]:
    """An evaluation as JSON: the numbers, those of every class, the most frequent mistakes, other sets."""
    measure = "accuracy" if isinstance(evaluation, Evaluation) else "average_precision"
    counts = _class_counts(evaluation)
    content: dict[str, Any] = {
        "images": evaluation.n,
        **{name: _finite(value) for name, value in evaluation.scalars().items()},
        "classes": [
            {"label": label, "name": name, "images": int(counts[label]), measure: _finite(evaluation.per_class[label])}
            for label, name in enumerate(class_names)
        ],
        "sets": [
            {"name": score.name, "measure": score.measure, "value": _finite(score.value), "images": score.images}
            for score in scores
        ],
    }
    if isinstance(evaluation, Evaluation) and len(class_names) <= _LARGEST_MATRIX:
        content["confused"] = [
            {"class": class_names[row], "taken_for": class_names[column], "times": times}
            for row, column, times in most_confused(evaluation.confusion, 10 * _PAIRS)
        ]
    return content


def per_class_csv(evaluation: Evaluation | MultiLabelEvaluation, class_names: Sequence[str]) -> str:
    """A line a class: label, name, images, accuracy or average precision (empty without images)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    measure = "accuracy" if isinstance(evaluation, Evaluation) else "average_precision"
    writer.writerow(["label", "class", "images", measure])
    for label, (name, count, value) in enumerate(
        zip(class_names, _class_counts(evaluation), evaluation.per_class, strict=True)
    ):
        writer.writerow([label, spreadsheet_cell(name), int(count), f"{value:.6f}" if math.isfinite(value) else ""])
    return text.getvalue()


def score_table(scores: Sequence[SetScore]) -> page.Table:
    """The report card as a table."""
    return page.Table(
        ("set", "measure", "%", "images"),
        [
            (score.name, score.measure, f"{100 * score.value:.1f}" if math.isfinite(score.value) else "-", score.images)
            for score in scores
        ],
    )


def evaluation_sections(
    evaluation: Evaluation | MultiLabelEvaluation,
    class_names: Sequence[str],
    plots: Path,
    images: ImageSource | None = None,
) -> list[page.Section]:
    """The sections of a page on an evaluation; their pictures are drawn into `plots`."""
    sections, class_names = [], [_utf8(name) for name in class_names]
    single = isinstance(evaluation, Evaluation)
    if np.isfinite(evaluation.per_class).any():
        title = "Accuracy of each class" if single else "Average precision of each class"
        bars = draw_class_bars(
            plots / "classes", evaluation.per_class, class_names, title=title, subtitle=f"{evaluation.n:,} images"
        )
        sections.append(page.Section("Classes", [page.Image(bars.svg, title.lower())]))
    if not isinstance(evaluation, Evaluation):
        return sections
    if 2 <= len(class_names) <= _LARGEST_MATRIX:
        drawn = draw_confusion(
            plots / "confusion",
            evaluation.confusion,
            class_names,
            title="What is taken for what",
            subtitle=f"{evaluation.n:,} images",
        )
        pairs = [
            (class_names[row], class_names[column], times)
            for row, column, times in most_confused(evaluation.confusion, _PAIRS)
        ]
        table = [page.Table(("class", "taken for", "times"), pairs, "The most frequent mistakes")] if pairs else []
        sections.append(page.Section("Mistakes", [page.Image(drawn.svg, "confusion matrix"), *table]))
    if images is not None and write_mistakes(plots / "mistakes.png", evaluation, class_names, images):
        caption = "What it was surest of and wrong: the answer and its probability, and what it is."
        part = page.Image(plots / "mistakes.png", "the surest mistakes", caption)
        sections.append(page.Section("The surest mistakes", [part]))
    return sections


def write_mistakes(path: Path, evaluation: Evaluation, class_names: Sequence[str], images: ImageSource) -> bool:
    """A contact sheet of the surest mistakes; nothing is written, and False returned, where there is none."""
    tiles, class_names = [], [_utf8(name) for name in class_names]
    for at in most_confident_mistakes(evaluation, MISTAKES):
        try:
            image = images.read(int(evaluation.indices[at]))
        except BrokenImage:  # it could be read a moment ago
            continue
        answer, target = class_names[evaluation.predictions[at]], class_names[evaluation.targets[at]]
        caption = f"{answer} ({100 * evaluation.confidences[at]:.0f} %)\nis {target}"
        tiles.append(Tile(image, caption, frame=PALETTE[5]))
    if tiles:
        write_contact_sheet(path, tiles, cell=128)
    return bool(tiles)


def _pairs(values: Mapping[str, object]) -> page.Table:
    return page.Table(("", "value"), [(name, _utf8(str(value))) for name, value in values.items()])


def _class_counts(evaluation: Evaluation | MultiLabelEvaluation) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(C,) how many images show each class."""
    if isinstance(evaluation, Evaluation):
        return np.bincount(evaluation.targets, minlength=evaluation.classes)
    return np.asarray(evaluation.targets.sum(axis=0))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _utf8(text: str) -> str:
    """`text` as UTF-8 can hold it, whatever bytes a folder's name has."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
