from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vtk_cli.console import Console
from vtk_cli.data.augmentation import eval_transform
from vtk_cli.errors import ExitCode, JobError, UserError
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train.prediction import (
    Predictions,
    find_images,
    predict,
    prediction_table,
    predictions_json,
    write_predictions,
)

PIXELS = PixelConfig(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crop_pct=1.0)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class Colour(nn.Module):
    """Logits of red, green, blue: twice the mean of each channel."""

    def forward(self, images: Tensor) -> Tensor:
        return 2.0 * images.mean(dim=(2, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, colour in COLOURS.items():
        path = tmp_path / "photos" / ("deep" if name == "blue" else "") / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 20), colour).save(path)
    return tmp_path / "photos"


def look(paths: list[Path], **options: Any) -> Predictions:
    defaults: dict[str, Any] = {
        "transform": eval_transform(8),
        "pixels": PIXELS,
        "class_names": tuple(COLOURS),
        "device": torch.device("cpu"),
        "console": Console(quiet=True),
        "top_k": 2,
    }
    return predict(Colour().eval(), paths, **(defaults | options))


def test_each_image_gets_its_likeliest_classes_best_first(folder: Path) -> None:
    found = look([folder])
    assert [(row.file.name, row.guesses[0].name) for row in found.rows] == [
        ("blue.png", "blue"),
        ("green.png", "green"),
        ("red.png", "red"),
    ]
    probability = np.exp(2) / (np.exp(2) + 2)
    for row in found.rows:
        assert [guess.probability for guess in row.guesses] == pytest.approx([probability, (1 - probability) / 2])
        assert row.guesses[0].label == list(COLOURS).index(row.guesses[0].name)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_batch_size_changes_nothing(folder: Path, batch_size: int) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    found, expected = look([folder], batch_size=batch_size), look([folder])
    assert [row.file for row in found.rows] == [row.file for row in expected.rows]
    assert [row.guesses[0].name for row in found.rows] == ["blue", "green", "red"]
    assert found.broken == ((folder / "broken.png", "not an image"),)


def test_with_many_labels_an_image_every_class_has_its_own_probability(folder: Path) -> None:
    row = look([folder / "red.png"], multi_label=True, top_k=3).rows[0]
    assert row.guesses[0].probability == pytest.approx(1 / (1 + np.exp(-2)))
    assert row.guesses[1].probability == pytest.approx(0.5)


def test_more_classes_than_there_are_cannot_be_named(folder: Path) -> None:
    assert len(look([folder / "red.png"], top_k=9).rows[0].guesses) == 3


def test_files_keep_their_order_and_come_once(folder: Path) -> None:
    green, red = folder / "green.png", folder / "red.png"
    assert find_images([red, green, red, folder]) == [red, green, folder / "deep" / "blue.png"]


def test_a_file_may_have_any_suffix(folder: Path) -> None:
    odd = (folder / "red.png").rename(folder / "upload_71")
    assert look([odd]).rows[0].guesses[0].name == "red"


def test_broken_files_are_named_and_passed_over(folder: Path, tmp_path: Path) -> None:
    (folder / "empty.jpg").touch()
    console = Console(quiet=True)
    with console.log_to(tmp_path / "log"):
        found = look([folder], console=console)
    assert len(found.rows) == 3
    assert "empty.jpg: empty file; skipped" in (tmp_path / "log").read_text()


def test_only_broken_files_are_wrong_input(folder: Path) -> None:
    (folder / "red.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"none of 1 images can be read: .*red.png \(not an image\)") as caught:
        look([folder / "red.png"])
    assert caught.value.exit_code is ExitCode.USAGE


def test_what_is_not_there_is_wrong_input(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="no such image or folder"):
        look([folder, tmp_path / "none.jpg"])
    with pytest.raises(UserError, match="no images in the folder"):
        look([tmp_path / "bare"])
    with pytest.raises(UserError, match="name images"):
        look([])


def test_answers_that_are_no_numbers_fail_the_job(folder: Path) -> None:
    with pytest.raises(JobError, match="not finite"):
        look([folder], pixels=PixelConfig(8, (0.0,) * 3, (0.0,) * 3))


def test_the_files_say_what_the_rows_say(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    found = look([folder])
    write_predictions(tmp_path / "out", found)
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_1"] for row in rows] == ["blue", "green", "red"]
    assert float(rows[0]["probability_2"]) == pytest.approx(found.rows[0].guesses[1].probability, abs=1e-6)
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content == predictions_json(found)
    assert content["broken"] == [{"file": str(folder / "broken.png"), "reason": "not an image"}]
    columns, cells = prediction_table(found.rows)
    assert columns == ["image", "top 1", "top 2"]
    assert cells[2] == [str(folder / "red.png"), "red (78.7 %)", "green (10.7 %)"]
    with Image.open(tmp_path / "out" / "predictions.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    assert all((pixels == colour).all(axis=1).sum() > 5000 for colour in COLOURS.values())


def test_a_name_that_is_no_text_is_spelled_out(folder: Path, tmp_path: Path) -> None:
    odd = (folder / "red.png").rename(Path(str(folder), "caf\udce9, a.png"))
    write_predictions(tmp_path / "out", look([odd]))
    assert json.loads((tmp_path / "out" / "predictions.json").read_text())["predictions"][0]["file"].endswith(
        "caf\\udce9, a.png"
    )
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["file"].endswith("caf\\udce9, a.png")
