"""Networks and outputs of which everything is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.segment.runs import FAST, Call, inputs, write_scenes
from vtk_cli.app import main
from vtk_cli.files import CACHE_VARIABLE
from vtk_cli.segment.solov2.configurations import LevelConfig, SegmenterConfig, segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.predictions import LevelOutput, Outputs, Target, tight_boxes
from vtk_cli.segment.solov2.targets import assign, mass_centres, on_mask_cells

SURE = 20.0


def scramble(module: nn.Module, seed: int = 0, scale: float = 0.3) -> None:
    """Draw every parameter anew, so that no weight is 0 or equal to another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


@pytest.fixture
def micro() -> SegmenterConfig:
    return segmenter_config("solov2-micro", 3)


@pytest.fixture
def micro_network(micro: SegmenterConfig) -> SOLOv2:
    """A micro network with scrambled weights, in eval mode."""
    network = SOLOv2(micro)
    scramble(network)
    return network.eval()


@pytest.fixture
def target() -> Callable[..., Target]:
    """Objects of masks and labels; their boxes are tight."""

    def make(masks: Tensor, labels: Sequence[int]) -> Target:
        return Target(torch.tensor(labels, dtype=torch.int64), masks, tight_boxes(masks))

    return make


@pytest.fixture
def hand_set() -> Callable[..., Outputs]:
    """Outputs for one image in which each object is seen, by the cells it is assigned to, exactly as it is.

    Each object has a channel of the mask features, 1 on its cells; the last channel is 1 everywhere. A cell's kernel
    is `2 * SURE` for its object's channel and `-SURE` for the last. On other levels than its own, the object's centre
    cell has the same kernel with a lower class probability. Kernels and classes of all other cells are `-SURE`.
    """

    def make(
        target: Target, levels: Sequence[LevelConfig], canvas: tuple[int, int], stride: int, classes: int
    ) -> Outputs:
        masks = on_mask_cells(target.masks, canvas, stride).float()
        n = len(masks)
        features = torch.cat([masks, torch.ones(1, *masks.shape[1:])])[None]
        wanted = assign(target, levels, 0.2, canvas, stride)
        outputs = []
        for level, own in zip(levels, wanted.levels, strict=True):
            category = torch.full((1, classes, level.grid, level.grid), -SURE)
            kernels = torch.zeros(1, n + 1, level.grid, level.grid)
            kernels[:, n] = -SURE
            for index, (x, y) in enumerate(mass_centres(target.masks).tolist()):
                row, column = int(y * level.grid / canvas[0]), int(x * level.grid / canvas[1])
                category[0, target.labels[index], row, column] = -3.0
                kernels[0, index, row, column] = 2 * SURE
            for cell, index in zip(own.cells.tolist(), own.objects.tolist(), strict=True):
                row, column = divmod(cell, level.grid)
                category[0, target.labels[index], row, column] = SURE
                kernels[0, index, row, column] = 2 * SURE
            outputs.append(LevelOutput(category, kernels))
        return Outputs(tuple(outputs), features)

    return make


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_scenes`."""
    root = tmp_path_factory.mktemp("segment")
    write_scenes(root)
    return root


@pytest.fixture(scope="session")
def finished(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(scenes / "cache"))
        assert main(["segment", "run", *inputs(scenes), *FAST, "--out", str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def run(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `vtk segment ARGUMENTS` in an empty folder, with the cache of the scenes; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(scenes / "cache"))

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["segment", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, " ".join(err.split())

    return call
