"""Any bytes as annotations: a value or a line, for every reader of boxes, masks, points and byproducts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.cases import held
from tests.hostile.mutations import broken, broken_json, fuzzed, tried
from vtk_cli.console import Console
from vtk_cli.data.byproducts.matching import match_byproducts
from vtk_cli.data.byproducts.reading import FORMS, read_byproducts
from vtk_cli.data.classification_coco import open_coco
from vtk_cli.data.detection.evaluation import evaluate_boxes, evaluate_masks
from vtk_cli.data.detection.opening import open_detection
from vtk_cli.data.detection.results import read_results
from vtk_cli.data.image_layouts import read_class_map
from vtk_cli.data.points.importing import import_marks, read_marks
from vtk_cli.data.points.opening import open_points
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.pseudo.labels import read_pseudo_labels, read_unresolved

WIDTH, HEIGHT = 8, 6
QUIET = Console(quiet=True)
IMAGES = ("a.png", "b.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two images, and a cache of its own."""
    here = tmp_path_factory.mktemp("fuzz")
    for number, name in enumerate(IMAGES):
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), 60 * number, np.uint8)).save(here / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield here


COCO: dict[str, Any] = {
    "images": [
        {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT} for number, name in enumerate(IMAGES)
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 0,
            "category_id": 1,
            "bbox": [1, 1, 4, 3],
            "area": 12,
            "iscrowd": 0,
            "segmentation": [[1, 1, 5, 1, 5, 4]],
            "point": [2, 2],
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 2,
            "bbox": [0, 0, 8, 1],
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 5, 43]},
            "keypoints": [3, 0, 2],
        },
        {
            "id": 3,
            "image_id": 1,
            "category_id": 1,
            "bbox": [0, 0, 1, 5],
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": "05[1"},
            "point_coords": [[0, 1]],
            "point_labels": [1],
        },
    ],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
}
RESULTS = [
    {"image_id": 0, "category_id": 1, "bbox": [1, 1, 4, 3], "score": 0.5},
    {
        "image_id": 1,
        "category_id": 2,
        "bbox": [0, 0, 1, 5],
        "score": 1,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": "05[1"},
    },
]
PSEUDO = {
    **COCO,
    "annotations": [
        {
            "id": 1,
            "image_id": 0,
            "category_id": 1,
            "bbox": [0, 0, 1, 5],
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": "05[1"},
            "click_id": 7,
            "point": [0, 1],
            "level": 2,
            "score": 0.5,
            "maskness": 0.5,
            "iou_rough_refined": 0.7,
            "flags": ["small"],
        }
    ],
}
UNRESOLVED = {
    "counts": {"none": 1},
    "clicks": [{"image_id": 0, "click_id": 7, "category_id": 1, "point": [0, 1], "reason": "none"}],
}
LABELME = {
    "imagePath": "a.png",
    "imageWidth": WIDTH,
    "imageHeight": HEIGHT,
    "shapes": [
        {"label": "cat", "points": [[1, 1], [5, 1], [5, 4]], "shape_type": "polygon", "group_id": 1},
        {"label": "cat", "points": [[2, 2]], "shape_type": "point", "group_id": 1},
        {"label": "dog", "points": [[0, 0], [4, 4]], "shape_type": "rectangle", "group_id": None},
        {"label": "dog", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "iVBORw0KGgo="},
    ],
}
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/0123abcd-a.png"},
        "annotations": [
            {
                "result": [
                    {"type": "keypointlabels", "value": {"x": 20, "y": 20, "keypointlabels": ["cat"]}},
                    {
                        "type": "polygonlabels",
                        "value": {"points": [[10, 10], [50, 10], [50, 60]], "polygonlabels": ["cat"]},
                    },
                    {
                        "type": "rectanglelabels",
                        "value": {"x": 1, "y": 1, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["dog"]},
                    },
                ]
            }
        ],
    }
]
CVAT = f"""<annotations><image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">
<points label="cat" points="1,1;2,2"/><polygon label="cat" points="1,1;5,1;5,4"/>
<box label="dog" xtl="1" ytl="1" xbr="4" ybr="4" rotation="0"/>
<mask label="dog" left="1" top="1" width="3" height="2" rle="1,2,3"/></image></annotations>""".encode()
VOC = f"""<annotation><filename>a.png</filename><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox></object></annotation>""".encode()
YAML = b"path: .\ntrain: images/train\nval: [images/train]\nnc: 2\nnames: {0: cat, 1: dog}\n"
YOLO = b"0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.9 0.1 0.9 0.9\n"
TABLE = b"image,category,x,y\na.png,cat,1,2\nb.png,dog,3.5,0\na.png,,,\n"
IMAGENET_AB = b"""<annotation><size><width>8</width><height>6</height></size>
<metadata><selected>True</selected><selectedRecord><x>0.5</x><y>0.25</y></selectedRecord>
<mouseTracking><x>0.1</x><y>0.2</y><time>3</time></mouseTracking></metadata>
<object><name>n1</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax><ymax>4</ymax></bndbox></object></annotation>"""
TOOL = [
    {
        "imageID": "n1/a",
        "selected": True,
        "selectedRecord": [{"x": 0.5, "y": 0.5}],
        "mouseTracking": [{"x": 0.1, "y": 0.2}],
    }
]
COCO_AB = [
    {
        "image_id": 1,
        "file_name": "a.png",
        "actionHistories": [
            {"actionType": "add", "iconType": "cat", "pointTo": {"x": 0.5, "y": 0.5}},
            {"actionType": "move", "iconType": "cat", "pointTo": {"x": 0.6, "y": 0.5}},
            {"actionType": "remove", "iconType": "dog"},
        ],
        "mouseTracking": [{"x": 0.1, "y": 0.2}],
    }
]
OWN_CSV = b"file,x,y,class,time\na.png,0.5,0.25,cat,3\nb.png,1,0,dog,1e3\n"
OWN_JSON = [{"file": "a.png", "points": [{"x": 0.5, "y": 0.25, "class": "cat", "time": 3.1}]}]


