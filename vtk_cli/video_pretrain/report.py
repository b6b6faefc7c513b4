"""What a run or an evaluation shows at its end: tables, pictures, the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vtk_cli.data.video.sets import VideoSet
from vtk_cli.reports import page
from vtk_cli.reports.confusion import draw_confusion, most_confused
from vtk_cli.reports.training import Panel, Row, draw_training
from vtk_cli.video_pretrain.scores import Answers

PAGE, PER_CLASS = "report.html", "per-class.csv"
_PAIRS = 10
PANELS = (
    Panel("loss", {"loss": "training"}),
    Panel("top-1 accuracy on the test videos, %", {"top1": "weights", "ema_top1": "averaged weights"}, 1, 100.0),
    Panel("nearest neighbours on the test videos, top-1, %", {"knn_top1": "features"}, 1, 100.0),
    Panel("learning rate", {"lr": "learning rate"}),
)
"""What is drawn of a training."""


@dataclass(frozen=True, eq=False)
class Story:
    """What there is to tell.

    Args:
        folder: of the run or the evaluation.
        title: a line.
        answers: to the test videos; None where there is nothing to answer.
        answered_by: what answers: `classes`, `20 nearest neighbours`, `linear probe`.
        classes: names by label.
        history: rows of `metrics.jsonl`; empty of an evaluation.
        options: as resolved.
        extra: further numbers, name to value.
        notes: what a reader must know.
    """

    folder: Path
    title: str
    answers: Answers | None
    answered_by: str
    classes: Sequence[str]
    history: Sequence[Row] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each number, for a table."""
        rows: list[tuple[str, str]] = []
        last = self.history[-1] if self.history else {}
        if last.get("loss") is not None:
            rows.append(("loss", f"{last['loss']:.4f}"))
        if self.answers is not None:
            rows.append((f"top-1 of {self.answered_by}", percent(self.answers.top1)))
            if self.answers.classes > 5:
                rows.append((f"top-5 of {self.answered_by}", percent(self.answers.top5)))
        return [*rows, *((name, str(value)) for name, value in self.extra.items())]


def write_story(story: Story) -> Path:
    """Draw the pictures into `plots/`, write `per-class.csv` and the page.

    Returns:
        The page.

    Raises:
        JobError, UserError: as `vtk_cli.files.disk_errors`.
    """
    plots, sections = story.folder / "plots", []
    if story.notes:
        sections.append(page.Section("Notes", [page.Text(note) for note in story.notes]))
    if any(row.get("epoch") is not None for row in story.history):
        drawn = draw_training(plots / "training", story.history, PANELS, title=story.title)
        sections.append(page.Section("Training", [page.Image(drawn.svg, "loss, accuracy and learning rate by epoch")]))
    if story.answers is not None and len(story.classes) > 1:
        sections.append(page.Section("Classes", _class_parts(story, plots)))
    if story.options:
        rows = [(name, str(value)) for name, value in story.options.items()]
        sections.append(page.Section("Options", [page.Table(("option", "value"), rows)]))
    headline = dict(story.rows())
    page.write_page(story.folder / PAGE, page.Page(story.title, "", headline, sections, ""))
    return story.folder / PAGE


def broken_csv(*parts: tuple[VideoSet, Mapping[int, str]]) -> str:
    """`path,reason` of every video of these that could not be used."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "reason"))
    for videos, faults in parts:
        for index in sorted(faults):
            writer.writerow((videos.videos[index].path, faults[index]))
    return stream.getvalue()


def read_broken(text: str, videos: VideoSet) -> dict[int, str]:
    """What `broken_csv` wrote of these videos; nothing of what is not among them."""
    places = {str(video.path): index for index, video in reversed(list(enumerate(videos.videos)))}
    rows = csv.DictReader(io.StringIO(text))
    return {places[row["path"]]: row["reason"] for row in rows if row.get("path") in places}


def percent(share: float) -> str:
    """`0.8123` as `81.2 %`."""
    return f"{100 * share:.1f} %"


def _class_parts(story: Story, plots: Path) -> list[page.Text | page.Table | page.Image]:
    answers = story.answers
    if answers is None:
        return []
    drawn = draw_confusion(
        plots / "confusion", answers.confusion, story.classes, title=story.title, subtitle=f"by {story.answered_by}"
    )
    counts = answers.confusion.sum(axis=1)
    rows = [
        (name, int(count), "-" if count == 0 else percent(float(share)))
        for name, count, share in zip(story.classes, counts, answers.per_class, strict=True)
    ]
    parts: list[page.Text | page.Table | page.Image] = [page.Image(drawn.svg, "what is taken for what")]
    parts.append(page.Table(("class", "videos", "right"), rows))
    pairs = [
        (story.classes[one], story.classes[other], count)
        for one, other, count in most_confused(answers.confusion, _PAIRS)
    ]
    if pairs:
        parts.append(page.Table(("class", "taken for", "videos"), pairs))
    return parts
