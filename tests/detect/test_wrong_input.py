"""Every format of boxes through `vtk detect train`: what is right is learned, what is wrong is told in one line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.detect.shape_folders import WRITERS
from vtk_cli.app import main

TRAIN = ("--recipe", "digits", "--model", "vidt-micro", "--size", "32", "--workers", "0", "--warmup-steps", "0")
LINE, FILE, MARKUP = "labels/train/0.txt", "annotations/instances_train2017.json", "Annotations/train0.xml"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Four images to train on and two others, in every format."""
    root = tmp_path_factory.mktemp("folders")
    return {kind: write(root / kind, {"train": 4, "val": 2}) for kind, write in WRITERS.items()}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and a cache of its own."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("VTK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "here"


@pytest.fixture
def train(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs `vtk detect train`; gives the exit code and standard error."""

    def call(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["detect", "train", *map(str, (*TRAIN, *arguments))])
        return code, capsys.readouterr().err

    return call


def complaint(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


def told(text: str) -> Change:
    return lambda root: (root / LINE).write_text(text)


def marked(pattern: str, text: str) -> Change:
    return lambda root: (root / MARKUP).write_text(re.sub(pattern, text, (root / MARKUP).read_text(), count=1))


def listed(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(root: Path) -> None:
        content = json.loads((root / FILE).read_text())
        change(content)
        (root / FILE).write_text(json.dumps(content))

    return apply


def cut(name: str) -> Change:
    return lambda root: (root / name).write_bytes((root / name).read_bytes()[:200])


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_is_the_same_data(kind: str, folders: dict[str, Path], train: Any, place: Path) -> None:
    code, err = train(folders[kind], "--dry-run", "--masks", "auto")
    assert code == 0, err
    masks = ", 8 with masks" if kind in {"coco", "roboflow"} else ""
    assert f"4 images, 8 objects of 3 classes{masks}\n" in err
    assert f"2 images, 4 objects of 3 classes{masks.replace('8', '4')}\n" in err
    assert [*place.iterdir()] == []


WRONG: dict[str, tuple[str, Change, str]] = {
    "a class that is none": ("yolo", told("3 .5 .5 .2 .2\n"), "class is not one of 0 to 2 (first .*0.txt:1"),
    "four values": ("yolo", told("1 .5 .5 .2\n"), "line is neither .*0.txt:1"),
    "no number": ("yolo", told("1 .5 .5 .2 .2\n1 .5 a .2 .2\n"), "no number .*0.txt:2"),
    "not finite": ("yolo", told("1 .5 nan .2 .2\n"), "not finite .*0.txt:1"),
    "off the image": ("yolo", told("1 1.5 .5 .2 .2\n"), "lies outside the image .*0.txt:1"),
    "no area": ("yolo", told("1 .5 .5 0 .2\n"), "no area .*0.txt:1"),
    "bytes": ("yolo", lambda root: (root / LINE).write_bytes(b"\xff\xfe\x00"), "no number .*0.txt:1"),
    "half an image": ("yolo", cut("images/train/0.png"), "image does not decode .*0.png"),
    "half an XML": ("voc", cut(MARKUP), "is not XML .*train0.xml"),
    "corners exchanged": ("voc", marked("<xmax>.*?</xmax>", "<xmax>1</xmax>"), "has no area .*train0.xml: object 1"),
    "a corner that is none": ("voc", marked("<xmax>.*?</xmax>", "<xmax>nan</xmax>"), "not four numbers .*train0.xml"),
    "another's file": ("voc", marked("train0.png", "../../../etc/passwd"), "lies outside the folder of the images"),
    "an infinite box": (
        "coco",
        listed(lambda content: content["annotations"][0].update(bbox=[3, 3, float("inf"), 5])),
        r"not four numbers .*annotation 0 \(id 1",
    ),
    "a negative width": (
        "coco",
        listed(lambda content: content["annotations"][1].update(bbox=[30, 3, -9, 5])),
        r"has no area .*annotation 1 \(id 2",
    ),
    "an image elsewhere": (
        "coco",
        listed(lambda content: content["images"][2].update(file_name="/etc/passwd")),
        "lies outside the folder of the images .*image 2",
    ),
    "another size": (
        "coco",
        listed(lambda content: content["images"][0].update(width=40)),
        "another size than listed .*72x60, listed as 40x60",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_entry_is_counted_and_located_and_can_be_left_out(
    name: str, folders: dict[str, Path], train: Any, tmp_path: Path, place: Path
) -> None:
    kind, change, words = WRONG[name]
    root = shutil.copytree(folders[kind], tmp_path / "data")
    change(root)
    code, err = train(root)
    assert code == 2
    assert re.search(f"wrong entries: .*{words.replace('(first', '.first')}", complaint(err)), err
    assert "--skip-bad" in complaint(err)
    assert [*place.iterdir()] == []
    code, err = train(root, "--skip-bad", "--dry-run")
    assert code == 0, err
    assert "wrong entries left out" in err


@pytest.mark.parametrize(
    ("kind", "name", "text", "words"),
    [
        ("yolo", "data.yaml", "train: images/train\nval: images/val\n", "names no classes"),
        ("yolo", "data.yaml", "names: [a\n", "is not YAML"),
        ("yolo", "data.yaml", "train: nowhere\nval: images/val\nnames: [a]\n", "no folder or list of images"),
        ("coco", FILE, "", "is not JSON"),
        ("coco", FILE, "[]", "has no list 'images'"),
        ("roboflow", "train/_annotations.coco.json", '{"images": [', "is not JSON"),
    ],
)
def test_a_damaged_list_is_refused_even_where_entries_may_be_left_out(
    kind: str, name: str, text: str, words: str, folders: dict[str, Path], train: Any, tmp_path: Path, place: Path
) -> None:
    root = shutil.copytree(folders[kind], tmp_path / "data")
    (root / name).write_text(text)
    code, err = train(root, "--skip-bad")
    assert code == 2
    assert words in complaint(err)
    assert name in complaint(err)
    assert [*place.iterdir()] == []


def test_an_image_of_one_pixel_is_an_image(folders: dict[str, Path], train: Any, tmp_path: Path) -> None:
    root = shutil.copytree(folders["yolo"], tmp_path / "data")
    Image.new("RGB", (1, 1)).save(root / "images/train/0.png")
    told("1 .5 .5 1 1\n")(root)
    for recipe in (("--recipe", "paper"), ("--recipe", "modern", "--precision", "fp32")):
        code, err = train(root, *recipe, "--model", "vidt-micro", "--steps", "1", "-o", recipe[1])
        assert code == 0, err
        assert (Path(recipe[1]) / "model.safetensors").exists()


def test_nothing_to_find_in_validation_is_no_number(folders: dict[str, Path], train: Any, tmp_path: Path) -> None:
    root = shutil.copytree(folders["yolo"], tmp_path / "data")
    for file in (root / "labels/val").iterdir():
        file.write_text("")
    code, err = train(root, "--steps", "1", "-o", "run")
    assert code == 0, err
    assert "2 images without objects" in err
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["boxes"]["AP"] is None
    assert "best" not in summary
    assert ": AP" not in Path("run/report.html").read_text().split("</title>")[0]
    assert main(["detect", "eval", "run", "--which", "best", "--quiet"]) == 2


def test_weights_that_cannot_be_fetched_are_asked_for_by_their_option(
    folders: dict[str, Path], train: Any, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    from vtk_cli.detect import starting

    fetch = starting.backbone_file
    monkeypatch.setattr(starting, "backbone_file", lambda config, offline: fetch(config, offline=True))
    monkeypatch.setattr("vtk_cli.models.published.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr("vtk_cli.models.published._url_cached", lambda *_: False)
    code, err = train(folders["yolo"], "--model", "vidt-tiny", "--weights", "imagenet")
    assert code == 2
    assert "--weights FILE" in complaint(err)
    assert "--weights none" in complaint(err)
    assert [*place.iterdir()] == []
