"""Small detectors whose every weight matters, and padded batches."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.detect.coloured_shapes import FAST, draw, write
from vtk_cli.app import main
from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.network import NeckFreeViDT, ViDT, build_detector
from vtk_cli.detect.predictions import PaddedImages


def scramble(module: nn.Module, seed: int = 0, scale: float = 0.3) -> None:
    """Draw every parameter anew, so that no weight is 0 or equal to another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            width = parameter.shape[-1] if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale * (4 / width) ** 0.5)


@pytest.fixture
def detector() -> Callable[..., Any]:
    """A micro detector with scrambled weights in eval mode: `detector("vidt-micro", classes=3, queries=7)`."""

    def make(name: str, classes: int = 3, seed: int = 0, **changes: Any) -> ViDT | NeckFreeViDT:
        network = build_detector(detector_config(name, classes, **{"queries": 7, **changes}))
        scramble(network, seed)
        return network.eval()

    return make


@pytest.fixture
def padded() -> Callable[..., PaddedImages]:
    """Noise images of the sizes given, padded with zeros to `extent`, else to the largest."""

    def make(*sizes: tuple[int, int], extent: tuple[int, int] | None = None, seed: int = 0) -> PaddedImages:
        generator = torch.Generator().manual_seed(seed)
        H, W = extent or (max(h for h, _ in sizes), max(w for _, w in sizes))
        images, mask = torch.zeros(len(sizes), 3, H, W), torch.ones(len(sizes), H, W, dtype=torch.bool)
        for index, (h, w) in enumerate(sizes):
            noise: Tensor = torch.randn(3, h, w, generator=generator)
            images[index, :, :h, :w], mask[index, :h, :w] = noise, False
        return PaddedImages(images, mask, torch.tensor(sizes))

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO folder: 12 images of 72x60 to train on and 6 others, each with two coloured rectangles, with outlines."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    for split, count in (("train2017", 12), ("val2017", 6)):
        write(root, split, [draw(root / split / f"{number}.png", rng) for number in range(count)])
    return root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty working directory and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VTK_CACHE", str(tmp_path_factory.getbasetemp() / "cache-detect"))
    return tmp_path


@pytest.fixture
def run(capsys, place):
    """Runs `vtk detect ARGUMENTS`; gives exit code, standard output, standard error."""

    def call(*arguments: object):
        capsys.readouterr()
        code = main(["detect", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def result(run):
    """Runs with --json and gives the object."""

    def call(*arguments: object) -> Any:
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> Path:
    """The run of a small ViDT+ with masks, two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = ["train", data, "--recipe", "digits", "--model", "vidt-plus-micro", "--masks", "on", "--workers", "0"]
    before = os.environ.get("VTK_CACHE")
    os.environ["VTK_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        code = main(["detect", *map(str, arguments), *FAST, "--ema-decay", "0.5", "-o", str(folder), "--quiet"])
    finally:
        os.environ.pop("VTK_CACHE") if before is None else os.environ.update(VTK_CACHE=before)
    assert code == 0
    return folder
