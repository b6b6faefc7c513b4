"""What a run and an evaluation show at their end: numbers, curves, pictures, the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vtk_cli.data.detection.evaluation import ClassScores
from vtk_cli.data.detection.outlines import outline_mask
from vtk_cli.data.detection.results import Detections
from vtk_cli.reports import page
from vtk_cli.reports.contact_sheet import Tile, write_contact_sheet
from vtk_cli.reports.curves import Curve, draw_curves
from vtk_cli.reports.overlay import Mark, draw_overlay
from vtk_cli.segment.labels.sources import Sources
from vtk_cli.segment.rounds import Round
from vtk_cli.segment.training.teaching import METRICS, Measured

PAGE = "report.html"
CLASS_COLUMNS = ("class", "objects", "AP", "AP50", "AP75")
_MEANING = {"AP": "AP, IoU .5:.95", "AP50": "AP, IoU .5", "AP75": "AP, IoU .75", "AR100": "recall, 100 masks an image"}
_SHOWN, _LEAST_SCORE = 12, 0.3
_CURVES = {
    "loss": "loss",
    "ap": "AP by itself",
    "ema_ap": "AP of the average",
    "pseudo_ap": "AP at clicks",
    "iou": "IoU of held-out masks",
}
"""What is drawn of a training, of the values in its rows."""


@dataclass(frozen=True, eq=False)
class Story:
    """What a run has come to.

    Args:
        folder: of the run.
        rounds: that were made, in order.
        sources: the images.
        student: measured; None where there is no student or nothing to measure it on.
        options: of the run.
    """

    folder: Path
    rounds: tuple[Round, ...]
    sources: Sources
    student: Measured | None
    options: Mapping[str, Any]

    @property
    def labels(self) -> Path:
        """The folder of the last round, whose labels the student has learned."""
        return self.rounds[-1].folder

    def history(self, folder: Path) -> list[dict[str, Any]]:
        """The rows of the training of a stage; empty where it was not made."""
        return _rows(folder / METRICS)

    def students(self) -> dict[str, float]:
        """The AP of the students before the last round's, by their rounds."""
        ends = {each.name or "round-1": self.history(each.folder / "student")[-1:] for each in self.rounds[:-1]}
        return {name: rows[0]["ap"] for name, rows in ends.items() if rows and "ap" in rows[0]}

    def summary(self) -> dict[str, Any]:
        """What a program wants to know."""
        strong, weak = self.sources.strong, self.sources.weak
        found: dict[str, Any] = {
            "strong images": len(strong),
            "masks": strong.objects,
            "weak images": len(weak),
            "clicks": weak.clicks,
        }
        unresolved = _read(self.labels / "pseudo" / "unresolved.json")
        if unresolved is not None:
            found["unresolved clicks"] = len(unresolved["clicks"])
            found["unresolved by reason"] = unresolved["counts"]
        teacher = [row for row in self.history(self.folder / "teacher") if "ap" in row]
        if teacher:
            names = ("ap", "ap50", "pseudo_ap", "pseudo_ap50")
            found["teacher"] = {name: teacher[-1][name] for name in names if name in teacher[-1]}
        chosen = _read(self.rounds[-1].refiner.with_name("chosen.json"))
        if chosen is not None:
            found["held-out IoU"] = {"rough": chosen["rough_iou"], "refined": chosen["iou"]}
        if len(self.rounds) > 1:
            found["students before"] = self.students()
        if self.student is not None:
            found["student"] = self.student.masks.to_json()
        return found

    def rows(self) -> list[tuple[str, str]]:
        """The same for people."""
        found = self.summary()
        rows = [(name, f"{found[name]:,}") for name in ("strong images", "masks", "weak images", "clicks")]
        if "unresolved clicks" in found:
            rows.append(("unresolved clicks", f"{found['unresolved clicks']:,}"))
        meaning = {"ap": "teacher, AP", "pseudo_ap": "teacher at clicks, AP of the masks"}
        rows += [
            (text, f"{100 * found['teacher'][name]:.1f} %")
            for name, text in meaning.items()
            if name in found.get("teacher", {})
        ]
        if "held-out IoU" in found:
            iou = found["held-out IoU"]
            rows.append(("IoU of held-out masks, rough -> refined", f"{iou['rough']:.3f} -> {iou['refined']:.3f}"))
        rows += [(f"student of {name}, AP", f"{100 * ap:.1f} %") for name, ap in self.students().items()]
        if self.student is not None:
            rows += [(f"student, {text}", f"{value} %") for text, value in number_rows(self.student)]
        return rows


