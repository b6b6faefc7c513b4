"""How much memory pseudo-labelling takes at most. Run as a script: `labelled_memory.py FOLDER IMAGES`, prints MB.

A stand-in for the network gives 100 masks of 128x128 pixels an image: 1.6 MB, so of 1,000 images 1.6 GB.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from vtk_cli.console import Console
from vtk_cli.data.points import Classes, PointImage, PointSet
from vtk_cli.engine.processes.distributed import World
from vtk_cli.segment.looking import PUBLISHED_POINTS
from vtk_cli.segment.pseudo.labelling import write_pseudo
from vtk_cli.segment.solov2.point_inference import PointMasks
from vtk_cli.segment.solov2.predictions import Instances

CLICKS, SIDE = 100, 128
ROWS, COLUMNS = torch.arange(SIDE)[:, None], torch.arange(SIDE)


class Discs:
    """Answers like a `Looker`, with a disc at each click."""

    def seen(self, images: Sequence[PointImage]) -> Iterator[tuple[Any, Any]]:
        for index, image in enumerate(images):
            yield SimpleNamespace(index=index, points=image.points), None

    def at_points(self, seen: Any, *_: object) -> PointMasks:
        x, y = torch.from_numpy(seen.points).T[:, :, None, None]
        masks = (COLUMNS - x) ** 2 + (ROWS - y) ** 2 < 64
        every = torch.arange(CLICKS)
        found = Instances.of_masks(torch.full((CLICKS,), 0.5), torch.zeros(CLICKS, dtype=torch.int64), masks)
        return PointMasks(found, every, every * 0, found.scores, every >= 0, ())


def clicked(folder: Path, number: int, rng: np.random.Generator) -> PointImage:
    ids = np.arange(number * CLICKS, (number + 1) * CLICKS) + 1
    places, labels = rng.uniform(10, SIDE - 10, (CLICKS, 2)), np.zeros(CLICKS, np.int64)
    return PointImage(folder / f"{number}.png", number + 1, SIDE, SIDE, places, labels, ids, ("point",) * CLICKS)


if __name__ == "__main__":
    folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
    images = tuple(clicked(folder, number, rng) for number in range(int(sys.argv[2])))
    points, world = PointSet("clicks", images, Classes((1,), ("thing",))), World(0, 1, 0, torch.device("cpu"))
    write_pseudo(Discs(), points, PUBLISHED_POINTS, folder, world=world, console=Console(quiet=True))  # type: ignore[arg-type]
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")
