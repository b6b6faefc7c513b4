"""Lists of videos in every format, as published, and every way in which they are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vtk_cli.console import Console
from vtk_cli.data.video.lists import format_of, read_video_list
from vtk_cli.data.video.published_lists import SSV2_ANSWERS, SSV2_LABELS
from vtk_cli.data.video.records import VideoList, parse_sampling
from vtk_cli.data.video.sets import open_video_list, open_videos
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
LABELS = {"Holding something next to something": "1", "Dropping something": "0"}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        write(path, "x")


def pairs(found: VideoList, root: Path) -> list[tuple[str, int | None]]:
    return [(str(video.path.relative_to(root)), video.label) for video in found.videos]


def problems(found: VideoList) -> list[str]:
    return [problem.what for problem in found.problems]


def write_ssv2(folder: Path, rows: list[dict[str, object]], name: str = "something-something-v2-train.json") -> Path:
    write(folder / SSV2_LABELS, json.dumps(LABELS))
    return write(folder / name, json.dumps(rows))


def test_paths_may_hold_spaces_and_numbers_and_the_label_is_the_last_word(tmp_path):
    path = write(tmp_path / "train.csv", "a b 1.mp4 3\nc,d.mp4,0\nabs/e.mp4\t2\n")
    assert pairs(read_video_list(path), tmp_path) == [("a b 1.mp4", 3), ("c,d.mp4", 0), ("abs/e.mp4", 2)]


def test_three_columns_are_a_folder_of_frames_their_number_and_the_label(tmp_path):
    touch(tmp_path / "frames 1" / "img_00001.jpg")
    path = write(tmp_path / "train.csv", "frames 1 12 4\n")
    assert pairs(read_video_list(path), tmp_path) == [("frames 1", 4)]


def test_relative_paths_start_at_the_root_and_absolute_ones_where_they_say(tmp_path):
    path = write(tmp_path / "lists" / "train.csv", f"a.mp4 0\n{tmp_path}/b.mp4 1\n")
    found = read_video_list(path, root=tmp_path / "videos")
    assert [video.path for video in found.videos] == [tmp_path / "videos" / "a.mp4", tmp_path / "b.mp4"]


def test_a_line_without_a_label_among_labelled_ones_is_a_problem_with_its_number(tmp_path):
    found = read_video_list(write(tmp_path / "x.csv", "a.mp4 0\n\nb.mp4\n"))
    assert problems(found) == ["line is not `path label`"]
    assert found.problems[0].where == f"{tmp_path}/x.csv:3 (b.mp4)"


def test_what_is_listed_twice_or_with_a_negative_label_is_a_problem(tmp_path):
    found = read_video_list(write(tmp_path / "x.csv", "a.mp4 0\na.mp4 0\na.mp4 1\nb.mp4 -1\n"))
    assert problems(found) == ["video is listed twice", "video is listed with two labels", "label is negative"]
    assert pairs(found, tmp_path) == [("a.mp4", 0)]


def test_a_vtk_list_has_parts_in_seconds(tmp_path):
    text = "path,label,start,end\na.mp4,1,0.5,2\na.mp4,0,2,\na.mp4,,,3\nb.mp4,2,,\n"
    found = read_video_list(write(tmp_path / "x.csv", text))
    assert format_of(tmp_path / "x.csv") == "vtk"
    assert [(video.label, video.seconds) for video in found.videos] == [
        (1, (0.5, 2.0)),
        (0, (2.0, float("inf"))),
        (None, (0.0, 3.0)),
        (2, None),
    ]
    assert found.problems == ()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a.mp4,x,0,1", "line is not `path,label[,start,end]`"),
        ("a.mp4,0,zero,1", "line is not `path,label[,start,end]`"),
        (",0,0,1", "line is not `path,label[,start,end]`"),
        ("a.mp4,0,2,1", "part does not end after it starts"),
        ("a.mp4,0,1,1", "part does not end after it starts"),
        ("a.mp4,0,-1,1", "part does not end after it starts"),
        ("a.mp4,0,nan,1", "part does not end after it starts"),
        ("a.mp4,-2,,", "label is negative"),
    ],
)
def test_a_wrong_line_of_a_vtk_list_is_named_by_its_number(tmp_path, line, what):
    found = read_video_list(write(tmp_path / "x.csv", f"path,label,start,end\n\n\n{line}\n"))
    assert problems(found) == [what]
    assert found.problems[0].where.startswith(f"{tmp_path}/x.csv:4 (")


def test_kinetics_files_lie_beside_the_list_or_under_class_or_split(tmp_path):
    touch(tmp_path / "b" / "x_000001_000011.mp4", tmp_path / "train" / "a" / "y_000000_000010.mp4")
    head = "label,youtube_id,time_start,time_end,split,is_cc\n"
    path = write(tmp_path / "k.csv", head + "b,x,1,11,train,0\n\na,y,0,10,train,0\na,,0,10,train,0\n,z,0,1,train,0\n")
    found = read_video_list(path)
    assert found.class_names == ("a", "b")
    assert pairs(found, tmp_path)[:2] == [("b/x_000001_000011.mp4", 1), ("train/a/y_000000_000010.mp4", 0)]
    assert [problem.where for problem in found.problems] == [f"{path}:6 (z)"]


def test_something_something_classes_are_templates_without_brackets(tmp_path):
    touch(tmp_path / "2.mp4")
    rows = [
        {"id": "1", "template": "Holding [something] next to [something]", "label": "holding", "placeholders": []},
        {"id": 2, "template": "Dropping [something]"},
    ]
    found = read_video_list(write_ssv2(tmp_path, rows))
    assert found.class_names == ("Dropping something", "Holding something next to something")
    assert pairs(found, tmp_path) == [("1.webm", 1), ("2.mp4", 0)]


def test_an_unknown_template_is_named_with_the_id_of_its_video(tmp_path):
    path = write_ssv2(
        tmp_path, [{"id": "78687", "template": "Eating [something]"}, {"template": "Dropping [something]"}]
    )
    found = read_video_list(path)
    assert problems(found) == ["template is unknown", "entry has no id"]
    assert found.problems[0].where == f"{path}: entry 0 (id 78687)"
    with pytest.raises(UserError, match=r"2 lines make no sense: 1 x template is unknown.*id 78687"):
        open_video_list(path)


def test_the_test_list_of_something_something_has_labels_where_answers_are_beside_it(tmp_path):
    path = write_ssv2(tmp_path, [{"id": "5"}, {"id": "6"}], "something-something-v2-test.json")
    assert not read_video_list(path).labelled
    write(tmp_path / SSV2_ANSWERS, "5;Dropping something\n6;Holding something next to something\n")
    assert [video.label for video in read_video_list(path).videos] == [0, 1]


def test_a_label_beyond_the_classes_of_something_something_is_out_of_range(tmp_path):
    path = write_ssv2(tmp_path, [{"id": "5", "template": "Dropping [something]"}])
    write(tmp_path / SSV2_LABELS, json.dumps({"Dropping something": "7"}))
    assert problems(read_video_list(path)) == ["label is out of range"]


@pytest.mark.parametrize("labels", ["[]", '{"a": "x"}', "nothing", ""])
def test_wrong_labels_of_something_something_are_a_clear_error(tmp_path, labels):
    path = write_ssv2(tmp_path, [{"id": "5", "template": "Dropping [something]"}])
    write(tmp_path / SSV2_LABELS, labels)
    with pytest.raises(UserError, match="JSON"):
        read_video_list(path)
    (tmp_path / SSV2_LABELS).unlink()
    with pytest.raises(UserError, match="cannot be read"):
        read_video_list(path)


@pytest.mark.parametrize("content", ["{}", "[1, 2]", '"text"', "[[", "[" * 100_000])
def test_json_that_is_no_list_of_videos_is_refused(tmp_path, content):
    write(tmp_path / SSV2_LABELS, json.dumps(LABELS))
    with pytest.raises(UserError, match="JSON"):
        read_video_list(write(tmp_path / "x.json", content))


def test_ucf101_numbers_classes_from_1_and_tests_are_labelled_by_their_folder(tmp_path):
    write(tmp_path / "classInd.txt", "1 Archery\n2 Bowling\n")
    train = write(tmp_path / "trainlist01.txt", "Bowling/v_1.avi 2\nArchery/v_2.avi 1\n")
    test = write(tmp_path / "testlist01.txt", "Archery/v_3.avi\nSwing/v_4.avi\n")
    found = read_video_list(train)
    assert found.class_names == ("Archery", "Bowling")
    assert pairs(found, tmp_path) == [("Bowling/v_1.avi", 1), ("Archery/v_2.avi", 0)]
    found = read_video_list(test)
    assert pairs(found, tmp_path) == [("Archery/v_3.avi", 0)]
    assert problems(found) == ["class is unknown"]


def test_ucf101_labels_that_contradict_the_folder_or_exceed_the_classes_are_problems(tmp_path):
    write(tmp_path / "classInd.txt", "1 Archery\n2 Bowling\n")
    found = read_video_list(write(tmp_path / "trainlist02.txt", "Archery/a.avi 2\nSwing/b.avi 3\n"))
    assert problems(found) == ["label is not that of the folder", "label is out of range"]


def test_hmdb51_splits_say_training_test_or_neither(tmp_path):
    write(tmp_path / "cartwheel_test_split1.txt", "a.avi 1\nb.avi 2\nc.avi 0\n")
    write(tmp_path / "wave_test_split1.txt", "d e.avi 1 \nf.avi 3\n")
    write(tmp_path / "wave_test_split2.txt", "d e.avi 2\n")
    touch(tmp_path / "wave" / "d e.avi")
    assert format_of(tmp_path) == "hmdb51"
    for path in (tmp_path, tmp_path / "wave_test_split1.txt"):
        found = read_video_list(path)
        assert found.class_names == ("cartwheel", "wave")
        assert pairs(found, tmp_path) == [("a.avi", 0), ("wave/d e.avi", 1)]
        assert problems(found) == ["line is not `file 0|1|2`"]
    assert pairs(read_video_list(tmp_path, part="test"), tmp_path) == [("b.avi", 0)]
    train, test = open_videos(write_hmdb(tmp_path / "whole"), console=QUIET)
    assert test is not None
    assert (len(train.videos), len(test.videos), train.classes) == (1, 1, ("wave",))


def write_hmdb(folder: Path) -> Path:
    write(folder / "wave_test_split1.txt", "a.avi 1\nb.avi 2\n")
    return folder


def test_diving48_names_videos_without_their_suffix(tmp_path):
    rows = [
        {"vid_name": "a_00001", "label": 7, "start_frame": 0, "end_frame": 91},
        {"vid_name": "b", "start_frame": 0},
        {"vid_name": "c", "label": None},
    ]
    path = write(tmp_path / "Diving48_V2_train.json", json.dumps(rows))
    found = read_video_list(path)
    assert format_of(path) == "diving48"
    assert pairs(found, tmp_path) == [("a_00001.mp4", 7)]
    assert problems(found) == ["entry has no vid_name or no label"] * 2


def test_gym99_clips_have_the_suffix_that_is_on_the_disk(tmp_path):
    touch(tmp_path / "b_E_1.mkv")
    found = read_video_list(write(tmp_path / "gym99_train_element_v1.0.txt", "a_E_0 3\nb_E_1 98\nc x\n\nd\n"))
    assert pairs(found, tmp_path) == [("a_E_0.mp4", 3), ("b_E_1.mkv", 98)]
    assert problems(found) == ["line is not `clip label`"] * 2


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", ""),
        ("x.csv", "\n \n"),
        ("x.csv", "path,label\n"),
        ("x.json", "[]"),
        ("k.csv", "label,youtube_id,time_start,time_end,split\n"),
        ("gym99.txt", ""),
    ],
)
def test_an_empty_list_is_an_error_that_says_so(tmp_path, name, content):
    write(tmp_path / SSV2_LABELS, "{}")
    with pytest.raises(UserError, match=f"no videos in .*{name}"):
        read_video_list(write(tmp_path / name, content))


@pytest.mark.parametrize("list_format", ["paths", "vtk", "kinetics", "gym99"])
def test_an_empty_list_of_a_forced_format_is_the_same_error(tmp_path, list_format):
    with pytest.raises(UserError, match="no videos in"):
        read_video_list(write(tmp_path / "x.csv", ""), list_format=list_format)


@pytest.mark.parametrize("list_format", ["paths", "vtk", "kinetics", "ssv2", "ucf101", "diving48", "gym99"])
def test_bytes_that_are_no_text_are_a_clear_error_in_every_format(tmp_path, list_format):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read"):
        read_video_list(tmp_path / "x.csv", list_format=list_format)


def test_a_missing_list_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv"):
        read_video_list(tmp_path / "gone.csv")


def test_a_folder_of_lists_gives_both_parts_with_the_same_classes(tmp_path):
    write(tmp_path / "train.csv", "a.mp4 0\nb.mp4 2\n")
    write(tmp_path / "val.csv", "c.mp4 1\n")
    train, test = open_videos(tmp_path, console=QUIET)
    assert test is not None
    assert (train.classes, test.classes) == (("0", "1", "2"), ("0", "1", "2"))
    assert (train.labels, test.labels) == ([0, 2], [1])
    write(tmp_path / "classes.txt", "down\nleft\nup\n")
    assert open_videos(tmp_path, console=QUIET)[0].classes == ("down", "left", "up")


def test_labels_beyond_the_named_classes_are_refused(tmp_path):
    write(tmp_path / "train.csv", "a.mp4 0\nb.mp4 2\n")
    write(tmp_path / "classes.txt", "down\nleft\n")
    with pytest.raises(UserError, match="names 2 classes, but labels go up to 2"):
        open_videos(tmp_path, console=QUIET)
    touch(tmp_path / "train" / "down" / "a.mp4")
    val = write(tmp_path / "val.csv", "c.mp4 5\n")
    with pytest.raises(UserError, match="label 5 is out of range"):
        open_videos(tmp_path / "train", val, console=QUIET)


def test_class_folders_whose_names_differ_are_refused_with_the_odd_ones(tmp_path):
    touch(
        tmp_path / "train" / "run" / "a.mp4", tmp_path / "train" / "walk" / "b.mp4", tmp_path / "val" / "run" / "c.mp4"
    )
    with pytest.raises(UserError, match="differing: walk"):
        open_videos(tmp_path, console=QUIET)


def test_a_list_that_is_labelled_in_part_is_refused_and_one_without_labels_is_not(tmp_path):
    write(tmp_path / "x.csv", "path,label\na.mp4,0\nb.mp4,\n")
    with pytest.raises(UserError, match="1 of 2 videos have no label"):
        open_videos(tmp_path / "x.csv", console=QUIET)
    train, test = open_videos(write(tmp_path / "y.csv", "a.mp4\nb.mp4\n"), console=QUIET)
    assert (train.labelled, train.labels, test) == (False, [-1, -1], None)


@pytest.mark.parametrize("text", ["", "dense", "dense:8", "dense:0x8", "segment:0", "segment:8x8", "x:8", "dense:8x-1"])
def test_what_is_no_sampling_is_refused(text):
    with pytest.raises(UserError, match="no sampling"):
        parse_sampling(text)
