"""Images that mean harm, given to what looks at one and to what trains on a folder of them; odd ones that are read."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cases import held
from tests.detect.shape_folders import write_coco
from tests.hostile.attempts import MIB, SECONDS, Attempts
from tests.hostile.image_files import HOSTILE, ODD, png, write
from vtk_cli.data.images import decode_image
from vtk_cli.data.points import Classes as SegmentClasses
from vtk_cli.detect.checkpoint import save_detector
from vtk_cli.detect.configurations import Classes, detector_config
from vtk_cli.detect.network import build_detector
from vtk_cli.segment.solov2.checkpoint import save_segmenter
from vtk_cli.segment.solov2.configurations import segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2

pytestmark = pytest.mark.slow

_BOUNDS = f"< {SECONDS} s, < {MIB} MiB; nothing run, nothing reached"
BOMB = "a PNG of 60,000 x 60,000"
LOOKS = {
    "train predict": ("train", "predict", "FILE", "--model", "test_vit=classifier.pt", "--device", "cpu"),
    "detect predict": ("detect", "predict", "FILE", "--model", "detector.safetensors", "--device", "cpu", "--out", "d"),
    "segment predict": ("segment", "predict", "FILE", "--model", "segmenter.safetensors", "--device", "cpu"),
}
TRAINS = {
    "train": ("train", "classes", "--model", "test_vit", "--epochs", "1", "--device", "cpu", "--workers", "0"),
    "similarity": ("similarity", "test_vit", "test_vit2", "--data", "classes/train", "--dry-run"),
    "prune run": ("prune", "run", "classes", "--ngf", "8", "--dry-run"),
    "detect train": ("detect", "train", "coco", "--model", "vidt-plus-micro", "--recipe", "digits", "--dry-run"),
}


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    import timm

    folder = tmp_path_factory.mktemp("images")
    detector, segmenter = detector_config("vidt-micro", 1), segmenter_config("solov2-micro", 1)
    network = build_detector(detector).state_dict()
    save_detector(folder / "detector.safetensors", network, detector, Classes(("a",), (1,)))
    state = SOLOv2(segmenter).state_dict()
    save_segmenter(folder / "segmenter.safetensors", state, segmenter, SegmentClasses(("a",), (1,)))
    torch.save(timm.create_model("test_vit", num_classes=2).state_dict(), folder / "classifier.pt")
    kinds = [ODD[kind]() for kind in ("transparency", "a GIF in its place", "CMYK")]
    for place in ("train/a", "train/b", "val/a", "val/b"):
        for number in range(12):
            write(folder / "classes" / place, f"{number}.png", kinds[number % 3])
    write(folder / "classes/train/a", "bomb.jpg", HOSTILE[BOMB]())
    os.mkfifo(folder / "classes/train/b/pipe.png")
    write_coco(folder / "coco", {"train": 3, "val": 2})
    write(folder / "coco/train2017", "0.png", HOSTILE[BOMB]())
    packages = ("train.use", "train.job", "detect.job", "detect.use", "segment.use", "prune.job", "similarity.job")
    attempts = Attempts(folder, *(f"vtk_cli.{name}" for name in (*packages, "data.command")))
    yield attempts
    attempts.close()


_EVERYWHERE = [(BOMB, command) for command in LOOKS]


@pytest.mark.parametrize(
    ("kind", "command"), [*_EVERYWHERE, *((kind, "train predict") for kind in HOSTILE if kind != BOMB)]
)
def test_a_hostile_image_is_refused(attempt: Attempts, kind: str, command: str) -> None:
    file = write(attempt.folder / "hostile", f"{[*HOSTILE].index(kind)}.jpg", HOSTILE[kind]())
    said = attempt(*(word.replace("FILE", str(file)) for word in LOOKS[command]))
    assert file.name in said.refusal
    assert "Traceback" not in said.err
    assert not (attempt.folder / "it-ran").exists()
    held("hostile", f"images: {kind}", f"exit 2, one line that names the file; {_BOUNDS}")


@pytest.mark.parametrize("command", TRAINS)
def test_a_bomb_among_the_images_of_a_training_is_named(attempt: Attempts, command: str) -> None:
    said = attempt(*TRAINS[command], "--out", f"runs/{command}").refusal
    assert ("0.png" if command == "detect train" else "bomb.jpg") in said
    assert "3600000000 pixels" in said
    held("hostile", "images: a bomb and a pipe in a training folder", f"exit 2, both are named; {_BOUNDS}")


def test_the_check_of_a_data_set_counts_them(attempt: Attempts) -> None:
    said = attempt("data", "check", "classes")
    assert (said.code, said.within_bounds) == (2, True)
    assert "image does not decode" in said.out
    held("hostile", "images: a bomb and a pipe before vtk data check", f"exit 2, counted; {_BOUNDS}")


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_image_is_an_image(attempt: Attempts, kind: str) -> None:
    file = write(attempt.folder / "odd", f"{[*ODD].index(kind)}.jpg", ODD[kind]())
    said = attempt(*(word.replace("FILE", str(file)) for word in LOOKS["train predict"]))
    assert said.code == 0, said.err
    assert said.within_bounds
    assert "warning" not in said.err
    held("hostile", "images: odd but honest (CMYK, 16 bits, palette, rotated, ...)", "exit 0: read as they are meant")


@pytest.mark.parametrize(("colour", "depth"), [(6, 8), (0, 16)])
def test_the_largest_image_that_is_read_takes_12_bytes_a_pixel(attempt: Attempts, colour: int, depth: int) -> None:
    """Pillow's limit is 179 megapixels; this one has a third of them."""
    side = 7700
    file = write(attempt.folder / "large", f"{colour}.png", png(side, side, colour=colour, depth=depth))
    said = attempt(*(word.replace("FILE", str(file)) for word in LOOKS["train predict"]))
    assert said.code == 0, said.err
    assert said.mib - 60 < 12 * side**2 / 2**20, said.mib
    held("hostile", "images: as large as they may be", "exit 0; at most 12 bytes a pixel, one at a time: 2 GiB")


def test_strips_on_white_are_the_whole_on_white(tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (37, 29, 4), dtype=np.uint8))
    image.save(tmp_path / "image.png")
    image.convert("RGB").quantize(16).save(tmp_path / "palette.png", transparency=3)
    for name in ("image.png", "palette.png"):
        monkeypatch.setattr("vtk_cli.data.images._STRIP", 2**22)
        whole = np.asarray(decode_image(tmp_path / name))
        monkeypatch.setattr("vtk_cli.data.images._STRIP", 100)
        assert np.array_equal(np.asarray(decode_image(tmp_path / name)), whole)
        layered = Image.open(tmp_path / name).convert("RGBA")
        meant = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
        assert np.array_equal(whole, np.asarray(meant))
