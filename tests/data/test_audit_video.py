from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.console import Console
from vtk_cli.data import video_probe
from vtk_cli.data.audit import audit, kind_of
from vtk_cli.data.moving_digits import write_h264
from vtk_cli.data.video.lists import read_video_list
from vtk_cli.data.video_probe import Probed, VideoProbe, decode_all
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    write_h264(path, frames)
    return path


def place(clip: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)


def test_the_embedded_clips_have_no_problems(clips_folder):
    result = audit(str(clips_folder), QUIET)
    assert (result.kind, result.entries, result.problems) == ("video", 104, ())


def test_broken_and_missing_videos_are_named_with_their_line(clip, tmp_path):
    place(clip, tmp_path / "a.mp4")
    whole = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("text")
    (tmp_path / "empty.mp4").touch()
    listing = tmp_path / "val.csv"
    listing.write_text("a.mp4 0\ncut.mp4 1\ntext.mp4 2\nempty.mp4 0\ngone.mp4 1\n")
    result = audit(str(listing), QUIET)
    assert result.entries == 5
    assert {problem.where.split(":")[1].split(" ")[0]: problem.what for problem in result.problems} == {
        "2": "video does not decode",
        "3": "video does not decode",
        "4": "video is an empty file",
        "5": "video is missing",
    }


def test_wrong_lines_of_a_list_are_found(clip, tmp_path):
    place(clip, tmp_path / "a.mp4", tmp_path / "b c.mp4")
    (tmp_path / "t.csv").write_text("a.mp4 0\nb c.mp4,1\na.mp4 0\na.mp4\t2\n\nb c.mp4\nb c.mp4 -1\n")
    assert audit(str(tmp_path / "t.csv"), QUIET).counts() == {
        "video is listed twice": 1,
        "video is listed with two labels": 1,
        "line is not `path label`": 1,
        "label is negative": 1,
    }


def test_lists_may_be_separated_by_space_comma_or_tab_have_a_header_or_no_labels(tmp_path):
    for text in (
        "a b.mp4 3\nc.mp4 0\n",
        "a b.mp4,3\r\nc.mp4, 0\r\n",
        "a b.mp4\t3\nc.mp4\t0",
        "path,label\na b.mp4,3\nc.mp4,0",
    ):
        (tmp_path / "x.csv").write_text(text)
        found = read_video_list(tmp_path / "x.csv")
        assert [(video.path, video.label) for video in found.videos] == [
            (tmp_path / "a b.mp4", 3),
            (tmp_path / "c.mp4", 0),
        ]
        assert found.problems == ()
    (tmp_path / "x.csv").write_text("a b.mp4\nc.mp4\n")
    assert [video.label for video in read_video_list(tmp_path / "x.csv").videos] == [None, None]


def test_the_list_of_the_kinetics_download_names_files_by_id_and_time(clip, tmp_path):
    place(
        clip,
        tmp_path / "abseiling" / "0347ZoDXyP0_000095_000105.mp4",
        tmp_path / "val" / "zumba" / "-zz_000001_000011.mp4",
        tmp_path / "beside_000000_000010.mp4",
    )
    rows = [
        "label,youtube_id,time_start,time_end,split",
        "abseiling,0347ZoDXyP0,95,105,val",
        "zumba,-zz,1,11,val",
        '"beat, boxing",beside,0,10,val',
        "zumba,broken,one,11,val",
        "zumba,gone,1,11,val",
    ]
    (tmp_path / "val.csv").write_text("\n".join(rows))
    found = read_video_list(tmp_path / "val.csv")
    assert found.class_names == ("abseiling", "beat, boxing", "zumba")
    assert [video.label for video in found.videos] == [0, 2, 1, 2]
    assert audit(str(tmp_path / "val.csv"), QUIET).counts() == {
        "line is not `label,youtube_id,time_start,time_end,split`": 1,
        "video is missing": 1,
    }


def test_one_folder_a_class_is_read_in_sorted_order(clip, tmp_path):
    place(clip, tmp_path / "walk" / "1.mp4", tmp_path / "run" / "deep" / "2.AVI", tmp_path / "run" / "1.mp4")
    (tmp_path / "run" / "notes.txt").write_text("no video")
    found = read_video_list(tmp_path)
    assert found.class_names == ("run", "walk")
    assert [(video.path.name, video.label) for video in found.videos] == [("1.mp4", 0), ("2.AVI", 0), ("1.mp4", 1)]
    assert audit(str(tmp_path), QUIET).problems == ()


def test_splits_of_class_folders_are_read_both_and_their_classes_compared(clip, tmp_path):
    place(
        clip,
        tmp_path / "train" / "run" / "1.mp4",
        tmp_path / "train" / "walk" / "2.mp4",
        tmp_path / "val" / "run" / "3.mp4",
    )
    result = audit(str(tmp_path), QUIET)
    assert result.entries == 3
    assert result.counts() == {"class is not in both train and val": 1}


def test_a_folder_of_lists_whose_videos_are_all_missing_is_still_video(tmp_path):
    (tmp_path / "val.csv").write_text("gone.mp4 0\n")
    assert kind_of(tmp_path) == "video"
    assert audit(str(tmp_path), QUIET).counts() == {"video is missing": 1}


def test_nothing_to_check_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no videos in"):
        audit(str(tmp_path), QUIET, "video")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        audit(str(tmp_path / "x.csv"), QUIET)


def test_all_frames_are_counted(clip):
    assert decode_all(clip) == Probed(5)


def test_pyav_reads_what_decord_cannot(clip, monkeypatch):
    monkeypatch.setattr(video_probe, "decord", None)
    assert decode_all(clip) == Probed(5)


def test_a_file_without_pictures_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert decode_all(tmp_path / "sound.mp4").fault == "file has no video stream"


def crash_on_b(path: Path) -> Probed:
    if path.name == "b":
        os.abort()
    return Probed(len(path.name))


def hang_on_b(path: Path) -> Probed:
    if path.name == "b":
        time.sleep(60)
    return Probed(len(path.name))


def test_a_video_that_aborts_the_decoder_is_named_and_the_next_is_read():
    with VideoProbe(crash_on_b) as probe:
        assert [probe(Path(name)) for name in ("a", "b", "ccc")] == [
            Probed(1),
            Probed(0, "video aborts the decoder"),
            Probed(3),
        ]


def test_a_video_that_never_ends_is_named_and_the_next_is_read():
    with VideoProbe(hang_on_b, patience_s=1) as probe:
        assert [probe(Path(name)) for name in ("a", "b", "ccc")] == [
            Probed(1),
            Probed(0, "video decoder does not return"),
            Probed(3),
        ]


def test_damaged_files_never_reach_this_process(clip, tmp_path):
    """decord 0.6 ends its process on some of these."""
    whole, rng = clip.read_bytes(), np.random.default_rng(0)
    with VideoProbe() as probe:
        faults = []
        for _ in range(60):
            harmed = bytearray(whole)
            for place_ in rng.integers(len(whole) - 1000, len(whole), 5):
                harmed[place_] = int(rng.integers(256))
            (tmp_path / "x.mp4").write_bytes(bytes(harmed))
            faults.append(probe(tmp_path / "x.mp4").fault)
    assert any(faults)