def number_rows(measured: Measured) -> list[tuple[str, str]]:
    """COCO's numbers in words and per cent."""
    return [(text, _percent(measured.numbers[name])) for name, text in _MEANING.items()]


def class_rows(measured: Measured) -> list[tuple[object, ...]]:
    """Each class: objects, AP, AP50, AP75."""
    return [_class_row(one) for one in measured.masks.classes]


def write_report(story: Story) -> Path:
    """Write `report.html` and its pictures into the folder of the run."""
    plots = story.folder / "plots"
    sections = [page.Section("Numbers", [page.Table(("", "value"), story.rows())])]
    curves = _curves(story, plots)
    if curves:
        sections.append(page.Section("Training", curves))
    title = "PointWSSIS"
    if story.student is not None:
        title += f": AP {_percent(story.student.numbers['AP'])}"
        sections.append(page.Section("Classes", [page.Table(CLASS_COLUMNS, class_rows(story.student))]))
        picture = write_pictures(plots / "found.png", story.student)
        sections.append(page.Section("What the student finds", [page.Image(picture, "images with the masks found")]))
    warned = "AP is of what a network finds by itself; at clicks, that of a mask for each click, and no detection AP."
    sections[0] = page.Section("Numbers", [*sections[0].parts, page.Text(warned)])
    path = story.folder / PAGE
    strong, weak = story.sources.strong, story.sources.weak
    subtitle = f"{len(strong):,} images with masks, {len(weak):,} with {weak.clicks:,} clicks (arXiv 2303.15062)"
    footer = f"vtk segment run --config {story.folder / 'config.toml'}"
    page.write_page(path, page.Page(title, subtitle, {}, sections, footer))
    return path


def write_evaluation(folder: Path, measured: Measured, title: str, about: str) -> Path:
    """Write `report.html` and the pictures of an evaluation."""
    picture = write_pictures(folder / "found.png", measured)
    sections = [
        page.Section("Numbers", [page.Table(("", "%"), number_rows(measured))]),
        page.Section("Classes", [page.Table(CLASS_COLUMNS, class_rows(measured))]),
        page.Section("What is found", [page.Image(picture, "images with the masks found")]),
    ]
    page.write_page(folder / PAGE, page.Page(title, about, {}, sections))
    return folder / PAGE


def write_pictures(path: Path, measured: Measured) -> Path:
    """A sheet of some images with what was found in them."""
    records = {record.id: record for record in measured.dataset.records}
    names = measured.dataset.class_names
    tiles = []
    for one in measured.detections[:_SHOWN]:
        record = records[one.image_id]
        shown = draw_found(record.read(), one.above(_LEAST_SCORE), names)
        tiles.append(Tile(np.asarray(shown), record.file.name))
    write_contact_sheet(path, tiles, columns=4, cell=320)
    return path


def draw_found(image: Image.Image, found: Detections, names: Sequence[str]) -> Image.Image:
    """An image with masks, boxes, classes and scores."""
    masks = found.masks or ()
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), masks, strict=True)
    marks = [
        Mark(
            f"{names[label]} {score:.2f}",
            label,
            box=(box[0], box[1], box[2], box[3]),
            mask=outline_mask(mask, mask.height, mask.width),
        )
        for label, score, box, mask in rows
    ]
    return draw_overlay(image, marks)


def _curves(story: Story, plots: Path) -> list[page.Text | page.Table | page.Image]:
    pictures: list[page.Text | page.Table | page.Image] = []
    for each in story.rounds:
        for stage in (stage for stage in each.stages if stage in {"teacher", "refine", "student"}):
            rows, title = story.history(each.folder / stage), each.title(stage)
            for measure, text in _CURVES.items():
                known = [row for row in rows if "epoch" in row and measure in row]
                if len(known) > 1:
                    x, y = (np.array([row[name] for row in known], np.float64) for name in ("step", measure))
                    drawn = draw_curves(
                        plots / f"{title.replace(' ', '-')}-{measure}",
                        [Curve(title, x, y)],
                        title=f"{text}: {title}",
                        x_label="updates",
                        y_label=text,
                    )
                    pictures.append(page.Image(drawn.png, f"{text} in the training of {title}"))
    return pictures


def _class_row(one: ClassScores) -> tuple[object, ...]:
    return one.name, one.objects, *(_percent(value) for value in (one.ap, one.ap50, one.ap75))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
