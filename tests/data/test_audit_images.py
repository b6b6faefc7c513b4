from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.audit import audit, kind_of
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train/ and val/ with two classes of three different images each."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(3):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def found(path: Path) -> dict[str, int]:
    return audit(str(path), QUIET).counts()


def test_both_splits_of_a_whole_folder_are_read_without_problems(folder):
    result = audit(str(folder), QUIET)
    assert (result.kind, result.entries, result.problems) == ("images", 12, ())


def test_images_that_do_not_decode_are_named_with_the_reason(folder):
    (folder / "train" / "cat" / "1.png").write_bytes(b"")
    (folder / "val" / "dog" / "0.png").write_bytes(b"text")
    result = audit(str(folder), QUIET)
    assert result.counts() == {"image does not decode": 2}
    assert [problem.where for problem in result.problems] == [
        f"{folder}/train/cat/1.png (empty file)",
        f"{folder}/val/dog/0.png (not an image)",
    ]


def test_images_outside_classes_and_classes_without_images_are_found(folder):
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "stray.png")
    (folder / "val" / "bird").mkdir()
    (folder / "train" / "bird").mkdir()
    assert found(folder) == {"class folder has no images": 2, "image lies beside the class folders": 1}


def test_classes_that_only_one_split_has_are_found(folder):
    (folder / "val" / "dog").rename(folder / "val" / "hound")
    assert found(folder) == {"class is not in val": 1, "class is not in train": 1}


def test_an_image_of_val_that_is_in_train_too_is_found(folder):
    copied = (folder / "train" / "cat" / "2.png").read_bytes()
    (folder / "val" / "cat" / "again.png").write_bytes(copied)
    result = audit(str(folder), QUIET)
    assert result.counts() == {"image of val is in train too": 1}
    assert "val/cat/again.png" in result.problems[0].where
    assert "train/cat/2.png" in result.problems[0].where


def test_every_wrong_line_of_val_txt_is_found(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    lines = ["a.png 3", "a.png 5", "a.png", "gone.png 1", f"{'x' * 5000}.png 1", "a.png 3"]
    (tmp_path / "val.txt").write_text("\n".join(lines))
    assert found(tmp_path) == {
        "listed image is missing": 2,
        "image is listed with two labels": 1,
        "line is not `file index`": 1,
    }


def test_flat_folders_and_dead_links(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert found(tmp_path) == {}
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    assert found(tmp_path) == {"image does not decode": 1}


def test_an_image_folder_with_a_table_beside_it_is_still_an_image_folder(folder):
    (folder / "labels.csv").write_text(json.dumps("not a video list"))
    assert kind_of(folder) == "images"


def test_nothing_to_check_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no images"):
        audit(str(tmp_path), QUIET)
    with pytest.raises(UserError, match="did you mean digits-coco"):
        audit("digits-cocoo", QUIET)
    with pytest.raises(UserError, match="is read as images, not as video"):
        audit("digits", QUIET, "video")
