"""`vtk data check` of lists of videos: every format, every wrong entry named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.video.written_videos import moving, write_video
from vtk_cli.console import Console
from vtk_cli.data import audit_video
from vtk_cli.data.audit import audit, kind_of
from vtk_cli.data.video_probe import VideoProbe
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of 30 a second."""
    return write_video(tmp_path_factory.mktemp("clip") / "a.mp4", moving(FRAMES, 32, 48))


def place(clip: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)


def write_frames(folder: Path, sizes: list[int]) -> None:
    folder.mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.fromarray(np.full((16, size, 3), number, np.uint8)).save(folder / f"img_{number:05d}.jpg")


def test_a_list_of_something_something_is_told_from_coco_and_its_unknown_templates_are_named(clip, tmp_path):
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps({"Holding something": "0"}))
    place(clip, tmp_path / "1.webm", tmp_path / "2.webm")
    rows = [{"id": name, "template": template} for name, template in (("1", "Holding [something]"), ("2", "Odd"))]
    listing = tmp_path / "something-something-v2-train.json"
    listing.write_text(json.dumps([*rows, {"id": "3", "template": "Holding [something]"}]))
    for target in (listing, tmp_path):
        result = audit(str(target), QUIET)
        assert (result.kind, result.counts()) == ("video", {"template is unknown": 1, "video is missing": 1})
        assert "(id 2)" in result.problems[0].where
    (tmp_path / "instances_val.json").write_text("{}")
    assert kind_of(tmp_path / "instances_val.json") == "coco"


def test_both_parts_of_hmdb51_are_checked(clip, tmp_path):
    place(clip, tmp_path / "videos" / "run" / "x.avi")
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "run_test_split1.txt").write_text("x.avi 1\ngone.avi 2\nunused.avi 0\n")
    result = audit(str(splits), QUIET, root=tmp_path / "videos")
    assert (result.kind, result.entries, result.counts()) == ("video", 2, {"video is missing": 1})


def test_frames_in_folders_are_decoded_and_must_have_one_size(tmp_path):
    write_frames(tmp_path / "good", [20, 20, 20])
    write_frames(tmp_path / "odd", [20, 22])
    write_frames(tmp_path / "torn", [20, 20])
    (tmp_path / "torn" / "img_00001.jpg").write_bytes(b"text")
    (tmp_path / "none").mkdir()
    (tmp_path / "val.csv").write_text("good 3 0\nodd 2 0\ntorn 2 0\nnone 0 0\n")
    assert audit(str(tmp_path / "val.csv"), QUIET).counts() == {
        "frames are of different sizes": 1,
        "a frame does not decode": 1,
        "folder holds no frames": 1,
    }


def test_a_part_after_the_end_of_its_video_is_named_and_the_file_decoded_once(clip, tmp_path, monkeypatch):
    place(clip, tmp_path / "a.mp4")
    (tmp_path / "x.csv").write_text("path,label,start,end\na.mp4,0,0,0.2\na.mp4,1,0.2,0.4\na.mp4,1,30,31\n")
    decoded = []
    call = VideoProbe.__call__
    monkeypatch.setattr(VideoProbe, "__call__", lambda probe, path: decoded.append(path) or call(probe, path))
    result = audit(str(tmp_path / "x.csv"), QUIET)
    assert (result.entries, result.counts()) == (3, {"part begins after the end of its video": 1})
    assert "x.csv:4" in result.problems[0].where
    assert decoded == [tmp_path / "a.mp4"]


def test_labels_beyond_the_names_or_beyond_the_training_list_are_named_with_their_line(clip, tmp_path):
    place(clip, tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("a.mp4 1\n")
    (tmp_path / "val.csv").write_text("a.mp4 2\n")
    result = audit(str(tmp_path), QUIET)
    assert [(problem.where.split("/")[-1], problem.what) for problem in result.problems] == [
        ("a.mp4", "label is not among those of the training list")
    ]
    assert "val.csv:1" in result.problems[0].where
    (tmp_path / "classes.txt").write_text("zero\none\ntwo\n")
    assert audit(str(tmp_path), QUIET).problems == ()
    (tmp_path / "classes.txt").write_text("zero\n")
    assert audit(str(tmp_path), QUIET).counts() == {"label is out of range": 2}


def test_relative_paths_start_at_the_root_and_a_format_can_be_forced(clip, tmp_path):
    place(clip, tmp_path / "videos" / "clip_1.mp4")
    (tmp_path / "lists").mkdir()
    listing = tmp_path / "lists" / "val.txt"
    listing.write_text("clip_1 0\n")
    assert audit(str(listing), QUIET).counts() == {"video is missing": 1}
    assert audit(str(listing), QUIET, list_format="gym99", root=tmp_path / "videos").problems == ()


def test_what_is_no_list_of_videos_has_no_root(tmp_path):
    write_frames(tmp_path / "cats", [20])
    with pytest.raises(UserError, match="only lists of videos"):
        audit(str(tmp_path), QUIET, root=tmp_path)
    with pytest.raises(UserError, match="leave them out"):
        audit("moving-digits", QUIET, list_format="paths")


def test_a_folder_of_lists_leaves_out_names_and_answers(tmp_path):
    for name, text in {
        "something-something-v2-labels.json": '{"a": "0"}',
        "something-something-v2-validation.json": '[{"id": "1", "template": "a"}]',
        "test-answers.csv": "1;a\n",
        "notes.txt": "text\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert [listed.path.name for listed in audit_video.video_parts(tmp_path)] == [
        "something-something-v2-validation.json"
    ]
