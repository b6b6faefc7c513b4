"""Self-supervised frameworks around a network of two layers, in float64, and slow references of their losses."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vtk_cli.video_pretrain.byol import BYOL
from vtk_cli.video_pretrain.moco import MoCo
from vtk_cli.video_pretrain.networks.backbone import VideoBackbone
from vtk_cli.video_pretrain.simclr import SimCLR
from vtk_cli.video_pretrain.swav import SwAV

DIM, QUEUE, PROTOTYPES = 5, 24, 7
SHAPE = (3, 2, 4, 4)


class Flat(VideoBackbone):
    """The pixels, through one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_dim = 6
        self.layer = nn.Linear(math.prod(SHAPE), 6)

    def forward(self, clips: Tensor) -> Tensor:
        return self.layer(clips.flatten(1)).tanh()


def views(count: int, batch: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *SHAPE, generator=generator) for _ in range(count)]


def moco(momentum: float = 0.9, *, anneal: bool = False, queue: int = QUEUE) -> MoCo:
    torch.manual_seed(0)
    head = nn.Linear(6, DIM)
    return MoCo(Flat(), head, dim=DIM, queue=queue, temperature=0.2, momentum=momentum, anneal=anneal)


def byol(momentum: float = 0.9) -> BYOL:
    torch.manual_seed(0)
    return BYOL(Flat(), nn.Linear(6, DIM), nn.Linear(DIM, DIM), temperature=0.5, momentum=momentum, anneal=False)


def simclr() -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(Flat(), nn.Linear(6, DIM), temperature=0.2)


def swav(frozen: float = 0.0) -> SwAV:
    torch.manual_seed(0)
    return SwAV(
        Flat(),
        nn.Linear(6, DIM),
        dim=DIM,
        prototypes=PROTOTYPES,
        temperature=0.1,
        eps=0.05,
        iterations=3,
        frozen=frozen,
    )
