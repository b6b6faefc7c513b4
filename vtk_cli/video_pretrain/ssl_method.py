"""What a self-supervised framework is to the rest: losses of the views of videos, one after another."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from vtk_cli.video_pretrain.networks.backbone import VideoBackbone


class SSLMethod(nn.Module, ABC):
    """A framework around a backbone; all its state is parameters and buffers, so that a checkpoint holds it.

    `backbone`: what is kept after the training.
    """

    backbone: VideoBackbone

    def advance(self, progress: float) -> None:
        """Change what follows the weights without a gradient; called before the losses of each batch.

        Outside of any forward pass, inside which weights that are shared out among processes are copies.

        Args:
            progress: share of the training that is done, in [0, 1]; the same for all batches of an update.
        """

    @abstractmethod
    def passes(self, views: int) -> int:
        """How many losses a batch of so many views has; they are back-propagated one after another."""

    @abstractmethod
    def loss(self, views: Sequence[Tensor], number: int, progress: float, seed: int) -> Tensor:
        """Loss `number` of a batch; they are asked for in order, each once.

        Args:
            views: of each view, normalised clips (B, 3, T, S, S).
            number: from 0.
            progress: share of the training that is done, in [0, 1].
            seed: of this batch, the same in every process.
        """

    def forward(self, views: Sequence[Tensor], number: int, progress: float, seed: int) -> Tensor:
        """`loss`, through the wrapper that joins several processes."""
        return self.loss(views, number, progress, seed)


def momentum_copy(*modules: nn.Module) -> nn.ModuleList:
    """Copies that are not trained; they follow by `follow`."""
    copies = nn.ModuleList(copy.deepcopy(module) for module in modules)
    return copies.requires_grad_(requires_grad=False)


def annealed_momentum(first: float, progress: float, *, anneal: bool = True) -> float:
    """1 - (1 - m0) (1 + cos(pi x)) / 2: from m0 to 1 along a cosine (arXiv 2006.07733, Section 3.2)."""
    return 1 - (1 - first) * (1 + math.cos(math.pi * progress)) / 2 if anneal else first


def exactly(tensor: Tensor) -> AbstractContextManager[object]:
    """Inside, autocast is off: a cosine rounded to bf16 and divided by a temperature of 0.1 is off by up to 0.04."""
    return torch.autocast(tensor.device.type, enabled=False)


@torch.no_grad()
def follow(averaged: nn.Module, trained: nn.Module, momentum: float) -> None:
    """theta_k <- m theta_k + (1 - m) theta_q, parameters only: each network has its own running statistics."""
    for slow, fast in zip(averaged.parameters(), trained.parameters(), strict=True):
        slow.mul_(momentum).add_(fast.detach().to(slow.dtype), alpha=1 - momentum)
