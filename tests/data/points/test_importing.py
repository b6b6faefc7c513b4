from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from vtk_cli.console import Console
from vtk_cli.data.points import open_points
from vtk_cli.data.points.importing import import_marks, read_marks
from vtk_cli.data.points.labelme import write_labelme
from vtk_cli.data.points.marks import Marked
from vtk_cli.data.points.records import Classes
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
SQUARE = [[10, 10], [20, 10], [20, 16], [10, 16]]
"""From the corner of the image: the pixels x 10..19, y 10..15."""


def square() -> np.ndarray[Any, Any]:
    mask = np.zeros((30, 40), bool)
    mask[10:16, 10:20] = True
    return mask


def labelme(photos: Path, name: str, shapes: list[dict[str, Any]], **extra: Any) -> Path:
    path = photos / f"{name}.json"
    content = {"imagePath": f"{name}.png", "imageHeight": 30, "imageWidth": 40, "shapes": shapes, **extra}
    path.write_text(json.dumps(content))
    return path


def masks_of(path: Path) -> list[np.ndarray[Any, Any]]:
    opened = COCO(str(path))
    return [opened.annToMask(entry) > 0 for entry in opened.dataset["annotations"]]


def imported(path: Path, out: Path, images: Path | None = None, **how: Any):
    return import_marks(read_marks(path, QUIET, images), out, QUIET, **how)


