from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.adapt.drawn_domains import draw_images
from vtk_cli.adapt.asking import Query, asked_rows, write_query
from vtk_cli.adapt.labelling_page import data_uri
from vtk_cli.adapt.labels import read_answers
from vtk_cli.adapt.pool import Pool, files_pool
from vtk_cli.adapt.query.outputs import Picks, PoolOutputs

CLASSES = ("bike", "cup, big", "<pen>")
IDS = tuple(f"t/{number:02d}.png" for number in range(50))
PICKS = Picks(IDS[::-1], tuple(float(number) / 7 for number in range(50, 0, -1)))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return files_pool("t", draw_images(tmp_path / "all", IDS), IDS)


def outputs() -> PoolOutputs:
    logits = torch.zeros(50, 3)
    logits[:, 1] = 2.0
    logits[:, 2] = 1.0
    return PoolOutputs(IDS, logits, torch.zeros(50, 4), torch.arange(50.0))


def query(pool: Pool, *, blind: bool = False) -> Query:
    rows = asked_rows(PICKS, pool, CLASSES, None if blind else outputs())
    return Query(rows, 1, "loss", 0, 0, "abc", CLASSES)


def table(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "query.csv").read_text(), newline="")))


def test_the_table_has_a_row_for_each_image_and_can_be_handed_back(pool: Pool, tmp_path: Path) -> None:
    write_query(tmp_path / "q", query(pool), pool, outputs())
    rows = table(tmp_path / "q")
    assert list(rows[0]) == ["rank", "sample_id", "path", "score", "pred", "pred_conf", "second", "label", "note"]
    assert [row["sample_id"] for row in rows] == list(IDS[::-1])
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 51)]
    total = math.e**2 + math.e + 1
    assert rows[0]["pred"] == "cup, big"
    assert rows[0]["second"] == "<pen>"
    assert float(rows[0]["pred_conf"]) == pytest.approx(math.e**2 / total, rel=1e-5)
    assert float(rows[0]["score"]) == pytest.approx(50 / 7, rel=1e-5)
    assert Path(rows[0]["path"]).is_file()
    assert {one.label for one in read_answers(tmp_path / "q" / "query.csv")} == {""}


def test_a_blind_question_shows_no_guess_anywhere(pool: Pool, tmp_path: Path) -> None:
    write_query(tmp_path / "q", query(pool, blind=True), pool)
    assert all(not row["pred"] and not row["pred_conf"] and not row["second"] for row in table(tmp_path / "q"))
    assert '"guess": "cup' not in (tmp_path / "q" / "label.html").read_text()
    assert not (tmp_path / "q" / "scores.npz").exists()


def test_the_same_question_gives_the_same_bytes(pool: Pool, tmp_path: Path) -> None:
    for name in "ab":
        write_query(tmp_path / name, query(pool), pool, outputs())
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    sheets = ["contact_sheet_01.png", "contact_sheet_02.png"]
    assert names == [*sheets, "label.html", "label_studio.json", "query.csv", "query.json", "scores.npz"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_details_say_where_the_question_came_from(pool: Pool, tmp_path: Path) -> None:
    write_query(tmp_path / "q", query(pool), pool, outputs())
    said = json.loads((tmp_path / "q" / "query.json").read_text())
    assert (said["strategy"], said["seed"], said["model_sha1"], said["class_names"]) == (
        "loss",
        0,
        "abc",
        list(CLASSES),
    )
    assert [row["sample_id"] for row in said["rows"]] == list(IDS[::-1])
    scores = np.load(tmp_path / "q" / "scores.npz")
    assert scores["ids"].tolist() == list(IDS)
    np.testing.assert_array_equal(scores["predicted_losses"], np.arange(50.0))


def test_sheets_hold_48_images_and_old_ones_are_removed(pool: Pool, tmp_path: Path) -> None:
    write_query(tmp_path / "q", query(pool), pool)
    few = Query(query(pool).rows[:3], 1, "loss", 0, 1, "", CLASSES)
    assert len(list((tmp_path / "q").glob("contact_sheet_*"))) == 2
    write_query(tmp_path / "q", few, pool)
    assert [path.name for path in (tmp_path / "q").glob("contact_sheet_*")] == ["contact_sheet_01.png"]
    with Image.open(tmp_path / "q" / "contact_sheet_01.png") as sheet:
        assert sheet.width > 3 * 160


def test_a_score_that_is_none_is_left_empty(pool: Pool, tmp_path: Path) -> None:
    rows = asked_rows(Picks(IDS[:2], (math.nan, math.nan)), pool, CLASSES)
    write_query(tmp_path / "q", Query(rows, 1, "random", 0, 0, "", CLASSES), pool)
    assert [row["score"] for row in table(tmp_path / "q")] == ["", ""]


def test_the_page_is_whole_in_itself_and_no_name_becomes_markup(pool: Pool, tmp_path: Path) -> None:
    write_query(tmp_path / "q", query(pool), pool)
    page = (tmp_path / "q" / "label.html").read_text()
    assert "<pen>" not in page
    assert not re.search(r"https?://|src=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 50


def test_small_images_are_exact_in_the_page_and_large_ones_shrunk() -> None:
    def shown(image: Image.Image) -> Image.Image:
        return Image.open(io.BytesIO(base64.b64decode(data_uri(image).partition(",")[2])))

    small = Image.effect_noise((32, 20), 80).convert("RGB")
    assert shown(small).convert("RGB").tobytes() == small.tobytes()
    large = Image.effect_noise((2000, 1000), 80).convert("RGB")
    assert shown(large).size == (512, 256)
    assert large.size == (2000, 1000)


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run the page's script")
def test_keys_on_the_page_give_labels_that_can_be_read(pool: Pool, tmp_path: Path) -> None:
    write_query(tmp_path / "q", query(pool), pool)
    keys = ["2", "3", "s", "x", "o", "ArrowLeft", "Backspace", "1", "Enter", "filter:PEN", "Enter"]
    program = [str(shutil.which("node")), str(Path(__file__).with_name("press_keys.js"))]
    done = subprocess.run(
        [*program, str(tmp_path / "q" / "label.html"), json.dumps(keys)], capture_output=True, text=True, check=True
    )
    (tmp_path / "labels.csv").write_text(done.stdout)
    answers = {one.sample_id: one.label for one in read_answers(tmp_path / "labels.csv")}
    order = IDS[::-1]
    labels = ["cup, big", "<pen>", ":skip", ":bad", "bike", "cup, big", "<pen>"]
    assert answers == dict(zip(order, labels, strict=False))


def test_what_was_written_into_a_table_stays_when_the_question_is_written_again(pool: Pool, tmp_path: Path) -> None:
    folder = tmp_path / "q"
    write_query(folder, query(pool), pool, outputs())
    rows = table(folder)
    rows[3] |= {"label": "cup, big", "note": "blurred"}
    lines = [";".join(rows[0]), *(";".join(row.values()) for row in rows)]  # as a spreadsheet saves it
    (folder / "query.csv").write_text("\ufeff" + "\n".join(lines))
    write_query(folder, query(pool, blind=True), pool)
    again = table(folder)
    assert (again[3]["sample_id"], again[3]["label"], again[3]["note"]) == (IDS[-4], "cup, big", "blurred")
    assert {row["label"] for row in again[:3] + again[4:]} == {""}
    assert {row["pred"] for row in again} == {""}