class Reader(NamedTuple):
    """A parser: the file it reads, broken contents for it, and reading all that it gives."""

    file: str
    contents: st.SearchStrategy[bytes]
    read: Callable[[Path], object]


def detection(path: Path) -> None:
    tried(lambda: open_detection(path, "train", console=QUIET))
    dataset = open_detection(path, "train", skip_bad=True, console=QUIET)
    for record in dataset.records:
        record.masks()
    evaluate_boxes(dataset, [])


def results(path: Path) -> None:
    truth = path.with_name("truth.json")
    truth.write_text(json.dumps({**COCO, "annotations": [COCO["annotations"][0], COCO["annotations"][2]]}))
    dataset = open_detection(truth, "train", console=QUIET)
    found = read_results(path, dataset)
    evaluate_boxes(dataset, found)
    if all(one.masks is not None for one in found):
        evaluate_masks(dataset, found)


def points(path: Path) -> None:
    tried(lambda: open_points(path, console=QUIET))
    open_points(path, skip_bad=True, console=QUIET).summary()


def pseudo(path: Path) -> None:
    for label in read_pseudo_labels(path):
        label.box()
        label.area()


def unresolved(path: Path) -> None:
    read_unresolved(path, open_points(_valid_points(path), console=QUIET).classes)


def _valid_points(path: Path) -> Path:
    table = path.with_name("valid.csv")
    table.write_bytes(TABLE)
    return table


def marks(path: Path) -> None:
    marked = read_marks(path, QUIET)
    import_marks(marked, path.with_name("imported"), QUIET, mixed="points", skip_bad=True)


def yolo(path: Path) -> None:
    top = path.parent if path.name == "data.yaml" else path.parents[2]
    (top / "images" / "train").mkdir(parents=True, exist_ok=True)
    (top / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (top / "images" / "train" / "a.png").write_bytes((top / "a.png").read_bytes())
    for name, content in (("data.yaml", YAML), ("labels/train/a.txt", YOLO)):
        if name != path.relative_to(top).as_posix():
            (top / name).write_bytes(content)
    detection(top / "data.yaml")


def voc(path: Path) -> None:
    (path.parent / "a.png").write_bytes((path.parents[1] / "a.png").read_bytes())
    detection(path.parent)


def byproducts(form: Any) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        source = "boxes" if form == "coco-boxes" else "clicks"
        told = read_byproducts(path, form=form, source=source, console=QUIET)
        match_byproducts(told, IMAGES, ("cat", "dog"), multi_label=False, console=QUIET)

    def both(path: Path) -> None:
        tried(lambda: read_byproducts(path, console=QUIET))
        read(path)

    return both


AB_CONTENTS: dict[str, tuple[str, st.SearchStrategy[bytes]]] = {
    "imagenet-ab": ("ab/n1/a.xml", broken(IMAGENET_AB)),
    "tool-json": ("tool.json", broken_json(TOOL)),
    "coco-ab": ("coco_ab.json", broken_json(COCO_AB)),
    "csv": ("own.csv", broken(OWN_CSV)),
    "json": ("own.json", broken_json(OWN_JSON)),
    "coco-boxes": ("boxes.json", broken_json(COCO)),
}
READERS = {
    "COCO annotations": Reader("coco.json", broken_json(COCO), detection),
    "COCO as classes": Reader("classes.json", broken_json(COCO), lambda path: open_coco(path, None, QUIET)),
    "COCO results": Reader("results.json", broken_json(RESULTS), results),
    "clicks, COCO": Reader("points.json", broken_json(COCO), points),
    "clicks, table": Reader("points.csv", broken(TABLE), points),
    "pseudo labels": Reader("pseudo.json", broken_json(PSEUDO), pseudo),
    "unresolved clicks": Reader("unresolved.json", broken_json(UNRESOLVED), unresolved),
    "LabelMe": Reader("labelme.json", broken_json(LABELME), marks),
    "Label Studio": Reader("studio.json", broken_json(LABEL_STUDIO), marks),
    "CVAT": Reader("cvat.xml", broken(CVAT), marks),
    "COCO to import": Reader("import.json", broken_json(COCO), marks),
    "YOLO data.yaml": Reader("data.yaml", broken(YAML), yolo),
    "YOLO labels": Reader("labels/train/a.txt", broken(YOLO), yolo),
    "Pascal VOC": Reader("voc/a.xml", broken(VOC), voc),
    "class map": Reader("map.json", broken_json({"cat": 0, "dog": 1}), read_class_map),
    **{f"byproducts, {form}": Reader(*AB_CONTENTS[form], byproducts(form)) for form in FORMS},
}


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_read_or_refused_with_a_line(folder: Path, name: str):
    reader = READERS[name]
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    tries = 0

    @fuzzed
    @given(reader.contents)
    def each(content: bytes) -> None:
        nonlocal tries
        tries += 1
        path.write_bytes(content)
        tried(lambda: reader.read(path))

    try:
        each()
    finally:
        path.unlink()
    held("hostile", "any bytes as annotations", "a value or a line (exit code 2)", tries)
