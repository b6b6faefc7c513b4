"""`vtk bench segment`: what many clicks on an image cost against one, and against one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.engine.devices import describe_device
from vtk_cli.engine.timing import in_turns, seconds_of
from vtk_cli.reports.evidence import BenchRow
from vtk_cli.segment.solov2.configurations import segmenter_config
from vtk_cli.segment.solov2.network import SOLOv2
from vtk_cli.segment.solov2.padding import padded_size
from vtk_cli.segment.solov2.point_inference import (
    PointMasks,
    PointSettings,
    clicked_cells,
    covering_first,
    masks_at_points,
)
from vtk_cli.segment.solov2.predictions import Frame, LevelOutput, Outputs, PointPrompt

CLICKS = 100
CLICKS_TARGET = 1 / 1.5
"""The time of one click over that of `CLICKS`, each with all of the network behind its backbone."""


@dataclass(frozen=True)
class Scene:
    """An image as the backbone leaves it, and clicks on it.

    Args:
        network: in eval mode.
        maps: of the backbone.
        drawn: outputs whose kernels are noise: masks of half the image, as no untrained network makes them.
        frame: of the image.
        prompts: the clicks.
    """

    network: SOLOv2
    maps: tuple[Tensor, ...]
    drawn: Outputs
    frame: Frame
    prompts: Sequence[PointPrompt]

    def masks(self, prompts: Sequence[PointPrompt]) -> PointMasks:
        """Of these clicks."""
        settings = PointSettings(clicked_cells, covering_first)
        return masks_at_points(self.drawn, self.frame, self.network.config.levels, prompts, settings)


def measure(*, smallest: bool, device: torch.device, console: Console) -> list[BenchRow]:  # noqa: ARG001 - the family's signature
    """Time clicks with the heads before them, and alone, in turns; the medians."""
    scene = _scene("solov2-micro" if smallest else "solov2-r50", (128, 128) if smallest else (800, 1333), device)
    rounds = 1 if smallest else 5
    return [_many_and_one(scene, rounds, device), _together_and_apart(scene, rounds, device)]


def _many_and_one(scene: Scene, rounds: int, device: torch.device) -> BenchRow:
    """All clicks of an image against one, each after the heads have seen it."""
    many, one = _timed(
        lambda: (scene.network.judge(scene.maps), scene.masks(scene.prompts)),
        lambda: (scene.network.judge(scene.maps), scene.masks(scene.prompts[:1])),
        rounds,
        device,
    )
    name = f"{CLICKS} clicks on an image of {_size(scene)} pixels, beyond the backbone ({scene.network.config.name})"
    return _row(scene, name, (many, one), "one click", CLICKS_TARGET)


def _together_and_apart(scene: Scene, rounds: int, device: torch.device) -> BenchRow:
    """The masks of all clicks in one product against one click at a time; the heads are not in it."""
    together, apart = _timed(
        lambda: scene.masks(scene.prompts),
        lambda: [scene.masks([prompt]) for prompt in scene.prompts],
        rounds,
        device,
    )
    name = f"the masks of {CLICKS} clicks, without the network"
    return _row(scene, name, (together, apart), "one click at a time", None)


def _row(scene: Scene, name: str, seconds: tuple[float, float], peer: str, target: float | None) -> BenchRow:
    found = scene.masks(scene.prompts)
    return BenchRow(
        name=name,
        ours=seconds[0],
        theirs=seconds[1],
        peer=peer,
        target=target,
        device=describe_device(scene.maps[0].device),
        versions={package: version(package) for package in ("torch", "torchvision", "timm")},
        note=f"{len(found.clicks)} masks of {_size(scene)} pixels, {len(found.unresolved)} clicks unresolved",
    )


@torch.no_grad()
def _scene(name: str, size: tuple[int, int], device: torch.device) -> Scene:
    generator = torch.Generator().manual_seed(0)
    network = SOLOv2(segmenter_config(name, 80, "teacher", frozen=False)).eval().to(device)
    canvas = padded_size([size], network.config.padding_multiple)
    maps = network.backbone(torch.randn(1, 3, *canvas, generator=generator).to(device))
    outputs = network.judge(maps)
    levels = tuple(
        LevelOutput(level.category, torch.randn(level.kernels.shape, generator=generator).to(device))
        for level in outputs.levels
    )
    features = torch.randn(outputs.mask_features.shape, generator=generator).relu().to(device)
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 1, (CLICKS, 2)) * (size[1] - 1, size[0] - 1)
    labels = rng.integers(0, network.config.classes, CLICKS)
    prompts = [PointPrompt(float(x), float(y), int(label), 1) for (x, y), label in zip(places, labels, strict=True)]
    return Scene(network, maps, Outputs(levels, features), Frame(size, size, canvas), prompts)


@torch.no_grad()
def _timed(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, device: torch.device
) -> tuple[float, float]:
    return in_turns(lambda: seconds_of(ours, device), lambda: seconds_of(theirs, device), rounds)


def _size(scene: Scene) -> str:
    return "x".join(map(str, scene.frame.original))
