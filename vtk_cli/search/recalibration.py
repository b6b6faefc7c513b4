"""Batch normalisation for one path of a supernet: statistics measured anew, for those of training are of all paths.

Source: arXiv 1904.00420, Section 3.4, and the released code of arXiv 2305.08611.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from vtk_cli.errors import UserError
from vtk_cli.models.spaces.supernet import Supernet

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
    supernet.eval()
    measure_statistics(
        list(supernet.active_normalisations(genes).values()), lambda batch: supernet(batch, genes), batches, statistics
    )


@torch.no_grad()
def measure_statistics(
    layers: Sequence[nn.BatchNorm2d],
    run: Callable[[Tensor], Tensor],
    batches: Iterable[Tensor],
    statistics: Statistics,
) -> None:
    """Give `layers` the statistics of what they see while `run` takes the batches.

    Args:
        layers: of a network in eval mode, in which they are left.
        run: a forward pass of that network.
        batches, statistics: as of `recalibrate`.
    """
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = _MOMENTUM[statistics]
            layer.training = True
        for batch in batches:
            run(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum, layer.training = momentum, False


@contextmanager
def statistics_kept(layers: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Afterwards the statistics of `layers` are what they were, bit for bit."""
    before = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers(recurse=False)]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


@contextmanager
def evaluating(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, all `modules` are in eval mode; afterwards each is in the mode that it was in."""
    before = [module.training for module in modules]
    _set_modes(modules, [False] * len(before))
    try:
        yield
    finally:
        _set_modes(modules, before)


def _set_modes(modules: Sequence[nn.Module], modes: Sequence[bool]) -> None:
    """Setting an attribute of a module is slow, and seldom needed."""
    for module, training in zip(modules, modes, strict=True):
        if module.training != training:
            module.training = training
