"""Batch normalisation after a change of the mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def _fresh_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch normalisation forgets its statistics, and inside averages those of all batches alike."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


@torch.no_grad()
def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure batch normalisation's statistics anew; they belong to a mask, and another mask has others.

    Args:
        network: left in eval mode.
        batches: noise (B, nz), of which the statistics are the plain average; 20 batches of the training's size do.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    with _fresh_statistics(norms):
        network.train()
        for noise in batches:
            network(noise)
    network.eval()
