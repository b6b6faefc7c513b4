"""Inputs that users name, videos in and out, and what is shown of detections."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.detection.results import Detections
from vtk_cli.data.inputs import find_inputs, is_video
from vtk_cli.data.moving_digits import draw_clips, write_h264
from vtk_cli.detect.inference import Inference
from vtk_cli.detect.prediction import Predictor, Shown, Wanted, predict, prediction_rows, predictions_json
from vtk_cli.detect.preprocessing import Preprocessing
from vtk_cli.detect.video_file import VideoFile
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images at different depths, a video, and a file that is neither."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.png", "deep/a.png"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "in" / name)
    _, frames = next(draw_clips("val", 1))
    write_h264(tmp_path / "in" / "clip.mp4", frames)
    (tmp_path / "in" / "notes.txt").write_text("none")
    return tmp_path / "in"


@pytest.fixture
def predictor(detector) -> Predictor:
    network = detector("vidt-micro")
    shown = Shown(0.0, None, 3, masks=False)
    return Predictor(
        Inference(network, CPU), Preprocessing("short", 64), CPU, ("a", "b", "c"), (1, 2, 3), shown, batch_size=4
    )


def names(files: list[Path]) -> list[str]:
    return [file.name for file in files]


def test_a_folder_is_all_its_images_and_videos_at_any_depth(folder):
    assert names(find_inputs([str(folder)])) == ["b.png", "clip.mp4", "a.png"]


def test_files_patterns_and_folders_come_in_order_and_once(folder):
    named = [str(folder / "deep/a.png"), str(folder / "*.png"), str(folder / "**/*.png"), str(folder)]
    assert names(find_inputs(named)) == ["a.png", "b.png", "clip.mp4"]
    assert is_video(folder / "clip.MP4")


@pytest.mark.parametrize("name", ["nowhere", "*.nothing", ""])
def test_what_is_not_there_is_refused(name, folder):
    with pytest.raises(UserError, match="no such image"):
        find_inputs([str(folder / "deep" / name) if name else "nowhere/*"])


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="no images and no videos"):
        find_inputs([str(tmp_path)])


def test_the_best_of_the_classes_that_are_asked_for_are_shown():
    scores = np.array([0.2, 0.9, 0.5, 0.7, 0.6])
    found = Detections(1, np.zeros((5, 4)), scores, np.array([0, 1, 0, 0, 2]))
    assert Shown(0.3, [0, 2], 2, masks=False).of(found).scores.tolist() == [0.7, 0.6]
    assert Shown(0.3, None, 9, masks=False).of(found).scores.tolist() == [0.9, 0.7, 0.6, 0.5]


def test_images_and_videos_are_written_with_what_was_found(folder, predictor, tmp_path):
    out = tmp_path / "out"
    files = find_inputs([str(folder)])
    wanted = Wanted(text=True, json=True, crops=True)
    found = predict(predictor, files, out, wanted=wanted, every=8, threads=1, console=QUIET)
    assert [(one.file.name, one.frame) for one in found.found] == [
        ("b.png", None),
        ("a.png", None),
        ("clip.mp4", 0),
        ("clip.mp4", 8),
    ]
    assert {path.name for path in out.iterdir()} == {
        "a.jpg",
        "b.jpg",
        "clip.mp4",
        "labels",
        "crops",
        "predictions.json",
    }
    assert sorted(path.name for path in (out / "labels").iterdir()) == [
        "a.txt",
        "b.txt",
        "clip-000000.txt",
        "clip-000008.txt",
    ]
    with av.open(str(out / "clip.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 2
    entries = predictions_json(found, predictor)["images"]
    assert [len(one["objects"]) for one in entries] == [3] * 4
    assert entries[-1]["frame"] == 8
    assert [file for file, _ in prediction_rows(found, predictor.class_names)] == [
        str(file) for file in (folder / "b.png", folder / "deep/a.png", folder / "clip.mp4")
    ]


def test_files_of_one_name_do_not_overwrite_one_another(folder, predictor, tmp_path):
    Image.new("RGB", (50, 50), "blue").save(folder / "deep" / "b.png")
    files = [folder / "b.png", folder / "deep" / "b.png"]
    found = predict(predictor, files, tmp_path / "out", wanted=Wanted(), every=1, threads=1, console=QUIET)
    assert names(found.pictures) == ["b.jpg", "b-2.jpg"]


def test_a_video_file_is_whole_or_not_there(tmp_path):
    frame = np.zeros((33, 41, 3), np.uint8)
    with VideoFile(tmp_path / "a.mp4") as video:
        for _ in range(4):
            video.add(frame, 29.97)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (40, 32)
        assert sum(1 for _ in container.decode(stream)) == 4

    def broken_off() -> None:
        with VideoFile(tmp_path / "b.mp4") as video:
            video.add(frame, 25)
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    with VideoFile(tmp_path / "c.mp4"):
        pass
    assert names([*tmp_path.iterdir()]) == ["a.mp4"]
