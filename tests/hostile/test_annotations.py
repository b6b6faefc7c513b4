"""Annotation files from strangers: what was found wrong with them, one by one."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cases import held
from vtk_cli.console import Console
from vtk_cli.data import memory
from vtk_cli.data.classification_coco import open_coco
from vtk_cli.data.coco_files import MEMORY_PER_BYTE, read_coco_file
from vtk_cli.data.detection.opening import open_detection
from vtk_cli.data.points.importing import read_marks
from vtk_cli.data.points.opening import open_points
from vtk_cli.data.points.reading import Click, image_of, once_each
from vtk_cli.data.points.records import Classes, PointSet
from vtk_cli.errors import LONGEST, UserError
from vtk_cli.files import CACHE_VARIABLE

QUIET = Console(quiet=True)
WIDTH, HEIGHT = 40, 30
PARTS = 16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    here = tmp_path / "data"
    here.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(here / "a.png")
    return here


def coco(annotations: Any = None, *, name: Any = "a.png", category: Any = "cat", **image: Any) -> dict[str, Any]:
    whole = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    return {
        "images": [{"id": 1, "file_name": name, "width": WIDTH, "height": HEIGHT, **image}],
        "annotations": [whole] if annotations is None else annotations,
        "categories": [{"id": 1, "name": category}],
    }


def refusal(folder: Path, content: Any, read: Callable[[Path], object] | None = None) -> str:
    """The line with which a file is refused, by the readers of boxes and of clicks."""
    path = folder / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    told = []
    for reader in (read,) if read else (detection, points):
        with pytest.raises(UserError) as error:
            reader(path)
        told.append(str(error.value))
        assert "\n" not in told[-1]
        assert len(told[-1]) <= LONGEST + 5
    return told[0]


def detection(path: Path) -> object:
    return open_detection(path, "train", console=QUIET)


def points(path: Path) -> object:
    return open_points(path, console=QUIET)


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "..\\secret.png", "a.png\0", "n" * 5000, "."])
def test_an_image_outside_the_folder_is_never_opened(folder: Path, name: str):
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder.parent / "secret.png")
    told = refusal(folder, coco(name=name))
    assert "outside the folder" in told or "missing" in told
    held(
        "hostile",
        "COCO: image names with ../, backslash, NUL, 5,000 letters",
        "exit code 2: lies outside, or is missing",
    )


def test_an_absolute_image_name_is_never_opened(folder: Path):
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder.parent / "secret.png")
    assert "outside the folder" in refusal(folder, coco(name=str(folder.parent / "secret.png")))
    held("hostile", "COCO: absolute image names", "exit code 2: lies outside the folder of the images")


@pytest.mark.parametrize("depth", [900, 950, 960, 970, 980, 990, 100_000])
@pytest.mark.parametrize("place", ["top", "id", "image_id", "bbox", "segmentation", "file_name", "category_id"])
def test_brackets_in_brackets_are_refused(folder: Path, depth: int, place: str):
    deep = "[" * depth + "]" * depth
    text = json.dumps(coco())
    if place == "top":
        text = deep
    else:
        value = {"id": '"id": 1, "image_id"', "file_name": '"file_name": "a.png"', "bbox": '"bbox": [1, 1, 4, 4]'}
        old = value.get(place, f'"{place}": 1')
        new = {"id": f'"id": {deep}, "image_id"'}.get(place, f'"{place}": {deep}')
        text = (
            text.replace('"iscrowd": 0', f'"segmentation": {deep}')
            if place == "segmentation"
            else text.replace(old, new)
        )
    refusal(folder, text.encode())
    held(
        "hostile",
        "COCO: up to 10^5 brackets in brackets",
        "exit code 2: nested too deeply, or what the value should be",
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"bbox": [float("nan"), 1, 2, 2]}, id="NaN"),
        pytest.param({"bbox": [float("inf"), 1, 2, 2]}, id="infinity"),
        pytest.param({"bbox": [1e308, 1e308, 1e308, 1e308]}, id="1e308"),
        pytest.param({"bbox": [0, 0, 10**400, 1]}, id="an integer of 400 digits"),
        pytest.param({"bbox": [1, 1, -4, -4]}, id="negative sides"),
        pytest.param({"bbox": ["1", "1", "4", "4"]}, id="text"),
        pytest.param({"bbox": None}, id="null"),
        pytest.param({"bbox": []}, id="nothing"),
        pytest.param({"segmentation": [[]]}, id="a polygon without points"),
        pytest.param({"segmentation": [[1, 1]]}, id="a polygon of a point"),
        pytest.param({"segmentation": [[1, 1, 2, 2]]}, id="a polygon of two points"),
        pytest.param({"segmentation": [[1, 1, 2, 2, 3, float("nan")]]}, id="a polygon with NaN"),
        pytest.param({"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}, id="a mask of 10^18 pixels"),
        pytest.param({"category_id": 10**300}, id="a category of 300 digits"),
        pytest.param({"image_id": None}, id="of no image"),
        pytest.param({"id": None}, id="without an id"),
        pytest.param({"iscrowd": []}, id="a list for a flag"),
    ],
)
def test_a_wrong_annotation_is_refused(folder: Path, change: dict[str, Any]):
    whole = coco()["annotations"][0]
    told = refusal(folder, coco([{**whole, **change}]), detection)
    assert "wrong entries" in told
    held(
        "hostile",
        "COCO: NaN, 1e308, negative, empty, text, null in annotations",
        "exit code 2: counted by fault, first named",
    )


def test_numbers_of_thousands_of_digits_are_refused(folder: Path):
    text = json.dumps(coco()).replace("[1, 1, 4, 4]", f"[{'9' * 5000}, 1, 4, 4]")
    assert "digits" in refusal(folder, text.encode())


@pytest.mark.parametrize("image", [{"width": 10**9}, {"height": 10**9}, {"width": -1}, {"width": "40"}, {"id": [1]}])
def test_a_wrong_image_entry_is_refused(folder: Path, image: dict[str, Any]):
    assert "wrong entries" in refusal(folder, coco(**image))
    held("hostile", "COCO: images of 10^9 x 10^9 pixels, or of none", "exit code 2: another size than listed")


def test_duplicate_ids_are_refused(folder: Path):
    whole = coco()["annotations"][0]
    assert "used twice" in refusal(folder, coco([whole, whole]), detection)
    twice = coco()
    twice["images"] *= 2
    assert "used twice" in refusal(folder, twice)
    twice = coco()
    twice["categories"] *= 2
    assert "used twice" in refusal(folder, twice)
    held("hostile", "COCO: ids that are used twice", "exit code 2")


def test_a_class_name_of_half_a_character_is_refused(folder: Path):
    assert "no text" in refusal(folder, coco(category="\ud800"))


def _edited(content: bytes) -> dict[str, bytes]:
    whole = content.decode()
    cut = {f"cut at {part}/{PARTS}": content[: len(content) * part // PARTS] for part in range(PARTS)}
    return {"BOM": b"\xef\xbb\xbf" + content, "UTF-16": whole.encode("utf-16"), "garbage behind": content + b"}", **cut}


@pytest.mark.parametrize("how", _edited(b""))
def test_bytes_that_are_no_json_are_refused(folder: Path, how: str):
    refusal(folder, _edited(json.dumps(coco()).encode())[how])
    held("hostile", "COCO: cut at every 1/16, BOM, UTF-16, garbage behind", "exit code 2: is not JSON")


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [None, {}, 3, "text", [None], [3], [[]], ["text"]])
def test_sections_of_anything_else_are_refused(folder: Path, section: str, value: object):
    content = {**coco(), section: value}
    refusal(folder, content, detection if section == "annotations" else None)
    held("hostile", "COCO: null, numbers, text where entries belong", "exit code 2")


def _many(path: Path, count: int) -> int:
    """Write so many annotations, one after the other; the bytes of the file."""
    start, end = json.dumps(coco([])).split('"annotations": []')
    with path.open("w") as stream:
        stream.write(start + '"annotations": [')
        for number in range(count):
            entry = {"id": number, "image_id": 1, "category_id": 1, "bbox": [number % 30, number % 20, 4, 4]}
            stream.write(("," if number else "") + json.dumps({**entry, "area": 16, "iscrowd": 0}))
        stream.write("]" + end)
    return path.stat().st_size


def _memory_of(read: Callable[[], object]) -> int:
    """Bytes that a fork takes more at its peak than this process when it is made."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    child = os.fork()
    if not child:
        code = 70
        try:
            read()
            code = 0
        finally:
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    assert status == 0
    return used.ru_maxrss * 1024 - before


