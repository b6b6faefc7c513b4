"""What is written down of a search on its way: what its fakes lack, how many weights changed sides, samples, distances.

Everything is measured from the state that checkpoints hold and from noise that depends on the seed alone, so that a
search that was interrupted writes the same rows as one that was not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from vtk_cli.engine.metrics import Row
from vtk_cli.prune.extractors import Extractor
from vtk_cli.prune.masking import MaskedNetwork, masked_layers
from vtk_cli.prune.matching import MomentLoss, MovingAverage
from vtk_cli.prune.objective import MatchedSearch
from vtk_cli.prune.samples import generated, write_sample_grid
from vtk_cli.prune.search import MaskedSearch, Search

SHOWN = 10
"""Samples of the same noise at every stop."""


class WatchedSearch(MatchedSearch):
    """All the state of a search, how often it was looked at, and the masks at the last time."""

    looks: Tensor

    def __init__(self, search: Search, average: MovingAverage) -> None:
        super().__init__(search, average)
        for number, mask in enumerate(self.masks().values()):
            self.register_buffer(f"seen{number}", mask.clone())
        self.register_buffer("looks", torch.zeros((), dtype=torch.int64))

    def masks(self) -> dict[str, Tensor]:
        """The masks that the scores ask for now; none where nothing is masked."""
        if not isinstance(self.search, MaskedSearch):
            return {}
        twin: MaskedNetwork = self.search.twin
        if any(layer.scores is not None for layer in twin.layers.values()):
            return twin.chosen()
        return {name: layer.mask for name, layer in masked_layers(twin.network).items()}

    @torch.no_grad()
    def flips(self) -> int | None:
        """How many weights changed sides since the last time; None where nothing is masked."""
        self.looks += 1
        masks = self.masks()
        changed = 0
        for number, mask in enumerate(masks.values()):
            seen = self.get_buffer(f"seen{number}")
            changed += int((seen != mask).sum())
            seen.copy_(mask)
        return changed if masks else None


@dataclass(frozen=True, eq=False)
class Watch:
    """Looks at a search after every stretch.

    Args:
        extractor, loss: of the search.
        probe: (B, nz) noise on which the gaps are measured, on the device.
        device: where.
    """

    extractor: Extractor
    loss: MomentLoss
    probe: Tensor
    device: torch.device

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """The values for a row of `metrics.jsonl`: `mean_gap` and `variance_gap`, also by layer, and `flips`."""
        watched = cast("WatchedSearch", model)
        differences = self.loss.differences(self.extractor(watched(self.probe)))
        layers = len(differences) // 2
        sums = torch.stack([difference.square().sum() for difference in differences]).tolist()
        row: dict[str, float] = {}
        for name, values in (("mean_gap", sums[:layers]), ("variance_gap", sums[layers:])):
            row |= {name: sum(values), **{f"{name}_{number}": value for number, value in enumerate(values)}}
        flips = watched.flips()
        return row if flips is None else {**row, "flips": float(flips)}


@dataclass(frozen=True, eq=False)
class Strips:
    """Samples of the same noise after every stretch, a PNG each; the loop's `AfterEpoch`.

    Args:
        folder: where they go.
        noise: (SHOWN, nz).
        device: where the generator is.
    """

    folder: Path
    noise: Tensor
    device: torch.device

    def __call__(self, row: Row, model: nn.Module, averaged: nn.Module | None) -> None:  # noqa: ARG002
        """Write the samples of a stretch."""
        watched = cast("WatchedSearch", model)
        images = torch.cat(list(generated(watched, self.noise, device=self.device)))
        write_sample_grid(self.path(int(row["step"] or 0)), images, columns=len(images))

    def path(self, step: int) -> Path:
        """The picture after so many updates."""
        return self.folder / f"step-{step:08d}.png"

    def found(self) -> list[tuple[int, Path]]:
        """(updates, picture) of all that are there, in order."""
        return [(int(path.stem.removeprefix("step-")), path) for path in sorted(self.folder.glob("step-*.png"))]
