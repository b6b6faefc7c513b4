"""Small detectors whose every weight matters, and padded batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

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
