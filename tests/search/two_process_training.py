"""A supernet trained by two processes; run by torchrun with a folder to write weights to."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.models.spaces.small_spaces import randomise, small_shape
from vtk_cli.console import Console
from vtk_cli.engine.batches import TensorBatches
from vtk_cli.engine.loop import Plan, fit
from vtk_cli.engine.processes.distributed import World, join_world
from vtk_cli.models.spaces.catalog import SPACES
from vtk_cli.search.samplers import Path as SupernetPath
from vtk_cli.search.supernet_training import PathObjective, sgd

SPACE = SPACES["chain-a"]
PATHS = [(0, 1, 2), (3, 1, 0)]


class TwoPaths:
    """Two paths in every step."""

    def paths(self, seed):
        return [SupernetPath(genes) for genes in PATHS]


def trained(world: World | None, *, alike: bool, batch_size: int, accumulate: int = 1) -> dict[str, torch.Tensor]:
    """The weights after two epochs on 24 images; one process alone has half as many, in batches half as large."""
    generator = torch.Generator().manual_seed(0)
    count = 24 if world is not None else 12
    images = torch.randn(1 if alike else count, 1, 16, 16, generator=generator).expand(count, -1, -1, -1)
    targets = torch.zeros(count, dtype=torch.int64) if alike else torch.arange(count) % 7
    supernet = randomise(SPACE.supernet(small_shape(SPACE)))
    fit(
        supernet,
        PathObjective(TwoPaths(), seed=0),
        TensorBatches(images, targets, batch_size=batch_size, seed=0, world=world),
        sgd(supernet, lr=0.1, weight_decay=0.1),
        plan=Plan(epochs=2, accumulate=accumulate, clip_norm=5.0),
        device=torch.device("cpu"),
        seed=0,
        evaluate=None,
        checkpoints=None,
        metrics=None,
        console=Console(quiet=True),
        world=world,
    )
    return {name: value.detach() for name, value in supernet.named_parameters()}


if __name__ == "__main__":
    with join_world("cpu") as joined:
        found = {
            "apart": trained(joined, alike=False, batch_size=12),
            "alike": trained(joined, alike=True, batch_size=12),
            "accumulated": trained(joined, alike=True, batch_size=6, accumulate=2),
        }
        torch.save(found, Path(sys.argv[1]) / f"{joined.rank}.pt")