@pytest.mark.slow
def test_a_hundred_thousand_annotations_take_a_kilobyte_each(folder: Path):
    sizes = [_many(folder / f"{count}.json", count) for count in (10_000, 100_000)]
    taken = [
        _memory_of(lambda count=count: open_detection(folder / f"{count}.json", "train", console=QUIET))
        for count in (10_000, 100_000)
    ]
    each = (taken[1] - taken[0]) / 90_000
    assert each < MEMORY_PER_BYTE * (sizes[1] - sizes[0]) / 90_000 * 1.25
    outcome = "read: 1 KB and 20 us each; or exit code 2 where 12 bytes a byte of the file are not free"
    held("hostile", "COCO: 10^5 annotations", outcome)


def test_a_file_that_is_larger_than_memory_is_refused_before_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    assert "GB of memory" in refusal(folder, coco())


def test_free_memory_is_that_of_the_machine_or_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limit, used, machine = (tmp_path / name for name in ("max", "current", "meminfo"))
    monkeypatch.setattr(memory, "_GROUPS", ((limit, used),))
    monkeypatch.setattr(memory, "_MEMINFO", machine)
    assert memory.free_memory() is None
    machine.write_text("MemTotal: 9 kB\nMemAvailable:   2 kB\n")
    used.write_text("500\n")
    limit.write_text("max\n")
    assert memory.free_memory() == 2048
    limit.write_text("1500\n")
    assert memory.free_memory() == 1000


