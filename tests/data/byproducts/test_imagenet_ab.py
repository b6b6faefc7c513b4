from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vtk_cli.data.byproducts import imagenet_ab
from vtk_cli.data.byproducts.marks import Byproducts
from vtk_cli.data.byproducts.matching import match_byproducts
from vtk_cli.errors import UserError

from .conftest import Heard, block, write_list, write_xml

Read = Callable[..., Byproducts]
NAMES = ("n01/n01_1.JPEG", "n01/n01_2.JPEG", "n02/n02_1.JPEG")
CLASSES = ("n01", "n02")


def points_of(byproducts: Byproducts, heard: Heard) -> list[list[float] | None]:
    targets = match_byproducts(byproducts, NAMES, CLASSES, multi_label=False, console=heard.console)
    assert targets.points.shape == (3, 1, 2)
    return [
        point if there else None
        for point, there in zip(targets.points[:, 0].tolist(), targets.present[:, 0].tolist(), strict=True)
    ]


@pytest.mark.parametrize("layout", ["train_xml/{}/{}.xml", "Annotations/CLS-LOC/train_enriched/{}/{}.xml"])
def test_both_layouts_are_found_by_folder_and_stem(tmp_path: Path, read: Read, heard: Heard, layout: str) -> None:
    root = tmp_path / "ab"
    write_xml(root / layout.format("n01", "n01_2"), [block([(0.25, 0.75)])])
    write_xml(root / layout.format("n02", "n02_1"), [block([(0.5, 0.125)])])
    assert points_of(read(root), heard) == [None, [0.25, 0.75], [0.5, 0.125]]
    assert "2 of 3 samples (66.7%) have a point" in heard.text


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ("last", [0.5, 0.75]),  # the mean over two annotators of (0.75, 0.5) and (0.25, 1.0)
        ("final", [0.5, 0.75]),
        ("first", [0.125, 0.75]),
        ("mean", [0.3125, 0.75]),
        ("trace-end", [0.625, 0.25]),
    ],
)
def test_the_point_is_chosen_per_annotator_and_then_averaged(
    tmp_path: Path, read: Read, heard: Heard, point: str, expected: list[float]
) -> None:
    blocks = [
        block([(0.0, 0.5), (0.75, 0.5)], trace=[(0.9, 0.9), (0.25, 0.25)]),
        block([(0.25, 1.0)], trace=[(1.0, 0.25)]),
        block([(1.0, 0.0)], selected="False", trace=[(0.1, 0.1)]),
    ]
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", blocks)
    assert points_of(read(tmp_path / "ab", point=point), heard)[0] == expected


def test_the_text_false_is_not_true(tmp_path: Path, read: Read, heard: Heard) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [block([(0.5, 0.5)], selected="False")])
    with pytest.raises(UserError, match="no sample has a point"):
        points_of(read(tmp_path / "ab"), heard)


def test_the_tools_records_give_what_the_xml_gives(tmp_path: Path, read: Read, heard: Heard) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [block([(0.0, 0.5), (0.75, 0.5)]), block([(0.25, 1.0)])])
    records = [
        {"imageID": "n01_1.JPEG", "selected": True, "selectedRecord": [{"x": 0, "y": 0.5}, {"x": 0.75, "y": 0.5}]},
        {"imageID": "n01_1.JPEG", "selected": True, "selectedRecord": [{"x": 0.25, "y": 1, "time": 3}]},
        {"imageID": "n01_2.JPEG", "selected": False, "selectedRecord": [{"x": 0.25, "y": 1}]},
        {"selected": True},
        "not a record",
    ]
    tool = read(write_list(tmp_path / "records.json", records))
    wrapped = read(write_list(tmp_path / "page.json", {"annotations": records}))
    assert tool.form == wrapped.form == "tool-json"
    assert points_of(read(tmp_path / "ab"), heard) == points_of(tool, heard) == points_of(wrapped, heard)
    assert tool.skipped == {"annotators who did not select the image": 1, "records without an imageID": 2}


def test_the_mouse_is_counted_where_it_was(tmp_path: Path, read: Read) -> None:
    trace = [(0.0, 0.0), (1.0, 0.0), (0.5, 0.25), (0.5, 0.25), (1.5, 0.5), (float("nan"), 0.5)]
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [block([(0.5, 0.5)], trace=trace)])
    counted = read(tmp_path / "ab").trace
    assert counted is not None
    assert counted.sum() == 4
    assert (counted[0, 0], counted[0, 63], counted[16, 32]) == (1, 1, 2)


BOXES = (
    "<size><width>200</width><height>100</height></size>"
    "<object><name>n01</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>200</xmax><ymax>100</ymax></bndbox></object>"
    "<object><name>n01</name><bndbox><xmin>50</xmin><ymin>50</ymin><xmax>100</xmax><ymax>100</ymax></bndbox></object>"
    "<object><name>n01</name><bndbox><xmin>90</xmin><ymin>9</ymin><xmax>90</xmax><ymax>10</ymax></bndbox></object>"
)


def test_the_box_is_the_smallest_that_holds_the_click(tmp_path: Path, read: Read, heard: Heard) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [block([(0.3, 0.75)])], BOXES)
    write_xml(tmp_path / "ab" / "n01" / "n01_2.xml", [block([(0.9, 0.1)])], BOXES)
    byproducts = read(tmp_path / "ab")
    targets = match_byproducts(byproducts, NAMES, CLASSES, multi_label=False, console=heard.console)
    assert targets.boxes is not None
    assert targets.boxes[:, 0].tolist() == [[0.25, 0.5, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0], [0.0] * 4]
    assert byproducts.skipped == {"boxes without an area inside the image": 2}


