"""The smallest run of every subcommand that trains, and the data it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import equal

from tests.adapt.conftest import CLASSES
from tests.adapt.conftest import TINY as ADAPT
from tests.adapt.drawn_domains import class_tree
from tests.detect.shape_folders import write_coco
from tests.prune.conftest import TINY as PRUNE
from tests.search.command_line import SEARCH
from tests.segment.runs import FAST as SEGMENT
from tests.segment.runs import inputs, write_scenes
from tests.video_pretrain.tiny_runs import SSL
from vtk_cli.data.moving_digits import build_moving_digits
from vtk_cli.files import TEMPORARY_PREFIX

EXACT = ("*.jsonl", "*.vtkt", "scores.csv", "evolution.json")
"""Files that say nothing about when and how fast."""


def _nothing(folder: Path) -> None:
    folder.mkdir()


def _shapes(folder: Path) -> None:
    write_coco(folder, {"train": 8, "val": 4})


def _clips(folder: Path) -> None:
    build_moving_digits(folder, train=16, val=4, val_iid=4)


def _domains(folder: Path) -> None:
    class_tree(folder / "source", CLASSES, 4)
    class_tree(folder / "target", CLASSES, 5)


def _scenes(folder: Path) -> None:
    folder.mkdir()
    write_scenes(folder)


@dataclass(frozen=True)
class Training:
    """A command that trains.

    Args:
        words: the command after `vtk`; OUT is its run folder, SCENES are the options that name the scenes.
        draw: draws its data into a new folder, in which it runs.
    """

    words: tuple[str, ...]
    draw: Callable[[Path], None] = _nothing

    def command(self, out: Path, data: Path) -> list[str]:
        """The words after `vtk` for the run folder `out`."""
        scenes = inputs(data) if "SCENES" in self.words else []
        words = [word.replace("OUT", str(out)) for word in self.words if word != "SCENES"]
        return [*words, *scenes, "--quiet"]


TRAININGS = {
    "train": Training(
        (
            *("train", "--out", "OUT", "--images-per-class", "4", "--batch-size", "10", "--epochs", "3"),
            *("--mixup", "0.4", "--ema-decay", "0.9", "--drop", "0.1", "--workers", "0"),
        )
    ),
    "search run": Training(("search", "run", "--out", "OUT", "--store", "OUT-store", *SEARCH)),
    "prune run": Training(("prune", "run", "--out", "OUT", *PRUNE)),
    "detect train": Training(
        (
            *("detect", "train", ".", "--out", "OUT", "--recipe", "digits", "--model", "vidt-plus-micro"),
            *("--size", "64", "--batch-size", "4", "--warmup-steps", "1", "--epochs", "2", "--workers", "0"),
        ),
        _shapes,
    ),
    "segment run": Training(("segment", "run", "--out", "OUT", "SCENES", *SEGMENT), _scenes),
    "video-pretrain run": Training(("video-pretrain", "run", ".", "--out", "OUT", *SSL), _clips),
    "adapt run": Training(("adapt", "run", "OUT", *ADAPT), _domains),
}


def differing(run: Path, other: Path) -> list[str]:
    """The files of weights, metrics and decisions in which two runs differ; there is at least one in each."""
    found = {file.relative_to(run) for pattern in EXACT for file in run.rglob(pattern)}
    weights = {file.relative_to(run) for file in run.rglob("*.safetensors")}
    assert found
    differ = [str(file) for file in found if (run / file).read_bytes() != (other / file).read_bytes()]
    for file in weights:
        one, another = load_file(run / file), load_file(other / file)
        if one.keys() != another.keys() or not all(equal(one[name], another[name]) for name in one):
            differ.append(str(file))
    return differ


def leftovers(folder: Path) -> list[Path]:
    """What writers left behind."""
    return [*folder.rglob(f"{TEMPORARY_PREFIX}*"), *folder.rglob(".making-*"), *folder.rglob(".old-*")]
