from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vtk_cli.data.byproducts.json_entries import entries
from vtk_cli.data.byproducts.marks import Byproducts, Collected
from vtk_cli.data.byproducts.matching import match_byproducts
from vtk_cli.data.byproducts.own_files import collect_csv
from vtk_cli.data.images import BrokenImage
from vtk_cli.errors import UserError

from .conftest import Heard, write_list

Read = Callable[..., Byproducts]
NAMES = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
CLASSES = ("cat", "dog")


def write_csv(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def points_of(byproducts: Byproducts, heard: Heard, **options: Any) -> list[Any]:
    options = {"multi_label": False, **options}
    targets = match_byproducts(byproducts, NAMES, CLASSES, console=heard.console, **options)
    return [
        point if there else None
        for point, there in zip(targets.points[:, 0].tolist(), targets.present[:, 0].tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    "lines",
    [
        ("file,x,y", "cat/1.jpg,0.25,0.5", "dog/1.jpg,1,0"),
        ("\ufeffImage, Y, X, seen", "./cat/1.jpg, 0.5, 0.25, yes", "", "dog/1.jpg,0,1.0,no"),
        ("time,label,y,x,filename", "3,cat,0.5,.25,train/cat/1", "2,dog,0,1e0,data\\train\\dog\\1.png"),
    ],
)
def test_columns_come_in_any_order_and_names_with_any_prefix(
    tmp_path: Path, read: Read, heard: Heard, lines: tuple[str, ...]
) -> None:
    assert points_of(read(write_csv(tmp_path, *lines)), heard) == [[0.25, 0.5], None, [1.0, 0.0]]


@pytest.mark.parametrize(("point", "x"), [("first", 0.0), ("last", 0.5), ("final", 0.5), ("mean", 0.5)])
def test_several_points_of_a_file_are_ordered_by_time(
    tmp_path: Path, read: Read, heard: Heard, point: str, x: float
) -> None:
    path = write_csv(tmp_path, "file,x,y,time", "cat/1.jpg,1,1,2", "cat/1.jpg,0.5,1,3", "cat/1.jpg,0,1,1")
    assert points_of(read(path, point=point), heard)[0] == [x, 1.0]


def test_json_holds_what_the_csv_holds(tmp_path: Path, read: Read, heard: Heard) -> None:
    listed = [
        {
            "file": "cat/1.jpg",
            "points": [{"x": 0.75, "y": 1, "time": 2}, {"x": 0.5, "y": 0.25, "class": "cat", "time": 1}],
        },
        {"file": "cat/2.jpg", "points": []},
    ]
    byproducts = read(write_list(tmp_path / "clicks.json", listed), point="first")
    assert points_of(byproducts, heard, labels=[0, 0, 1]) == [[0.5, 0.25], None, None]


def test_repeated_rows_are_counted_and_weigh_nothing(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y", "cat/1.jpg,0,0", "cat/1.jpg,0,0", "cat/1.jpg,1,1", "cat/1.jpg,0,0")
    assert points_of(read(path, point="mean"), heard)[0] == [0.5, 0.5]
    assert "2 repeated rows skipped" in heard.text


def test_rows_without_a_place_are_counted(tmp_path: Path, read: Read, heard: Heard) -> None:
    points_of(read(write_csv(tmp_path, "file,x,y", "cat/1.jpg,,", "cat/2.jpg,0,0")), heard)
    assert "1 rows without a place skipped" in heard.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,x",), r"clicks\.csv:1: the header has 0 columns 'y'"),
        (("file,image,x,y",), r"clicks\.csv:1: the header has 2 columns 'file'"),
        (("file,x,y", "cat/1.jpg,0.5"), r"clicks\.csv:2: has 2 cells, the header 3"),
        (("file,x,y", "cat/1.jpg,0,0", "cat/1.jpg,a,0.5"), r"clicks\.csv:3: the point \(a, 0.5\) is not two finite"),
        (("file,x,y", "cat/1.jpg,nan,0.5"), r"clicks\.csv:2: the point \(nan, 0.5\)"),
        (("file,x,y", "cat/1.jpg,1e999,0.5"), r"clicks\.csv:2: the point \(1e999, 0.5\)"),
        (("file,x,y", ",0.5,0.5"), r"clicks\.csv:2: names no file"),
        (("file,x,y,time", "cat/1.jpg,0.5,0.5,noon"), r"clicks\.csv:2: the time noon"),
        (("file,x,y", "cat/1.jpg,0,0", '"' + "a" * 200_000 + '",0,0'), r"clicks\.csv:3: is not CSV: field larger"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, read: Read, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write_csv(tmp_path, *lines))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"file": "a"}, "entry 2: is not a file with its points"),
        ({"points": [{"x": 0, "y": 0}]}, "entry 2, point 1: names no file"),
        ({"file": "a", "points": [{"x": 0, "y": 0}, {"x": 0}]}, r"entry 2, point 2: the point \(0, None\)"),
        ({"file": "a", "points": [[0, 1]]}, "entry 2: point 1 is not an object"),
        ({"file": "a", "points": [{"x": True, "y": 0}]}, r"the point \(True, 0\)"),
        ({"file": "a", "points": [{"x": 0, "y": 0, "time": [1]}]}, r"the time \[1\]"),
        ({"file": "a", "points": [{"x": 0, "y": 0, "class": {}}]}, r"the class \{\}"),
        ("a", "entry 2: is not a file with its points"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, read: Read, entry: Any, message: str) -> None:
    path = write_list(tmp_path / "clicks.json", [{"file": "cat/1.jpg", "points": []}, entry])
    with pytest.raises(UserError, match=message):
        read(path)


def test_a_point_a_little_outside_is_moved_to_the_edge_and_counted(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y", "cat/1.jpg,-0.02,0.5", "cat/2.jpg,1.01,1.02", "dog/1.jpg,0,1")
    assert points_of(read(path), heard) == [[0.0, 0.5], [1.0, 1.0], [0.0, 1.0]]
    assert "2 points lie up to 0.02 outside their image" in heard.text


def test_a_point_far_outside_is_refused_with_its_line(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y", "cat/1.jpg,0,0.5", "cat/2.jpg,1.03,0.5", "dog/1.jpg,0,1")
    with pytest.raises(UserError, match=r"clicks\.csv:3: 1 of 3 points lie outside their image, first \(1.03, 0.5\)"):
        points_of(read(path), heard)


def test_pixels_are_recognised_and_asked_for(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y", "cat/1.jpg,0,1", "cat/2.jpg,120,77", "dog/1.jpg,50,30")
    with pytest.raises(UserError, match=r"clicks\.csv:3: .*looks like pixels; use --ab-units px"):
        points_of(read(path), heard)


def test_pixels_are_divided_by_the_size_of_their_image(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y", "cat/1.jpg,25,1", "dog/1.jpg,50,40")
    sizes = {0: (100, 2), 2: (200, 40)}
    found = points_of(read(path, units="px"), heard, sizes=sizes.__getitem__)
    assert found == [[0.25, 0.5], None, [0.25, 1.0]]
    with pytest.raises(UserError, match=r"clicks\.csv:3: 1 of 2 points lie outside their image, first \(50, 40\) px"):
        points_of(read(path, units="px"), heard, sizes=lambda sample: (200, 20) if sample else (100, 2))
    with pytest.raises(UserError, match="--ab-units: points in pixels need the sizes"):
        points_of(read(path, units="px"), heard)


def test_points_in_pixels_on_an_image_that_cannot_be_read_are_counted(tmp_path: Path, read: Read, heard: Heard) -> None:
    """One such image must not stop a training that can do without it."""

    def sizes(sample: int) -> tuple[int, int]:
        if sample == 0:
            raise BrokenImage("truncated", "cat/1.jpg")
        return 200, 40

    path = write_csv(tmp_path, "file,x,y", "cat/1.jpg,25,1", "cat/1.jpg,9,9", "dog/1.jpg,50,40")
    assert points_of(read(path, units="px"), heard, sizes=sizes) == [None, None, [0.25, 1.0]]
    assert "2 points are on images that cannot be read; skipped" in heard.text


def test_rows_of_another_split_are_not_taken_for_its_namesakes(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(
        tmp_path, "file,x,y", "data/train/cat/1.jpg,0,0", "data/val/cat/1.jpg,1,1", "data/val/cat/2.jpg,1,0"
    )
    assert points_of(read(path), heard) == [[0.0, 0.0], None, None]
    assert "2 of 3 images of the byproducts are of another split" in heard.text
    assert points_of(read(path), heard, split="val") == [[1.0, 1.0], [1.0, 0.0], None]


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path, read: Read, heard: Heard) -> None:
    byproducts = read(write_csv(tmp_path, "file,x,y", "train/val/1.jpg,0,0"))
    targets = match_byproducts(byproducts, ["val/1.jpg"], CLASSES, multi_label=False, console=heard.console)
    assert targets.present.tolist() == [[True]]


def test_unknown_images_are_counted_with_examples(tmp_path: Path, read: Read, heard: Heard) -> None:
    lines = [f"fish/{number}.jpg,0,0" for number in range(10, 15)]
    points_of(read(write_csv(tmp_path, "file,x,y", "cat/1.jpg,0,0", *lines)), heard)
    said = (
        "5 of 6 images of the byproducts are not in the data, e.g. fish/10.jpg, fish/11.jpg, fish/12.jpg, ...; skipped"
    )
    assert said in heard.text


def test_when_nothing_matches_three_names_of_each_side_are_shown(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y", *(f"fish/{number}.jpg,0,0" for number in range(10, 15)))
    with pytest.raises(UserError) as caught:
        points_of(read(path), heard)
    assert "3 images, e.g. cat/1.jpg, cat/2.jpg, dog/1.jpg" in str(caught.value)
    assert "5, e.g. fish/10.jpg, fish/11.jpg, fish/12.jpg, ..." in str(caught.value)
    assert str(caught.value).startswith("--byproducts")


def test_a_name_that_several_images_share_is_not_guessed(tmp_path: Path, read: Read, heard: Heard) -> None:
    points = points_of(read(write_csv(tmp_path, "file,x,y", "1.jpg,0,0", "2.jpg,1,1")), heard)
    assert points == [None, [1.0, 1.0], None]
    assert "1 of 2 images of the byproducts could be several of the data's, e.g. 1.jpg; skipped" in heard.text


def test_marks_of_other_classes_are_left_out_and_counted(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(
        tmp_path, "file,x,y,class", "cat/1.jpg,0,0,cat", "cat/1.jpg,1,1,dog", "dog/1.jpg,1,1,horse", "cat/2.jpg,0.5,0,"
    )
    assert points_of(read(path), heard, labels=[0, 0, 1]) == [[0.0, 0.0], [0.5, 0.0], None]
    assert "1 points of another class than their image's are skipped" in heard.text
    assert "1 marks of 1 classes that the data does not have (horse) are skipped" in heard.text


def test_multi_label_points_need_their_class(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y,class", "cat/1.jpg,0,0,cat", "cat/1.jpg,1,1,dog", "cat/2.jpg,1,1,")
    targets = match_byproducts(read(path), NAMES, CLASSES, multi_label=True, console=heard.console)
    assert targets.present.tolist() == [[True, True], [False, False], [False, False]]
    assert targets.points[0].tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert "1 points that name no class are skipped" in heard.text


def test_a_coverage_below_one_per_cent_warns(tmp_path: Path, read: Read, heard: Heard) -> None:
    names = [f"{number}.jpg" for number in range(201)]
    byproducts = read(write_csv(tmp_path, "file,x,y", "7.jpg,0,0", "8.jpg,0,0"))
    match_byproducts(byproducts, names, CLASSES, multi_label=False, console=heard.console)
    assert "warning: --byproducts: 2 of 201 samples (1.0%) have a point: hardly any" in heard.text


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nowhere", {}, "--byproducts .*nowhere: no such file or folder"),
        ("clicks.txt", {}, "no byproduct format by its name"),
        ("clicks.csv", {"form": "tsv"}, "--ab-format: unknown format 'tsv'"),
        ("clicks.csv", {"point": "trace-end"}, "--ab-point"),
        ("clicks.csv", {"source": "boxes"}, "no boxes"),
        ("empty", {}, "holds no XML or JSON files"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_option(
    tmp_path: Path, read: Read, name: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    for file in ("clicks.csv", "clicks.txt"):
        (tmp_path / file).write_text("file,x,y\na,0,0\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read(tmp_path / name, **options)


def test_a_csv_under_another_name_is_read_when_told_so(tmp_path: Path, read: Read, heard: Heard) -> None:
    path = write_csv(tmp_path, "file,x,y", "cat/1.jpg,0,0").rename(tmp_path / "clicks.txt")
    assert points_of(read(path, form="csv"), heard)[0] == [0.0, 0.0]


@given(st.text(alphabet=st.sampled_from('ab,"\n\r01.e9-;\x00 nf'), max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_csv_crashes_the_reader(text: str) -> None:
    collected = Collected()
    try:
        collect_csv(collected, Path("clicks.csv"), "file,x,y\n" + text)
    except UserError:
        return
    assert set(collected.columns) <= {"clicks"}


@given(st.text(alphabet=st.sampled_from('[]{},:"ab01 \n'), max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_entries_of_a_list_are_those_of_the_whole_document(text: str) -> None:
    try:
        whole = json.loads(text)
    except ValueError:
        with pytest.raises(UserError):
            list(entries(Path("a.json"), text))
    else:
        assert list(entries(Path("a.json"), text)) == (whole if isinstance(whole, list) else [whole])
