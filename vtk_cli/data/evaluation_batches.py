"""The samples of an evaluation, every one once, also when several processes share the work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms.functional import pil_to_tensor

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Interpolation, Transform, eval_transform
from vtk_cli.data.augmented import ABSENT
from vtk_cli.data.byproducts.targets import PointTargets
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import BROKEN_SHARE, NAMED, BrokenImage
from vtk_cli.data.pointed import PointedImage, Points, without_points
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.workers import outlive_stop_signals
from vtk_cli.errors import UserError

_PROBE = 64.0
"""Two points so small a part of the shorter side off the centre of an image: no centre crop leaves them out."""


class Preprocessing(Protocol):
    """What is asked of the preprocessing that belongs to a network's weights."""

    @property
    def input_size(self) -> int:
        """Side of the square input, in pixels."""

    @property
    def crop_pct(self) -> float:
        """Side of the crop over the shorter side of the resized image."""

    @property
    def interpolation(self) -> str:
        """Of the resize: `bicubic`, `bilinear` or `nearest`."""


class EvaluationBatches:
    """The samples of a set in order, each once: process r of k reads samples r, r + k, r + 2k ...

    Iterated as often as wanted; workers live on in between. What cannot be read is left out, warned of once, and
    refused when it is more than one and more than 1 % of the set.

    Args:
        source: the images and their labels.
        transform: `eval_transform(...)`, a centre crop: it may scale and shift each axis, no more.
        batch_size: samples of this process in a batch.
        workers: worker processes; with 0 samples are read in this one.
        console: hears of broken files.
        points: the clicks of the set, where it has any.
        world: this process among the others; None for a single one.
        pin_memory: copy batches to page-locked memory, from where they reach a GPU faster.
    """

    def __init__(
        self,
        source: ImageSource,
        transform: Transform,
        *,
        batch_size: int,
        workers: int,
        console: Console,
        points: PointTargets | None = None,
        world: World | None = None,
        pin_memory: bool = False,
    ) -> None:
        self.source, self.points, self._console = source, points, console
        rank, size = (world.rank, world.size) if world is not None else (0, 1)
        self._share = range(rank, len(source), size)
        self._samples = _Samples(source, transform, points)
        self._options: dict[str, Any] = {
            "batch_size": batch_size,
            "sampler": self._share,
            "num_workers": workers,
            "collate_fn": _collate,
            "pin_memory": pin_memory,
            "worker_init_fn": outlive_stop_signals,
            "persistent_workers": workers > 0,
            # Its own generator: the global one stays where the training left it.
            "generator": torch.Generator(),
        }
        self._loader: DataLoader[Any] | None = None
        self._warned: set[int] = set()
        self.broken: dict[int, str] = {}
        """The reasons by index, of this process's samples that could not be read the last time."""

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield this process's batches, as `evaluate` takes them.

        Raises:
            UserError: more than one, and more than 1 %, of the set's files are broken, or all.
        """
        if self._loader is None:
            self._loader = DataLoader(self._samples, **self._options)
        self.broken = {}
        for batch, refused in self._loader:
            self.broken |= refused
            self.require_few(self.broken)
            self._warn(refused)
            if batch:
                yield tuple(batch)  # pinning makes a list of it

    def require_few(self, broken: Mapping[int, str]) -> None:
        """Refuse a set of which too much cannot be read.

        Args:
            broken: the reasons by index, of this process or of all together.

        Raises:
            UserError: more than one, and more than 1 %, of the set.
        """
        if len(broken) > max(1, int(BROKEN_SHARE * len(self.source))):
            named = ", ".join(f"{self.source.names[index]} ({broken[index]})" for index in sorted(broken)[:NAMED])
            what = f"at least {len(broken)} of {len(self.source)} images cannot be read, first {named}"
            raise UserError(what, self.source.name, "replace or remove them")

    def close(self) -> None:
        """End the worker processes; another iteration starts new ones."""
        self._loader = None

    def _warn(self, refused: Sequence[tuple[int, str]]) -> None:
        for index, reason in refused:
            if index not in self._warned:
                self._console.warn(f"{self.source.names[index]}: {reason}; left out of the evaluation")
                self._warned.add(index)


def evaluation_transform(pixels: Preprocessing) -> Transform:
    """The centre crop that belongs to a network's weights."""
    return eval_transform(pixels.input_size, pixels.crop_pct, cast("Interpolation", pixels.interpolation))


@dataclass(frozen=True)
class _Samples(Dataset[Any]):
    """Sample i as `(i, image, target, points, present, boxes)`, or `(i, why it cannot be read)`."""

    source: ImageSource
    transform: Transform
    points: PointTargets | None

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        try:
            image = self.source.read(index)
        except BrokenImage as error:
            return index, error.what
        target = self.source.targets[index]
        if self.points is None:
            return index, pil_to_tensor(self.transform(without_points(image)).image), target
        size = np.array(image.size, np.float64)
        probes = size / 2.0 + np.array([[-1.0], [1.0]]) * size.min() / _PROBE
        points = np.concatenate([self.points.points[index].numpy() * size, probes])
        present = np.concatenate([self.points.present[index].numpy(), [True, True]])
        cropped = self.transform(PointedImage(image, points, present))
        fractions = cropped.points / cropped.image.size
        kept = torch.from_numpy(cropped.present[:-2].copy())
        shown = torch.where(kept[:, None], torch.from_numpy(fractions[:-2]).float(), ABSENT)
        sample = (index, pil_to_tensor(cropped.image), target, shown, kept)
        if self.points.boxes is None:
            return sample
        return *sample, _carried(self.points.boxes[index], probes / size, fractions[-2:])


def _carried(boxes: Tensor, before: Points, after: Points) -> Tensor:
    """Boxes (P, 4) as fractions of an image, as fractions of its crop; those that are all 0 stay so.

    The crop scales and shifts each axis; two points (2, 2) and where they went tell how. Unlike points, boxes may reach
    beyond the crop.
    """
    scale = (after[1] - after[0]) / (before[1] - before[0])
    shift = after[0] - scale * before[0]
    moved = boxes.double() * torch.from_numpy(np.tile(scale, 2)) + torch.from_numpy(np.tile(shift, 2))
    is_there = (boxes[:, 2:] > boxes[:, :2]).all(dim=1, keepdim=True)
    return torch.where(is_there, moved, 0.0).float()


def _collate(samples: list[tuple[Any, ...]]) -> tuple[tuple[Tensor, ...], list[tuple[int, str]]]:
    read = [sample for sample in samples if len(sample) > 2]
    refused = [cast("tuple[int, str]", sample) for sample in samples if len(sample) == 2]
    return tuple(default_collate(read)) if read else (), refused
