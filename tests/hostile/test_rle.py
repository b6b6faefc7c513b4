"""Run-length masks from strangers: pycocotools sees only those that fill their image."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.cases import held
from vtk_cli.console import Console
from vtk_cli.data.coco_faults import faults_of_instance
from vtk_cli.data.detection.opening import open_detection
from vtk_cli.data.detection.outlines import outline_area, outline_mask, outline_of
from vtk_cli.data.detection.results import read_results
from vtk_cli.data.points.opening import open_points
from vtk_cli.data.rle import LONGEST_BORDER, MOST_PIXELS, run_lengths
from vtk_cli.errors import UserError
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.pseudo.labels import read_pseudo_labels

HEIGHT, WIDTH = 7, 9
QUIET = Console(quiet=True)
TRIES = 4000


def some_counts(rng: random.Random) -> Any:
    """Counts of every kind of wrong; few are right."""
    runs = [
        rng.choice((0, 1, 5, 63, 64, -1, 2**31, 2**32 + 5, 2**63, rng.randrange(70))) for _ in range(rng.randrange(9))
    ]
    if rng.random() < 0.3:
        runs.append(HEIGHT * WIDTH - sum(runs))
    whole = coco_mask.encode(
        np.asfortranarray(np.array(rng.choices((0, 1), k=HEIGHT * WIDTH), np.uint8).reshape(HEIGHT, WIDTH))
    )
    text = whole["counts"].decode()
    at = rng.randrange(len(text))
    return rng.choice(
        (
            runs,
            text,
            text[:at],
            text[:at] + chr(rng.randrange(48, 112)) + text[at + 1 :],
            text + "".join(chr(rng.randrange(1, 130)) for _ in range(3)),
            "".join(chr(rng.randrange(48, 112)) for _ in range(rng.randrange(12))),
            "o" * rng.randrange(20),
            text[:at] + "é" + text[at:],
        )
    )


def in_a_child(work: Callable[[], None], seconds: int = 120) -> int:
    """The status with which a fork that does `work` ends; below 0: a signal's number."""
    child = os.fork()
    if not child:
        code = 70
        try:
            signal.alarm(seconds)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_no_counts_crash_what_draws_them():
    rng = random.Random(0)  # noqa: S311
    whole: list[Any] = []

    def draw() -> None:
        for _ in range(TRIES):
            mask = {"size": [HEIGHT, WIDTH], "counts": some_counts(rng)}
            if not list(faults_of_instance({"segmentation": mask}, (WIDTH, HEIGHT))):
                whole.append(mask)
                outline = outline_of(mask, HEIGHT, WIDTH)
                assert outline is not None
                assert outline_mask(outline, HEIGHT, WIDTH).sum() == outline_area(outline)
                assert outline_area(outline) == sum(run_lengths(mask, HEIGHT, WIDTH)[1::2])
        assert len(whole) > TRIES / 20, "the right ones among them were drawn"

    assert in_a_child(draw) == 0
    held(
        "hostile",
        "RLE with random wrong counts",
        "refused before pycocotools sees them; the right ones are drawn",
        TRIES,
    )


@pytest.mark.parametrize("mask", [
    pytest.param({"size": [3, 5], "counts": "é"}, id="a letter that UTF-8 writes in two bytes"),
    pytest.param({"size": [3, 5], "counts": "?\0"}, id="a NUL"),
    pytest.param({"size": [10**9, 10**9], "counts": [10**18]}, id="10^18 pixels"),
    pytest.param({"size": [2**16, 2**15], "counts": [2**31]}, id="a run of more bits than fit"),
    pytest.param({"size": [-1, -1], "counts": [1]}, id="negative sides"),
    pytest.param({"size": [1, 1], "counts": "1" * 9 + "o" * 9}, id="a number without end"),
])  # fmt: skip
def test_a_mask_that_would_read_elsewhere_is_refused(mask: dict[str, Any]):
    height, width = mask["size"]
    with pytest.raises(ValueError, match=r"pixels|character|too large"):
        run_lengths(mask, height, width)
    assert MOST_PIXELS < 2**31


def test_a_number_of_a_million_characters_is_refused_at_once():
    start = monotonic()
    with pytest.raises(ValueError, match="too large"):
        run_lengths({"size": [4, 4], "counts": "o" * 1_000_000 + "0"}, 4, 4)
    assert monotonic() - start < 1


def test_a_polygon_that_winds_to_and_fro_is_refused_before_its_border_is_drawn():
    size = (4000, 4000)
    zigzag = [corner for at in range(10_000) for corner in (0, at % 4000, 4000, at % 4000)]
    faults = [what for _, what in faults_of_instance({"segmentation": [zigzag]}, size)]
    assert faults == ["polygon winds too much to be drawn"]
    shorter = [zigzag[: LONGEST_BORDER // 4100 // 2 * 2]]
    assert not list(faults_of_instance({"segmentation": shorter}, size))
    held(
        "hostile",
        "polygon of 20,000 points to and fro",
        "left out, or exit code 2: winds too much; < 400 MB to draw one",
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    return tmp_path


def coco(**fields: Any) -> str:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "point": [1, 1], **fields}
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    return json.dumps({"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cat"}]})


def _detection(path: Path) -> None:
    path.write_text(coco(segmentation=WRONG))
    open_detection(path, "train", console=QUIET)


def _points(path: Path) -> None:
    path.write_text(coco(segmentation=WRONG).replace('"point": [1, 1], ', ""))
    open_points(path, console=QUIET)


def _pseudo(path: Path) -> None:
    path.write_text(coco(segmentation=WRONG))
    list(read_pseudo_labels(path))


def _results(path: Path) -> None:
    truth = path.with_name("truth.json")
    truth.write_text(coco())
    result = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "score": 1, "segmentation": WRONG}
    path.write_text(json.dumps([result]))
    read_results(path, open_detection(truth, "train", console=QUIET))


WRONG = {"size": [HEIGHT, WIDTH], "counts": [4_000_000_000, 5]}


@pytest.mark.parametrize("read", [_detection, _points, _pseudo, _results])
def test_every_reader_of_masks_looks_at_the_counts_first(folder: Path, read: Callable[[Path], None]):
    with pytest.raises(UserError, match=r"decode.*") as told:
        read(folder / "file.json")
    assert "file.json" in str(told.value)
    held("hostile", "RLE whose runs do not fill the image", "exit code 2: the mask does not decode")
