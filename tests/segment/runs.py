"""What the tests of `vtk segment` as a whole share: scenes on disk, and how a run is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vtk_cli.app import main
from vtk_cli.console import Console
from vtk_cli.data.embedded import open_embedded
from vtk_cli.files import CACHE_VARIABLE

Call = Callable[..., tuple[int, str, str]]
FAST = ["--recipe", "digits", "--model", "solov2-micro", "--device", "cpu", "--workers", "0"]
FAST += ["--teacher-steps", "10", "--student-steps", "4", "--refine-steps", "4"]


def write_scenes(root: Path) -> None:
    """24 scenes of digits, parted into 6 with masks and 18 without, and 6 others, with their cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(root / "cache"))
        embedded = open_embedded("digits-coco", Console(quiet=True), train=24, val=6).folder
        everything = json.loads((embedded / "annotations" / "instances_train.json").read_text())
        for entry in everything["annotations"]:
            del entry["point"]
        (root / "all.json").write_text(json.dumps(everything))
        assert main(["segment", "split", "make", str(root / "all.json"), "--fraction", "0.25", "-o", str(root)]) == 0
    (root / "train").symlink_to(embedded / "train")
    (root / "val").symlink_to(embedded / "val")
    (root / "val.json").write_text((embedded / "annotations" / "instances_val.json").read_text())


def inputs(scenes: Path) -> list[str]:
    """The options that name the scenes."""
    strong, weak = scenes / "all_25p_s.json", scenes / "all_25p_w.json"
    named = ["--strong", strong, "--weak", weak, "--images", scenes / "train"]
    return list(map(str, [*named, "--val", scenes / "val.json", "--val-images", scenes / "val"]))
