"""The gradient of a step, shared by two processes and made by one alone. Run as a script by both: `ranks.py FOLDER`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.video_pretrain.tiny_methods import moco, simclr, swav, views
from vtk_cli.engine.update import Clock
from vtk_cli.video_pretrain.freqaug import FreqAug
from vtk_cli.video_pretrain.objective import PretrainedVideo, SSLObjective

BATCH, STEPS = 8, 3
METHODS = {"moco": lambda: moco(queue=64), "simclr": simclr, "swav": swav}


def state(name: str, rank: int, processes: int) -> dict[str, Any]:
    """The gradients of the last of three plain gradient steps, and what the framework remembers."""
    model = PretrainedVideo(METHODS[name](), None)
    called = DistributedDataParallel(model) if processes > 1 else model
    objective = SSLObjective(FreqAug("none"), STEPS)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    mine = slice(rank * BATCH // processes, (rank + 1) * BATCH // processes)
    for step in range(STEPS):
        seen = torch.stack([view[mine] for view in views(2, BATCH, seed=step)], dim=1)
        optimizer.zero_grad()
        flags = torch.zeros(len(seen), 2, dtype=torch.bool)
        for loss in objective(called, (None, seen, flags, None), Clock(0, step, 1)):
            loss.backward()
        if step < STEPS - 1:
            optimizer.step()
    gradients = {key: weight.grad for key, weight in model.named_parameters() if weight.requires_grad}
    return gradients | dict(model.named_buffers())


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    shared = {name: state(name, rank, 2) for name in METHODS}
    dist.destroy_process_group()
    if rank == 0:
        torch.save({"one": {name: state(name, 0, 1) for name in METHODS}, "two": shared}, folder / "found.pt")