def test_labelme_images_with_masks_alone_are_strong_and_the_others_weak(photos: Path, tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.fromarray(square()[10:16, 10:20]).save(png, "PNG")
    mask = {"shape_type": "mask", "points": [[10, 10], [19, 15]], "mask": base64.b64encode(png.getvalue()).decode()}
    labelme(photos, "a", [{"label": "cat", "points": SQUARE, "shape_type": "polygon"}, {"label": "cat", **mask}])
    labelme(photos, "b", [{"label": "dog", "points": [[5, 6.5]], "shape_type": "point"}])
    labelme(photos, "c", [{"label": "cat", "points": [[20, 16], [10, 10]], "shape_type": "rectangle"}])
    (photos / "notes.json").write_text("{}")
    found = imported(photos, tmp_path / "out")
    assert (found.strong_images, found.weak_images, found.masks, found.clicks) == (1, 2, 2, 2)
    assert found.images_folder == photos
    assert all((mask == square()).all() for mask in masks_of(found.strong))
    weak = open_points(found.weak, images=photos, console=QUIET)
    assert [image.points.tolist() for image in weak.images] == [[[4.5, 6.0]], [[14.5, 12.5]]]
    assert weak.classes == Classes(("cat", "dog"), (1, 2))
    assert weak.sources == {"point": 1, "bbox": 1}


def test_parts_of_a_labelme_group_are_one_object(photos: Path, tmp_path: Path) -> None:
    other = [[x + 15, y] for x, y in SQUARE]
    shapes = [
        {"label": "cat", "group_id": 1, "points": SQUARE},
        {"label": "cat", "group_id": 1, "points": other},
        {"label": "cat", "group_id": 2, "points": [[1, 1], [4, 1], [4, 4]]},
        {"label": "cat", "group_id": 1, "points": [[12.5, 12.5]], "shape_type": "point"},
    ]
    labelme(photos, "a", shapes)
    found = imported(photos, tmp_path / "out")
    assert (found.masks, found.weak) == (2, None)
    first = masks_of(found.strong)[0]
    assert first.sum() == 120
    assert json.loads(found.strong.read_text())["annotations"][0]["point"] == [12, 12]


def test_cvat_points_polygons_boxes_and_masks(photos: Path, tmp_path: Path) -> None:
    runs = "0,10,50"  # within 10 x 6: the first row is the object
    path = tmp_path / "cvat.xml"
    path.write_text(
        f"""<annotations><version>1.1</version>
        <image id="0" name="sub/a.png" width="40" height="30">
          <polygon label="cat" points="10,10;20,10;20,16;10,16"/>
          <mask label="cat" rle="{runs}" left="10" top="10" width="10" height="6"/><tag label="cat"/>
        </image>
        <image id="1" name="b.png" width="40" height="30"><points label="dog" points="5,6.5;30.5,20.5"/></image>
        <image id="2" name="c.png" width="40" height="30"><box label="cat" xtl="10" ytl="10" xbr="20" ybr="16"/></image>
        </annotations>"""
    )
    found = imported(path, tmp_path / "out", photos)
    assert (found.strong_images, found.weak_images, found.clicks) == (1, 2, 3)
    polygon, mask = masks_of(found.strong)
    assert (polygon == square()).all()
    row = np.zeros((30, 40), bool)
    row[10, 10:20] = True
    assert (mask == row).all()
    weak = open_points(found.weak, images=found.images_folder, console=QUIET)
    assert [image.points.tolist() for image in weak.images] == [[[4.5, 6], [30, 20]], [[14.5, 12.5]]]


def test_label_studio_counts_in_percent_and_renames_uploads(photos: Path, tmp_path: Path) -> None:
    def region(kind: str, **value: Any) -> dict[str, Any]:
        return {"type": kind, "value": value}

    def task(number: int, image: str, *regions: dict[str, Any]) -> dict[str, Any]:
        return {"id": number, "data": {"image": image}, "annotations": [{"result": list(regions)}]}

    polygon = [[100 * x / 40, 100 * y / 30] for x, y in SQUARE]
    tasks = [
        task(1, "/data/upload/3/0a1b2c3d-a.png", region("keypointlabels", x=25, y=50, width=1, keypointlabels=["cat"])),
        task(2, "/data/local-files/?d=x%2Fb.png", region("polygonlabels", points=polygon, polygonlabels=["cat"])),
        task(
            3,
            "s3://bucket/c.png",
            region("rectanglelabels", x=25, y=100 / 3, width=25, height=20, rectanglelabels=["dog"]),
            region("choices", choices=["good"]),
        ),
    ]
    path = tmp_path / "ls.json"
    path.write_text(json.dumps(tasks))
    found = imported(path, tmp_path / "out", photos)
    assert (found.strong_images, found.weak_images) == (1, 2)
    assert (masks_of(found.strong)[0] == square()).all()
    weak = open_points(found.weak, images=photos, console=QUIET)
    assert [image.file.name for image in weak.images] == ["a.png", "c.png"]
    assert weak.images[0].points.tolist() == [[9.5, 14.5]]
    assert weak.images[1].points[0] == pytest.approx([14.5, 12.5])


def test_yolo_polygons_are_masks(photos: Path, tmp_path: Path) -> None:
    (photos / "images" / "train").mkdir(parents=True)
    (photos / "a.png").rename(photos / "images" / "train" / "a.png")
    (photos / "labels" / "train").mkdir(parents=True)
    flat = " ".join(f"{x / 40} {y / 30}" for x, y in SQUARE)
    (photos / "labels" / "train" / "a.txt").write_text(f"1 {flat}\n")
    (photos / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    found = imported(photos, tmp_path / "out")
    assert (found.strong_images, found.weak_images) == (1, 0)
    assert (masks_of(found.strong)[0] == square()).all()
    assert json.loads(found.strong.read_text())["categories"] == [{"id": 1, "name": "dog"}]


def test_coco_of_both_kinds_is_parted(coco: Callable[..., Path], photos: Path, tmp_path: Path) -> None:
    path = coco(
        [
            {"segmentation": [[10, 10, 20, 10, 20, 16, 10, 16]], "point": [12, 12]},
            {"image_id": 11, "keypoints": [3, 4, 2], "category_id": 7},
            {"image_id": 12, "bbox": [10, 10, 10, 6]},
        ]
    )
    found = imported(path, tmp_path / "out", photos, classes=Classes(("cat", "dog"), (3, 7)))
    assert (found.strong_images, found.weak_images) == (1, 2)
    assert (masks_of(found.strong)[0] == square()).all()
    weak = open_points(found.weak, images=photos, console=QUIET)
    assert [image.points.tolist() for image in weak.images] == [[[3, 4]], [[14.5, 12.5]]]
    assert weak.classes.ids == (3, 7)


def test_an_image_of_both_kinds_is_refused_or_taken_as_clicked(photos: Path, tmp_path: Path) -> None:
    shapes = [{"label": "cat", "points": SQUARE}, {"label": "cat", "points": [[5, 5]], "shape_type": "point"}]
    labelme(photos, "a", shapes)
    with pytest.raises(UserError, match=r"1 images have objects with a mask and objects without \(first a.png\)"):
        imported(photos, tmp_path / "out")
    found = imported(photos, tmp_path / "out", mixed="points")
    weak = open_points(found.weak, images=photos, mode="centroid", console=QUIET)
    assert weak.images[0].points.tolist() == [[14.5, 12.5], [4.5, 4.5]]
    assert weak.sources == {"point": 1, "segmentation": 1}


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ({"label": "cat", "points": [[45, 3]], "shape_type": "point"}, "point is outside the image"),
        ({"label": "cat", "points": [[1, 1], [2, 2]]}, "polygon is not three or more points"),
        ({"label": "cat", "points": [[50, 50], [60, 50], [60, 60]]}, "mask is empty"),
        ({"label": "cat", "points": [[1, 1], [1, 5]], "shape_type": "rectangle"}, "box has no area"),
        ({"label": "cat", "points": [[1, 1], [2, 5]], "shape_type": "circle"}, "shape is of a kind that is not read"),
        ({"label": "cat", "points": [[1, 1], [2, 5]], "shape_type": "mask", "mask": "!"}, "mask does not decode"),
        ({"label": "", "points": [[1, 1]], "shape_type": "point"}, "shape has no label"),
        ({"label": "cat", "points": [["x", 1]], "shape_type": "point"}, "point is not two numbers"),
    ],
)
def test_a_wrong_shape_is_refused_with_its_place_or_left_out(
    photos: Path, tmp_path: Path, shape: dict[str, Any], what: str
) -> None:
    labelme(photos, "a", [{"label": "cat", "points": SQUARE}, shape])
    with pytest.raises(UserError, match=rf"1 x {what} \(first .*a.json: shape 1"):
        imported(photos, tmp_path / "out")
    assert imported(photos, tmp_path / "out", skip_bad=True).left_out == 1


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ({"imagePath": "z.png"}, "image is missing"),
        ({"imagePath": "../../z.png"}, "image is missing"),
        ({"imageWidth": 30}, "image has another size than listed"),
    ],
)
def test_images_that_are_missing_or_of_another_size_are_counted(
    photos: Path, tmp_path: Path, extra: dict[str, Any], what: str
) -> None:
    labelme(photos, "a", [{"label": "cat", "points": SQUARE}], **extra)
    with pytest.raises(UserError, match=f"1 x {what}"):
        imported(photos, tmp_path / "out")


