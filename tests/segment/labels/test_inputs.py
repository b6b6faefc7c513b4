from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vtk_cli.console import Console
from vtk_cli.data.coco_files import read_coco_file
from vtk_cli.data.detection.outlines import RunLengths, outline_of
from vtk_cli.data.embedded import open_embedded
from vtk_cli.data.points.records import Classes
from vtk_cli.errors import UserError
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.labels.inputs import check_parts, open_inputs, open_strong
from vtk_cli.segment.labels.splits import write_split
from vtk_cli.segment.pseudo.labels import PseudoLabel, UnresolvedClick, read_pseudo_labels, write_pseudo_labels
from vtk_cli.segment.pseudo.merging import write_merged

from ..scenes_with_masks import box_mask, clicked, full_set, paint, point_set, record

QUIET = Console(quiet=True)
ONE, TWO = box_mask(30, 40, 3, 4, 10, 12), box_mask(30, 40, 20, 4, 36, 25)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def coco(path: Path, name: str, segmentations: list[Any], **extra: Any) -> Path:
    """A COCO file of one image with objects of the mask's box."""
    paint(path.parent / name)
    entries = [
        {"id": number, "image_id": 1, "category_id": 3, "bbox": [3, 4, 7, 8], "segmentation": segmentation, **extra}
        for number, segmentation in enumerate(segmentations, 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": name, "width": 40, "height": 30}],
        "annotations": entries,
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path.write_text(json.dumps(content))
    return path


POLYGON = [[3, 4, 10, 4, 10, 12, 3, 12]]


def test_polygons_and_run_lengths_may_be_mixed_and_mean_the_same(tmp_path: Path) -> None:
    flat = ONE.ravel(order="F").astype(int).tolist()
    runs, value = [0], 0
    for bit in flat:
        if bit != value:
            runs.append(0)
            value = bit
        runs[-1] += 1
    strong = open_strong(
        coco(tmp_path / "s.json", "a.png", [POLYGON, {"size": [30, 40], "counts": runs}]), console=QUIET
    )
    assert [(mask == ONE).all() for mask in strong.records[0].masks()] == [True, True]


def test_masks_without_a_pixel_are_refused_or_left_out(tmp_path: Path) -> None:
    path = coco(tmp_path / "s.json", "a.png", [POLYGON, [[3, 4, 3.1, 4, 3.1, 4]]])
    with pytest.raises(UserError, match=r"1 x mask is empty \(first .*s.json: image 1 \(a.png\) object 1"):
        open_strong(path, console=QUIET)
    strong = open_strong(path, skip_bad=True, console=QUIET)
    assert strong.objects == 1
    assert dict(strong.left_out) == {"mask is empty": 1}


def test_a_table_of_clicks_goes_with_full_labels(tmp_path: Path) -> None:
    strong = coco(tmp_path / "s.json", "a.png", [POLYGON])
    paint(tmp_path / "b.png")
    (tmp_path / "w.csv").write_text("image,category,x,y\nb.png,dog,5,6\n")
    inputs = open_inputs(strong, tmp_path / "w.csv", images=tmp_path, console=QUIET)
    assert [image.id for image in inputs.weak.images] == [2]
    assert inputs.weak.images[0].labels.tolist() == [1]
    (tmp_path / "w.csv").write_text("image,category,x,y\na.png,dog,5,6\n")
    with pytest.raises(UserError, match="1 images are fully labelled and clicked too"):
        open_inputs(strong, tmp_path / "w.csv", images=tmp_path, console=QUIET)
    with pytest.raises(UserError, match="no such file of fully labelled images"):
        open_inputs(tmp_path / "x.json", tmp_path / "w.csv", console=QUIET)


def test_from_a_split_to_a_merged_file_every_click_is_accounted_for(tmp_path: Path) -> None:
    folder = open_embedded("digits-coco", train=20, val=2).folder
    file = read_coco_file(folder / "annotations" / "instances_train.json")
    split = write_split(file, 0.2, 0, tmp_path)
    inputs = open_inputs(split.strong, split.weak, images=folder / "train", console=QUIET)
    strong, weak = inputs.strong, inputs.weak
    assert (len(strong), len(weak)) == (4, 16)
    truth = {entry["id"]: entry for entry in file.annotations}
    labels, lost = [], []
    for image in weak.images:
        for number, (identity, label) in enumerate(
            zip(image.annotation_ids.tolist(), image.labels.tolist(), strict=True)
        ):
            x, y = image.points[number].tolist()
            if number == 3:
                lost.append(UnresolvedClick(image.id, identity, label, (x, y), "lost"))
                continue
            runs = outline_of(truth[identity]["segmentation"], 128, 128)
            assert isinstance(runs, RunLengths)
            labels.append(PseudoLabel(image.id, identity, label, (x, y), runs, 0, 0.5, 0.5))
    assert lost
    assert len(labels) + len(lost) == weak.clicks
    write_pseudo_labels(tmp_path / "pseudo.json", labels, weak, folder / "train")
    merged = write_merged(tmp_path / "merged.json", strong, weak, read_pseudo_labels(tmp_path / "pseudo.json"))
    assert (merged.strong, merged.pseudo) == (strong.objects, len(labels))
    student = open_strong(merged.path, images=merged.images_folder, console=QUIET)
    assert (len(student), student.objects) == (20, strong.objects + len(labels))
    found = read_coco_file(merged.path).annotations
    assert [entry["id"] for entry in found] == list(range(1, len(found) + 1))
    by_click = {entry["click_id"]: entry for entry in found if entry.get("source") == "pseudo"}
    kept = ("image_id", "category_id", "bbox", "area", "segmentation")
    assert all(entry[name] == truth[identity][name] for identity, entry in by_click.items() for name in kept)


def test_without_a_fully_labelled_image_or_with_objects_without_masks_there_is_no_teacher(tmp_path: Path) -> None:
    weak = point_set([clicked(tmp_path / "b.png", 2, [(1, 1, 0)])])
    with pytest.raises(UserError, match="need at least 1 fully labelled image"):
        check_parts(full_set([]), weak, QUIET)
    one = record(tmp_path / "a.png", 1, [(0, ONE), (1, TWO)])
    one = type(one)(**{**vars(one), "outlines": (one.outlines[0], None)})
    with pytest.raises(UserError, match="1 of 2 annotations of fully labelled images have no mask"):
        check_parts(full_set([one]), weak, QUIET)


def test_a_file_without_images_labels_nothing_fully(tmp_path: Path) -> None:
    path = tmp_path / "strong.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}))
    with pytest.raises(UserError, match="need at least 1 fully labelled image"):
        open_strong(path, console=QUIET)


def test_clicked_classes_that_no_mask_shows_and_images_without_clicks_are_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strong = full_set([record(tmp_path / "a.png", 1, [(0, ONE)])])
    weak = point_set([clicked(tmp_path / "b.png", 2, [(1, 1, 1), (9, 9, 1)]), clicked(tmp_path / "c.png", 3, [])])
    check_parts(strong, weak, QUIET)
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "1 classes are clicked but have no mask, so that the teacher cannot segment them well: dog (2 clicks)" in said
    )
    assert "1 images without a click count as background" in said


def test_other_classes_are_refused(tmp_path: Path) -> None:
    strong = full_set([record(tmp_path / "a.png", 1, [(0, ONE)])])
    weak = point_set([clicked(tmp_path / "b.png", 2, [(1, 1, 1)])])
    weak = type(weak)(weak.name, weak.images, Classes(("cat", "cow"), (3, 7)))
    with pytest.raises(UserError, match="7 cow only here; 7 dog only there"):
        check_parts(strong, weak, QUIET)
