"""The gradient of a batch, by two processes with half of it each and by one. Run: `shared_batches.py FOLDER RANK`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.criterion import Criterion
from vtk_cli.detect.predictions import LevelOutput, Outputs, PaddedImages, Target
from vtk_cli.engine.distributed import World

COUNTS = (3, 0, 1, 5)
CONFIG = detector_config("vidt-plus-micro", 3, queries=7)


def targets() -> list[Target]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for count in COUNTS:
        boxes = torch.rand(count, 4, generator=generator) * 0.3 + 0.2
        masks = torch.rand(count, 16, 16, generator=generator) > 0.5
        labels = torch.randint(3, (count,), generator=generator)
        crowd = torch.zeros(count, dtype=torch.bool)
        found.append(Target(labels, boxes, masks, torch.ones(count), crowd, 1, (16, 16), (16, 16)))
    return found


def outputs() -> tuple[torch.Tensor, ...]:
    """Logits, boxes, IoU logits, token logits of all images."""
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 4, 7, 3), (2, 4, 7, 4), (2, 4, 7), (4, 4, 5, 5))
    drawn = [torch.randn(shape, generator=generator) for shape in shapes]
    drawn[1] = drawn[1].sigmoid()
    return tuple(drawn)


def gradients(world: World) -> tuple[torch.Tensor, ...]:
    """Those of this process's images, zeros elsewhere."""
    leaves = tuple(part.requires_grad_() for part in outputs())
    mine = slice(world.rank * 4 // world.size, (world.rank + 1) * 4 // world.size)
    logits, boxes, iou = (leaf[:, mine] for leaf in leaves[:3])
    levels = tuple(LevelOutput(*parts) for parts in zip(logits, boxes, iou, strict=True))
    images = torch.zeros(4, 3, 16, 16)[mine]
    batch = PaddedImages(images, torch.zeros(len(images), 16, 16, dtype=torch.bool), torch.full((len(images), 2), 16))
    losses = Criterion(CONFIG, world)(Outputs(levels, (leaves[3][mine],)), targets()[mine], batch)
    return torch.autograd.grad(losses.total, leaves)


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    own = gradients(World(rank, 2, rank, torch.device("cpu")))
    for part in own:
        dist.all_reduce(part)  # as processes that train together take the mean
    dist.destroy_process_group()
    if rank == 0:
        alone = gradients(World(0, 1, 0, torch.device("cpu")))
        torch.save({"two": [part / 2 for part in own], "one": list(alone)}, folder / "gradients.pt")
