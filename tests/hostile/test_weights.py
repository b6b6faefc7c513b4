"""Weight files that mean harm, given to every command that reads one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

import pytest
from PIL import Image

from tests.cases import held
from tests.hostile.attempts import MIB, SECONDS, Attempts
from tests.hostile.weight_files import MARK, PICKLES, TENSORS, described
from vtk_cli.detect.configurations import config_to_json as detector_to_json
from vtk_cli.detect.configurations import detector_config
from vtk_cli.models.described_weights import classes_to_text
from vtk_cli.segment.solov2.configurations import config_to_json, segmenter_config

pytestmark = pytest.mark.slow

_BOUNDS = f"exit 2, one line that names the file; < {SECONDS} s, < {MIB} MiB; nothing run, nothing reached"
COMMANDS: dict[str, tuple[str, ...]] = {
    "train predict": ("train", "predict", "image.png", "--model", "resnet10t=FILE", "--device", "cpu"),
    "train --weights": ("train", "--model", "resnet10t", "--weights", "FILE", "--dry-run", "--out", "run"),
    "similarity": ("similarity", "resnet10t=FILE", "test_vit", "--data", "images", "--device", "cpu", "--out", "run"),
    "detect predict": ("detect", "predict", "image.png", "--model", "FILE", "--device", "cpu"),
    "detect convert": ("detect", "convert", "FILE"),
    "segment predict": ("segment", "predict", "image.png", "--model", "FILE", "--device", "cpu"),
    "video-pretrain predict": ("video-pretrain", "predict", "clip.mp4", "--model", "FILE", "--device", "cpu"),
    "prune sample": ("prune", "sample", "FILE"),
    "search export": ("search", "export", "genas-flatness-cifar10", "--weights", "FILE", "--out", "exported"),
    "adapt start": ("adapt", "start", "run", "--model", "FILE", "--target", "images", "--budget", "1"),
}


@pytest.fixture(scope="module")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempts]:
    folder = tmp_path_factory.mktemp("weights")
    for name in ("images/a", "images/b"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(folder / name / "0.png")
    Image.new("RGB", (32, 32)).save(folder / "image.png")
    (folder / "clip.mp4").write_bytes(b"no video")
    packages = ("train.use", "train.job", "detect.use", "segment.use", "video_pretrain.use", "prune.job")
    modules = [f"vtk_cli.{name}" for name in (*packages, "search.exporting", "adapt.session", "similarity.job")]
    attempts = Attempts(folder, *modules)
    yield attempts
    attempts.close()


def _words(command: str, file: Path) -> list[str]:
    return [word.replace("FILE", str(file)) for word in COMMANDS[command]]


def _pairs(kinds: Iterable[str], everywhere: Sequence[str]) -> list[tuple[str, str]]:
    """Every kind with one command in turn, some with every command: all commands read weights in one place."""
    turns = [(kind, command) for kind, command in zip(kinds, cycle(COMMANDS), strict=False) if kind not in everywhere]
    return [*turns, *((kind, command) for kind in everywhere for command in COMMANDS)]


@pytest.mark.parametrize(("kind", "command"), _pairs(PICKLES, ("a pickle that calls the shell",)))
def test_a_hostile_pickle_is_refused(attempt: Attempts, kind: str, command: str) -> None:
    file = attempt.folder / f"{[*PICKLES].index(kind)}.pt"
    if not file.exists():
        PICKLES[kind](file, attempt.outside)
    said = attempt(*_words(command, file)).refusal
    assert file.name in said
    assert len(said) < 5000
    assert not (attempt.outside / MARK).exists()
    held("hostile", f"weights: {kind}", _BOUNDS)


@pytest.mark.parametrize(("kind", "command"), _pairs(TENSORS, ("a header of 10^9 bytes",)))
def test_a_hostile_safetensors_file_is_refused(attempt: Attempts, kind: str, command: str) -> None:
    file = attempt.folder / f"{[*TENSORS].index(kind)}.safetensors"
    file.write_bytes(TENSORS[kind])
    said = attempt(*_words(command, file)).refusal
    assert file.name in said
    held("hostile", f"weights: safetensors with {kind}", _BOUNDS)


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _device(place: Path) -> None:
    place.symlink_to("/dev/zero")


def _loop(place: Path) -> None:
    place.symlink_to(place.name)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a pipe": _pipe,
    "a device": _device,
    "a link to itself": _loop,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize(("kind", "command"), _pairs(SPECIAL, ("a pipe",)))
def test_what_is_no_file_is_not_waited_for(attempt: Attempts, kind: str, command: str) -> None:
    place = attempt.folder / f"special-{[*SPECIAL].index(kind)}.safetensors"
    if not os.path.lexists(place):
        SPECIAL[kind](place)
    attempt(*_words(command, place)).refusal  # noqa: B018  (asserts)
    held("hostile", f"weights: {kind} in place of a file", _BOUNDS)


_PIXELS = {"input_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_pct": 1.0}
_DEEP = "[" * 10**5 + "]" * 10**5


def _network(pixels: object = None, architecture: str = "resnet10t", **arguments: object) -> dict[str, str]:
    told = json.dumps({**_PIXELS, **(pixels or {})})  # type: ignore[dict-item]
    return {"architecture": architecture, "model_args": json.dumps(arguments), "pixels": told}


def _segmenter(**changes: object) -> dict[str, str]:
    config = {**config_to_json(segmenter_config("solov2-micro", 1)), **changes}
    return {"segmenter": json.dumps(config), "classes": classes_to_text(["a"], [1])}


def _detector(**changes: object) -> dict[str, str]:
    config = {**detector_to_json(detector_config("vidt-micro", 1)), **changes}
    return {"detector": json.dumps(config), "classes": classes_to_text(["a"], [1])}


DESCRIBED: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "brackets in brackets": (("train", "predict", "image.png", "--model", "FILE"), {**_network(), "pixels": _DEEP}),
    "arguments of absurd size": (
        ("train", "predict", "image.png", "--model", "FILE"),
        _network(architecture="vit_tiny_patch16_224", embed_dim=3 * 10**5),
    ),
    "absurdly many layers": (
        ("train", "predict", "image.png", "--model", "FILE"),
        _network(architecture="vit_tiny_patch16_224", depth=10**9),
    ),
    "images of a million pixels a side": (
        ("train", "predict", "image.png", "--model", "FILE"),
        _network({"input_size": 10**6}),
    ),
    "a crop of a billionth": (("train", "predict", "image.png", "--model", "FILE"), _network({"crop_pct": 1e-9})),
    "code as its architecture": (
        ("train", "predict", "image.png", "--model", "FILE"),
        _network(architecture="py:os:system"),
    ),
    "another file as its weights": (
        ("train", "predict", "image.png", "--model", "FILE"),
        _network(checkpoint_path="outside/inner.pt", pretrained_cfg={"file": "outside/inner.pt"}),
    ),
    "a detector of absurd size": (
        ("detect", "predict", "image.png", "--model", "FILE"),
        _detector(dim=2**19, ffn=2**18),
    ),
    "a detector that contradicts itself": (("detect", "predict", "image.png", "--model", "FILE"), _detector(dim=0)),
    "a segmenter of absurd size": (
        ("segment", "predict", "image.png", "--model", "FILE"),
        _segmenter(tower_width=2**18, tower_depth=2**8),
    ),
    "a segmenter from the network": (
        ("segment", "predict", "image.png", "--model", "FILE"),
        _segmenter(backbone="hf-hub:someone/something"),
    ),
}


@pytest.mark.parametrize("kind", DESCRIBED)
def test_a_file_cannot_describe_its_way_to_harm(attempt: Attempts, kind: str) -> None:
    words, metadata = DESCRIBED[kind]
    file = attempt.folder / f"described-{[*DESCRIBED].index(kind)}.safetensors"
    file.write_bytes(described(metadata))
    said = attempt(*(word.replace("FILE", str(file)) for word in words)).refusal
    assert file.name in said
    held("hostile", f"weights: a description with {kind}", _BOUNDS)
