"""The gradient of a step, shared by two processes and made by one alone. Run as a script by both: `ranks.py FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from vtk_cli.console import Console
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.update import Clock
from vtk_cli.models.preprocessing import PixelConfig
from vtk_cli.train.classifier import Classifier
from vtk_cli.train.mixing import Mixer
from vtk_cli.train.objective import Objective, PointTerm, SubTerm
from vtk_cli.train.sub import choose_sub

SAMPLES, CLASSES, STEPS = 8, 5, 2
PIXELS = PixelConfig(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def batch() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (SAMPLES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    points = torch.rand(SAMPLES, 1, 2, generator=generator)
    present = torch.arange(SAMPLES)[:, None] > 1  # one process has half as many points as the other
    return torch.arange(SAMPLES), images, targets, points, present


def classifier() -> Any:
    torch.manual_seed(0)
    network = SwinTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(1, 2),
        window_size=4,
        drop_path_rate=0.0,
        num_classes=CLASSES,
    )
    sub = choose_sub(network, "mask", "auto", 0.5, 32, console=Console())
    model = Classifier(network, points=1, sub=sub, image_size=32).train()
    with torch.no_grad():
        model.points.weight.normal_(std=0.1)
    return model


def gradients(rank: int, processes: int) -> dict[str, Any]:
    """Those of the second of two plain gradient steps."""
    model = classifier()
    mine = slice(rank * SAMPLES // processes, (rank + 1) * SAMPLES // processes)
    world = World(rank, processes, rank, torch.device("cpu"))
    loss = Objective(
        PIXELS,
        Mixer(CLASSES, mixup_alpha=0.4),
        classes=CLASSES,
        points=PointTerm(),
        sub=SubTerm(model.sub),
        world=world,
    )
    called = DistributedDataParallel(model) if processes > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        for value in loss(called, tuple(part[mine] for part in batch()), Clock(0, step, 1, rank)):
            value.backward()
        if step < STEPS - 1:
            optimizer.step()
    return {name: weight.grad for name, weight in model.named_parameters()}


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    shared = gradients(rank, 2)
    dist.destroy_process_group()
    if rank == 0:
        torch.save({"one": gradients(0, 1), "two": shared}, folder / "gradients.pt")
