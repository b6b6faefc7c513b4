"""Whatever a file of annotations holds, it is read or refused in one line; nothing else is raised."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vtk_cli.console import Console
from vtk_cli.data.detection import open_detection
from vtk_cli.errors import UserError

QUIET = Console(quiet=True)
JUNK = (
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**400,
    float("nan"),
    float("-inf"),
    "",
    "x",
    "../x",
    "\0",
    [],
    [[]],
    {},
    [1, "2"],
)
ROUNDS = 150


def check(root: Path) -> bool:
    """Whether it was read; then every record is what training relies on."""
    try:
        dataset = open_detection(root, "train", skip_bad=True, console=QUIET)
    except UserError:
        return False
    for record in dataset.records:
        boxes, size = record.boxes, (record.width, record.height)
        assert np.isfinite(boxes).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= size).all()
        assert (record.area > 0).all()
        assert ((record.labels >= 0) & (record.labels < len(dataset.class_names))).all()
        assert record.masks().shape == (len(record), record.height, record.width)
        assert root in record.file.parents
    return True


def drawn(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inside = [(*path, key) for key, _ in items]
    return inside + [deeper for key, part in items for deeper in places(part, (*path, key))]


def mangle(content: Any, chance: random.Random) -> None:
    *way, last = chance.choice(places(content))
    for key in way:
        content = content[key]
    if chance.random() < 0.2:
        del content[last]
    else:
        content[last] = copy.deepcopy(chance.choice(JUNK))


@pytest.fixture
def root(tmp_path: Path, paint: Callable[[Path], None]) -> Path:
    for index in range(3):
        paint(tmp_path / "set" / "images" / "train" / f"{index}.png")
    return tmp_path / "set"


def test_mangled_coco(root):
    (root / "train").symlink_to(root / "images" / "train")
    (root / "annotations").mkdir()
    box = {"iscrowd": 0, "area": 50, "bbox": [2, 3, 10, 8]}
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 40, "height": 30} for n in range(3)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, **box, "segmentation": [[2, 3, 12, 3, 12, 11]]},
            {"id": 2, "image_id": 1, "category_id": 2, **box, "segmentation": {"size": [30, 40], "counts": [9, 1191]}},
            {"id": 3, "image_id": 1, "category_id": 2, **box, "segmentation": {"size": [30, 40], "counts": "9WU1"}},
            {"id": 4, "image_id": 2, "category_id": 1, **box, "point": [5, 5]},
        ],
        "categories": [{"id": 1, "name": "a", "supercategory": "none"}, {"id": 2, "name": "b", "supercategory": "a"}],
    }
    read = 0
    for seed in range(ROUNDS):
        chance, mangled = drawn(seed), copy.deepcopy(content)
        for _ in range(chance.randint(1, 3)):
            mangle(mangled, chance)
        (root / "annotations" / "instances_train.json").write_text(json.dumps(mangled))
        read += check(root)
    assert 0.3 * ROUNDS < read < ROUNDS


def test_mangled_yolo(root):
    (root / "labels" / "train").mkdir(parents=True)
    config, lines = "train: images/train\nnc: 2\nnames: [a, b]\n", "1 .5 .5 .2 .2\n0 .1 .1 .5 .1 .5 .6\n"
    read = 0
    for seed in range(ROUNDS):
        chance = drawn(seed)
        (root / "data.yaml").write_text(scrambled(config, chance) if seed % 3 == 0 else config)
        (root / "labels" / "train" / "0.txt").write_text(scrambled(lines, chance))
        read += check(root)
    assert 0.3 * ROUNDS < read < ROUNDS


def test_mangled_voc(root):
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"<annotation><filename>0.png</filename><object><name>a</name>{box}</object></annotation>"
    (root / "Annotations").mkdir()
    images = root / "images"
    for file in list((images / "train").iterdir()):
        file.rename(images / file.name)
    (root / "Annotations" / "1.xml").write_text(text.replace("0.png", "1.png"))
    read = 0
    for seed in range(ROUNDS):
        (root / "Annotations" / "0.xml").write_text(scrambled(text, drawn(seed)))
        read += check(root)
    assert read == ROUNDS  # the other file always is


def scrambled(text: str, chance: random.Random) -> str:
    """A few characters changed, a part cut out, or a part there twice."""
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(text))
        end = min(len(text), start + chance.randint(1, 9))
        part = chance.choice(["", text[start:end] * 2, chance.choice("0129.- <>/[]:#{}&'\n\tex")])
        text = text[:start] + part + text[end:]
    return text or " "
