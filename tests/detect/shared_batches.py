"""The gradient of a batch, by two processes with half of it each and by one. Run: `shared_batches.py FOLDER`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from vtk_cli.detect.configurations import detector_config
from vtk_cli.detect.criterion import Criterion, NeckFreeCriterion
from vtk_cli.detect.predictions import DistillationTokens, LevelOutput, Outputs, PaddedImages, Target
from vtk_cli.engine.processes.distributed import World

CONFIG = replace(detector_config("vidt-plus-micro", 3, queries=7), mask_coefficients=6)
Gradients = Callable[[World, tuple[int, ...]], tuple[Tensor, ...]]
"""From the objects of each of four images to the gradients of this process's images, zeros elsewhere."""


def targets(counts: tuple[int, ...]) -> list[Target]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for count in counts:
        boxes = torch.rand(count, 4, generator=generator) * 0.3 + 0.2
        masks = torch.rand(count, 16, 16, generator=generator) > 0.5
        labels = torch.randint(3, (count,), generator=generator)
        crowd = torch.zeros(count, dtype=torch.bool)
        found.append(Target(labels, boxes, masks, torch.ones(count), crowd, 1, (16, 16), (16, 16)))
    return found


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def share(world: World) -> tuple[slice, PaddedImages]:
    """This process's images."""
    mine = slice(world.rank * 4 // world.size, (world.rank + 1) * 4 // world.size)
    images = torch.zeros(4, 3, 16, 16)[mine]
    mask = torch.zeros(len(images), 16, 16, dtype=torch.bool)
    return mine, PaddedImages(images, mask, torch.full((len(images), 2), 16))


def tokens(parts: list[Tensor], mine: slice) -> DistillationTokens:
    patches, decoder = parts
    return DistillationTokens((patches[mine],), decoder[0, mine], decoder[:, mine])


def of_all_losses(world: World, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Of a ViDT+ with masks and a teacher: logits, boxes, IoU logits, codes, token logits, tokens."""
    drawn = leaves((2, 4, 7, 3), (2, 4, 7, 4), (2, 4, 7), (2, 4, 7, 6), (4, 4, 5, 5), (4, 9, 8), (2, 4, 7, 8))
    mine, batch = share(world)
    logits, boxes, iou, vectors = (leaf[:, mine] for leaf in drawn[:4])
    levels = tuple(LevelOutput(*parts) for parts in zip(logits, boxes.sigmoid(), iou, vectors, strict=True))
    outputs = Outputs(levels, (drawn[4][mine],), tokens(drawn[5:], mine))
    teacher = tokens([leaf.detach().flip(-1) for leaf in drawn[5:]], mine)
    losses = Criterion(CONFIG, world)(outputs, targets(counts)[mine], batch, teacher)
    return torch.autograd.grad(losses.total, drawn)


def of_the_neck_free(world: World, counts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Of logits with "no object", and boxes."""
    drawn = leaves((4, 7, 4), (4, 7, 4))
    mine, batch = share(world)
    outputs = Outputs((LevelOutput(drawn[0][mine], drawn[1][mine].sigmoid()),))
    return torch.autograd.grad(NeckFreeCriterion(world)(outputs, targets(counts)[mine], batch).total, drawn)


CASES: dict[str, tuple[Gradients, tuple[int, ...]]] = {
    "all losses": (of_all_losses, (3, 0, 1, 5)),
    "one process without objects": (of_all_losses, (0, 0, 1, 5)),
    "fewer objects than processes": (of_all_losses, (0, 0, 1, 0)),
    "more objects than queries": (of_all_losses, (9, 0, 1, 0)),
    "no neck": (of_the_neck_free, (3, 0, 1, 5)),
    "no neck, no objects": (of_the_neck_free, (0, 0, 0, 0)),
}

if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = {}
    for name, (gradients, counts) in CASES.items():
        own = gradients(World(rank, 2, rank, torch.device("cpu")), counts)
        for part in own:
            dist.all_reduce(part)  # as processes that train together take the mean
        alone = gradients(World(0, 1, 0, torch.device("cpu")), counts)
        found[name] = {"two": [part / 2 for part in own], "one": list(alone)}
    dist.destroy_process_group()
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