def test_a_million_point_polygon_is_read_or_refused_in_bounded_time(folder: Path):
    angles = np.linspace(0, 6.28, 300_000)
    ring = np.stack([20 + 10 * np.cos(angles), 15 + 10 * np.sin(angles)], axis=1).round(2).ravel().tolist()
    path = folder / "file.json"
    path.write_text(json.dumps(coco([{**coco()["annotations"][0], "segmentation": [ring]}])))
    start = monotonic()
    dataset = open_detection(path, "train", console=QUIET)
    assert dataset.records[0].masks().sum() == pytest.approx(314, abs=12)
    assert monotonic() - start < 20


def test_many_clicks_on_an_image_do_not_take_the_square_of_their_number():
    rng = np.random.default_rng(0)
    clicks = [Click(point, 0, number, "point") for number, point in enumerate(rng.random((30_000, 2)) * 300)]
    points = PointSet("many", (image_of(Path("a.png"), 1, (300, 300), clicks),), Classes(("cat",), (1,)))
    start = monotonic()
    kept = once_each(points, QUIET).images[0].points
    assert monotonic() - start < 20
    few = kept[:500]
    apart = np.hypot(*(few[:, None] - few[None]).transpose(2, 0, 1)) + 9 * np.eye(len(few))
    assert apart.min() > 1


@pytest.mark.parametrize("read", [lambda path: open_coco(path, None, QUIET), read_coco_file])
def test_other_readers_refuse_what_is_no_coco(folder: Path, read: Callable[[Path], object]):
    refusal(folder, b"[" * 100_000, read)
    refusal(folder, b"{}", read)


BOMB = """<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]><{0}><name>&d;</name></{0}>"""
OUTSIDE = """<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><{0}><name>&a;</name></{0}>"""


@pytest.mark.parametrize("text", [BOMB, OUTSIDE, "<{0}>" + "<a>" * 200_000], ids=["bomb", "outside", "deep"])
def test_xml_with_entities_or_elements_in_elements_is_refused(folder: Path, text: str):
    (folder / "a.xml").write_text(text.format("annotation"))
    with pytest.raises(UserError, match="name no object"):
        open_detection(folder, "train", console=QUIET)
    (folder / "cvat.xml").write_text(text.format("annotations"))
    with pytest.raises(UserError, match=r"document type|in one another"):
        read_marks(folder / "cvat.xml", QUIET)
    held(
        "hostile",
        "XML: entity bombs, external entities, 200,000 elements deep",
        "exit code 2: has a document type, or too deep",
    )


def test_a_cvat_mask_larger_than_its_image_takes_no_memory(folder: Path):
    side = 10**6
    mask = f'<mask label="x" left="0" top="0" width="{side}" height="{side}" rle="0,{side * side}"/>'
    image = f'<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">{mask}</image>'
    (folder / "cvat.xml").write_text(f"<annotations>{image}</annotations>")
    marked = read_marks(folder / "cvat.xml", QUIET)
    assert [problem.what for problem in marked.problems] == ["mask does not decode"]


@pytest.mark.parametrize("value", [{"points": 5}, {"points": True}, {"points": {"a": 1}}])
def test_label_studio_polygons_that_are_no_lists_are_wrong(folder: Path, value: dict[str, Any]):
    region = {"type": "polygonlabels", "value": {**value, "polygonlabels": ["cat"]}}
    task = {"id": 1, "data": {"image": "http://[", "other": "a.png"}, "annotations": [{"result": [region]}]}
    (folder / "studio.json").write_text(json.dumps([task]))
    marked = read_marks(folder / "studio.json", QUIET)
    assert [problem.what for problem in marked.problems] == ["polygon is not three or more points"]


YAML_BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 8)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(YAML_BOMB + "train: *i\nnames: [cat]\n", "aliases", id="aliases of aliases"),
        pytest.param("train: images\nnc: 1000000000000\n", "names no classes", id="10^12 classes"),
        pytest.param("train: images\nnc: 2\nnames: [!!int '', x]\n", "is not YAML", id="an integer of nothing"),
        pytest.param("train: images\nnames: [!!bool x]\n", "is not YAML", id="a bool that is none"),
        pytest.param("train: images\nnames: [!!timestamp x]\n", "is not YAML", id="a time that is none"),
        pytest.param("train: !!python/object/apply:os.system [x]\n", "is not YAML", id="code"),
        pytest.param("train: " + "[" * 100_000, "is not YAML", id="brackets"),
        pytest.param("train: images\nnames:\n" + "- cat\n" * 200_000, "longer than", id="200,000 names"),
        pytest.param(f"train: {'x' * 300}\nnames: [cat]\n", "no folder or list", id="a name of 300 letters"),
        pytest.param("train: images\nnames: [cat]\n\0", "is not YAML", id="a NUL"),
    ],
)
def test_a_hostile_data_yaml_is_refused(folder: Path, text: str, said: str):
    (folder / "data.yaml").write_text(text)
    start = monotonic()
    with pytest.raises(UserError, match=said):
        detection(folder / "data.yaml")
    assert monotonic() - start < 10
    held("hostile", "YOLO data.yaml: alias bombs, 10^12 classes, tags that run code", "exit code 2 in < 10 s")