def test_with_boxes_as_the_source_the_centre_of_the_largest_is_the_point(
    tmp_path: Path, read: Read, heard: Heard
) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [block([(0.3, 0.75)])], BOXES)
    assert points_of(read(tmp_path / "ab", source="boxes"), heard) == [[0.5, 0.5], None, None]


def test_without_boxes_they_cannot_be_the_source(tmp_path: Path, read: Read) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [block([(0.3, 0.75)])])
    with pytest.raises(UserError, match="no boxes"):
        read(tmp_path / "ab", source="boxes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<annotation>\n<metadata>\n</annotation>", r"n01_1\.xml:3: is not XML: mismatched tag"),
        (b"", r"n01_1\.xml:1: is not XML: no element found"),
        (b"<a>\x00</a>", r"n01_1\.xml:1: is not XML"),
        (b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>', "has a document type"),
        ('<!DOCTYPE a [<!ENTITY b "bb">]><a>&b;</a>'.encode("utf-16"), "has a document type"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', r"n01_1\.xml"),
    ],
)
def test_a_file_that_is_no_plain_xml_is_named(tmp_path: Path, read: Read, content: bytes, message: str) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_0.xml", [block([(0.5, 0.5)])])
    (tmp_path / "ab" / "n01" / "n01_1.xml").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "ab")


def test_hostile_content_is_survived_and_counted(tmp_path: Path, read: Read, heard: Heard) -> None:
    deep = "<x>" * 50 + "</x>" * 50
    odd = block([(float("nan"), 0.5), (float("inf"), 0.5)]).replace("inf", "1e999") + "<metadata/>"
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [deep, odd, block([(0.5, 0.5), (0.25, 1e308)])])
    write_xml(tmp_path / "ab" / "n01" / "n01_2.xml", [block([(0.5, 0.5)])])
    byproducts = read(tmp_path / "ab")
    assert byproducts.skipped["records whose place is not two numbers"] == 2
    assert byproducts.skipped["selections without a recorded place"] == 1
    assert points_of(byproducts, heard) == [[0.5, 0.5], [0.5, 0.5], None]
    assert "1 of 3 points lie outside their image, first (0.25, 1e+308)" in heard.text


def test_what_is_deeper_than_any_annotation_is_refused(tmp_path: Path, read: Read) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", ["<x>" * 5000 + "</x>" * 5000])
    with pytest.raises(UserError, match=r"n01_1\.xml: has elements 100 deep"):
        read(tmp_path / "ab")


def test_the_worker_is_never_told(tmp_path: Path, read: Read, heard: Heard, own_cache: Path) -> None:
    write_xml(tmp_path / "ab" / "n01" / "n01_1.xml", [block([(0.5, 0.5)]), block([(0.5, 7.0)])])
    points_of(read(tmp_path / "ab"), heard)
    kept = [file.read_bytes() for file in own_cache.rglob("*") if file.is_file()]
    assert "W0RK3R" not in heard.text
    assert kept
    assert not any(b"W0RK3R" in content for content in kept)


def test_what_was_read_is_kept_until_a_file_changes(
    tmp_path: Path, read: Read, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ab" / "n01" / "n01_1.xml"
    write_xml(file, [block([(0.5, 0.5)], trace=[(0.1, 0.1)])], BOXES)
    first = read(tmp_path / "ab")
    calls: list[Path] = []
    read_xml = imagenet_ab.read_xml
    monkeypatch.setattr(imagenet_ab, "read_xml", lambda path, most: (calls.append(path), read_xml(path, most))[1])
    again = read(tmp_path / "ab")
    assert not calls
    assert (again.images, again.classes, again.skipped) == (first.images, first.classes, first.skipped)
    for mine, theirs in ((again.points, first.points), (again.boxes, first.boxes)):
        assert mine is not None
        assert theirs is not None
        np.testing.assert_array_equal(mine.values, theirs.values)
        np.testing.assert_array_equal(mine.image, theirs.image)
    np.testing.assert_array_equal(again.trace, first.trace)
    write_xml(file, [block([(0.25, 0.125)])])
    assert read(tmp_path / "ab").points.values.tolist() == [[0.25, 0.125]]
    assert calls == [file]
    for kept in own_cache.rglob("*.npz"):
        kept.write_bytes(kept.read_bytes()[:200])
    assert read(tmp_path / "ab").points.values.tolist() == [[0.25, 0.125]]
    assert calls == [file, file]


def test_the_processes_that_read_start_without_torch() -> None:
    loaded = "import sys, vtk_cli.data.byproducts.imagenet_ab; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


def test_processes_read_what_one_process_reads(
    tmp_path: Path, read: Read, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        write_xml(tmp_path / "ab" / f"n0{number % 2}" / f"n_{number}.xml", [block([(number / 8, 0.5)])], BOXES)
    alone = read(tmp_path / "ab")
    for kept in own_cache.rglob("*.npz"):
        kept.unlink()
    monkeypatch.setattr(imagenet_ab, "ENOUGH_FOR_PROCESSES", 1)
    monkeypatch.setattr(imagenet_ab, "_CHUNK", 2)
    together = read(tmp_path / "ab")
    assert together.images == alone.images
    assert together.skipped == alone.skipped
    np.testing.assert_array_equal(together.points.values, alone.points.values)
    np.testing.assert_array_equal(together.points.image, alone.points.image)
    assert together.boxes is not None
    assert alone.boxes is not None
    np.testing.assert_array_equal(together.boxes.image, alone.boxes.image)
    np.testing.assert_array_equal(together.boxes.label, alone.boxes.label)
