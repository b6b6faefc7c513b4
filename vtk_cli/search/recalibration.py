"""Batch normalisation for one path of a supernet: statistics measured anew, for those of training are of all paths.

Source: arXiv 1904.00420, Section 3.4, and the released code of arXiv 2305.08611.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.search.spaces.supernet import Supernet

Statistics = Literal["cumulative", "ema14"]
"""The mean over batches, or a running average with momentum 0.1 that starts from mean 0 and variance 1."""

_MOMENTUM: Mapping[Statistics, float | None] = {"cumulative": None, "ema14": 0.1}


def calibration_batches(images: Tensor, size: int) -> tuple[Tensor, ...]:
    """Cut calibration images into ceil(N / size) batches of equal length, or with one image more or less.

    Raises:
        UserError: a batch would have a single image, whose variance is unknown.
    """
    if len(images) < 2 or size < 2:
        what = f"batch norm cannot be calibrated on {min(len(images), size)} image(s) at a time"
        raise UserError(what, "--bn-images", "give at least 2")
    return torch.tensor_split(images, -(-len(images) // size))


@torch.no_grad()
def recalibrate(
    supernet: Supernet, genes: Sequence[int], batches: Iterable[Tensor], statistics: Statistics = "cumulative"
) -> None:
    """Give the batch normalisations that an architecture uses the statistics of `batches`; leaves eval mode.

    `cumulative` is the mean over batches of their means and of their unbiased variances. Nothing is drawn: dropout is
    off meanwhile.

    Args:
        supernet: with the weights to measure with.
        genes: of the architecture.
        batches: each (B, C, H, W), on the supernet's device, B of 2 or more.
        statistics: how the batches are averaged.
    """
    layers = [one for one in supernet.active_normalisations(genes).values() if one.track_running_stats]
    supernet.eval()
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = _MOMENTUM[statistics]
            layer.training = True
        for batch in batches:
            supernet(batch, genes)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum, layer.training = momentum, False


@contextmanager
def statistics_kept(supernet: Supernet, genes: Sequence[int]) -> Iterator[None]:
    """Afterwards the statistics of the normalisations that an architecture uses are what they were, bit for bit."""
    layers: list[nn.BatchNorm2d] = list(supernet.active_normalisations(genes).values())
    before = [[buffer.clone() for buffer in layer.buffers()] for layer in layers]
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, values in zip(layers, before, strict=True):
                for buffer, value in zip(layer.buffers(), values, strict=True):
                    buffer.copy_(value)


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Afterwards every module of `network` is in training or in eval mode as it was before."""
    before = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
