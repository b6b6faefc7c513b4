from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import BrokenImage
from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation, PointAnswers
from vtk_cli.train.report import (
    Report,
    evaluation_json,
    per_class_csv,
    result_rows,
    write_evaluation,
    write_mistakes,
    write_report,
)
from vtk_cli.train.robustness import SetScore

NAMES = ["ant", "bee & <b>", "cow"]


def answered(**changes: Any) -> Evaluation:
    """Four of five right; the mistake, sample 4, takes a bee for an ant."""
    values: dict[str, Any] = {
        "indices": np.array([0, 1, 2, 4, 5]),
        "targets": np.array([0, 0, 1, 1, 0]),
        "predictions": np.array([0, 0, 1, 0, 0]),
        "in_top5": np.ones(5, np.bool_),
        "losses": np.full(5, 0.5),
        "confidences": np.array([0.9, 0.8, 0.7, 0.95, 0.6]),
        "classes": 3,
    }
    return Evaluation(**(values | changes))


def colour(index: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (40 * index, 200, 30))


def images(read: Any = colour) -> ImageSource:
    return ImageSource("set", tuple(NAMES), torch.zeros(6, dtype=torch.int64), read, tuple("abcdef"))


class Contents(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.pictures = 0
        self.text = ""
        self._in_heading = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self._in_heading = tag == "h2"
        self.pictures += tag == "img"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_heading and data.strip():
            self.headings.append(data)
        self._in_heading = False


def read(page: Path) -> Contents:
    contents = Contents()
    contents.feed(page.read_text(encoding="utf-8"))
    return contents


def test_the_page_of_a_run_has_what_there_is_to_say(tmp_path: Path) -> None:
    history = [{"epoch": e, "step": e, "loss": 1 / e, "lr": 0.1, "top1": 0.5} for e in (1, 2, 3)]
    report = Report(
        "80.0 % on digits",
        "A small ViT.",
        {"top-1": "80.0 %"},
        history,
        answered(),
        NAMES,
        images(),
        cost={"images/s": 812},
        scores=[SetScore("sketch", "top-1", 0.5, 10)],
        options={"epochs": 3},
        warnings=["too few images"],
        footer="vtk 0.1",
    )
    page = read(write_report(tmp_path, report))
    assert page.headings == [
        "Read this first",
        "Training",
        "Classes",
        "Mistakes",
        "The surest mistakes",
        "Other sets",
        "What it took",
        "Options",
    ]
    assert page.pictures == 4
    for text in ("80.0 % on digits", "too few images", "bee & <b>", "sketch", "812", "vtk 0.1"):
        assert text in page.text
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"training.png", "classes.png", "confusion.png", "mistakes.png"} <= plots


def test_a_run_without_images_to_evaluate_on_has_its_curves(tmp_path: Path) -> None:
    history = [{"epoch": 1, "step": 1, "loss": 1.0, "lr": 0.1}]
    page = read(write_report(tmp_path, Report("t", "", {}, history, None, NAMES)))
    assert page.headings == ["Training"]


def test_an_evaluation_is_written_in_every_form(tmp_path: Path) -> None:
    scores = [SetScore("real", "ReaL", float("nan"), 0)]
    page = write_evaluation(tmp_path / "out", answered(), NAMES, images=None, title="t", scores=scores)
    assert read(page).headings == ["Classes", "Mistakes", "Other sets"]
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content == evaluation_json(answered(), NAMES, scores)
    assert content["top1"] == 0.8
    assert content["classes"][1] == {"label": 1, "name": "bee & <b>", "images": 2, "accuracy": 0.5}
    assert content["classes"][2]["accuracy"] is None
    assert content["confused"] == [{"class": "bee & <b>", "taken_for": "ant", "times": 1}]
    assert content["sets"] == [{"name": "real", "measure": "ReaL", "value": None, "images": 0}]
    rows = list(csv.DictReader((tmp_path / "out" / "per-class.csv").read_text().splitlines()))
    assert [row["accuracy"] for row in rows] == ["1.000000", "0.500000", ""]


def test_many_labels_are_reported_by_average_precision(tmp_path: Path) -> None:
    found = MultiLabelEvaluation(
        np.arange(2), np.array([[1, 0, 0], [0, 1, 0]], np.bool_), np.array([[2.0, 0.0, 1.0], [1.0, 1.0, 3.0]])
    )
    page = write_evaluation(tmp_path, found, NAMES, images=images(), title="t")
    assert read(page).headings == ["Classes"]
    assert result_rows(found)[0] == ("mAP", "100.00 %")
    assert per_class_csv(found, NAMES).splitlines()[0] == "label,class,images,average_precision"
    assert evaluation_json(found, NAMES)["classes"][0]["images"] == 1


def test_the_surest_mistakes_are_shown_with_what_they_are(tmp_path: Path) -> None:
    seen: list[int] = []

    def reader(index: int) -> Image.Image:
        seen.append(index)
        return colour(index)

    assert write_mistakes(tmp_path / "m.png", answered(), NAMES, images(reader))
    assert seen == [4]
    with Image.open(tmp_path / "m.png") as sheet:
        assert (np.asarray(sheet) == (160, 200, 30)).all(axis=2).sum() == 128 * 128


def test_without_mistakes_no_sheet_is_written(tmp_path: Path) -> None:
    perfect = answered(predictions=np.array([0, 0, 1, 1, 0]))
    assert not write_mistakes(tmp_path / "m.png", perfect, NAMES, images())
    assert not (tmp_path / "m.png").exists()


def test_a_mistake_that_is_gone_by_now_is_passed_over(tmp_path: Path) -> None:
    def gone(index: int) -> Image.Image:
        raise BrokenImage("no such file", "x")

    assert not write_mistakes(tmp_path / "m.png", answered(), NAMES, images(gone))


def test_top_5_is_left_out_where_every_answer_is_among_five() -> None:
    assert [name for name, _ in result_rows(answered())] == ["top-1", "NLL", "calibration error", "images"]
    assert "top-5" in dict(result_rows(answered(classes=10)))


def test_points_are_reported_where_there_are_clicks() -> None:
    middle = np.full((5, 1, 2), 0.5)
    points = PointAnswers(
        middle, middle + np.array([0.3, 0.4]), np.ones((5, 1), np.bool_), 20, np.tile([0.4, 0.4, 0.6, 0.6], (5, 1, 1))
    )
    rows = dict(result_rows(answered(points=points)))
    assert rows["click error"] == "10.00 px (35.36 % of the diagonal)"
    assert rows["points inside boxes"] == "100.00 %"


@pytest.mark.parametrize("name", ["caf\udce9", "$a$", 'a/b,"c"\n'])
def test_class_folders_may_have_any_name(tmp_path: Path, name: str) -> None:
    write_evaluation(
        tmp_path, answered(), [name, *NAMES[1:]], images=images(), title=name.encode("utf-8", "replace").decode()
    )
    assert len(list(csv.reader((tmp_path / "per-class.csv").open(newline="")))) == 4