def test_a_path_of_another_machine_leads_to_the_image_beside_the_file(photos: Path, tmp_path: Path) -> None:
    labelme(photos, "a", [{"label": "cat", "points": SQUARE}], imagePath="..\\pictures\\a.png")
    assert imported(photos, tmp_path / "out").strong_images == 1


def test_a_class_that_is_not_known_is_refused(photos: Path, tmp_path: Path) -> None:
    labelme(photos, "a", [{"label": "cow", "points": SQUARE}])
    with pytest.raises(UserError, match="1 marked classes are not known: cow; there are cat, dog"):
        imported(photos, tmp_path / "out", classes=Classes(("cat", "dog"), (3, 7)))


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.xml", "<a/>"), ("x.xml", "<a"), ("x.json", "[]"), ("x.json", "{"), ("x.txt", ""), ("absent.json", None)],
)
def test_what_no_tool_writes_is_refused(tmp_path: Path, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError):
        read_marks(tmp_path / name, QUIET)


def test_what_is_written_for_labelme_is_read_back(photos: Path, tmp_path: Path, coco: Callable[..., Path]) -> None:
    rle = {"size": [30, 40], "counts": [310, 6, 24, 7, 853]}
    path = coco([{"segmentation": rle}, {"segmentation": [[10, 10, 20, 10, 20, 16, 10, 16]], "category_id": 7}])
    (image, *_) = read_marks(path, QUIET, photos).images
    write_labelme(photos / "a.json", image)
    again = read_marks(photos, QUIET)
    assert not again.problems
    (one,) = again.images
    assert one.file == image.file
    outs = [
        import_marks(Marked("x", (found,), ()), tmp_path / name, QUIET).strong
        for name, found in (("one", image), ("two", one))
    ]
    assert [entry["category_id"] for entry in json.loads(outs[1].read_text())["annotations"]] == [1, 2]
    for before, after in zip(*map(masks_of, outs), strict=True):
        assert (before == after).all()
