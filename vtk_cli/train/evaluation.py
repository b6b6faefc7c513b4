"""A classifier over a whole set, every sample once, also when several processes share the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms.functional import pil_to_tensor

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Interpolation, Transform, eval_transform
from vtk_cli.data.augmented import ABSENT
from vtk_cli.data.byproducts.targets import PointTargets
from vtk_cli.data.classification_source import ImageSource
from vtk_cli.data.images import BROKEN_SHARE, NAMED, BrokenImage
from vtk_cli.data.pointed import PointedImage, without_points
from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.engine.distributed import World
from vtk_cli.engine.gathered import merged
from vtk_cli.engine.workers import outlive_stop_signals
from vtk_cli.errors import UserError
from vtk_cli.models.zoo import PixelConfig
from vtk_cli.train.accuracy import Evaluation, Floats, MultiLabelEvaluation, PointAnswers

__all__ = [
    "Evaluation",
    "EvaluationBatches",
    "MultiLabelEvaluation",
    "evaluate",
    "evaluation_transform",
    "normalised",
]

_TOP = 5
_PROBE = 64.0
"""Two points so small a part of the shorter side off the centre of an image: no centre crop leaves them out."""


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


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    pixels: PixelConfig,
    device: torch.device,
    precision: Precision = "auto",
    world: World | None = None,
    restrict: Sequence[int] | None = None,
) -> Evaluation | MultiLabelEvaluation:
    """Measure a classifier on every sample of `batches`; among several processes all get the same, whole result.

    Args:
        model: maps normalised images (B, 3, S, S) to logits (B, C), or to `(logits, points)` with points (B, P, 2) or
            None. It is put into eval mode, and back into the mode it was in.
        batches: this process's share of the set, each `(indices, images, targets)` or, with clicks, `(indices,
            images, targets, points, present)` or, with boxes too, `(..., boxes)`: which samples, (B,) int64; (B, 3,
            S, S) uint8; (B,) int64, or (B, K) float32 for several labels each; (B, P, 2) as fractions of the crop;
            (B, P) bool; (B, P, 4), see `PointAnswers`.
        pixels: mean and standard deviation that the model expects.
        device: where the model is.
        precision: of the forward pass; probabilities and losses are computed in fp32.
        world: this process among those that share the set; None for a single one.
        restrict: the classes that the set has, where it has only some of the model's (ImageNet-A, -R): the other
            logits are left out. Targets stay the model's class numbers.

    Raises:
        UserError: there is no sample, a target is outside `restrict`, or too many files are broken, all processes'
            together.
    """
    kept = None if restrict is None else torch.as_tensor(sorted(restrict), device=device)
    outcome = _attempt(model, batches, pixels=pixels, device=device, precision=precision, kept=kept)
    outcomes = [outcome] if world is None else world.gather(outcome)
    for one in outcomes:  # raised in every process, so that none waits for another that has gone
        if isinstance(one, UserError):
            raise one
    found = [one for one in outcomes if not isinstance(one, UserError)]
    if isinstance(batches, EvaluationBatches):
        batches.require_few({index: reason for one in found for index, reason in one.broken.items()})
    parts = [one for one in found if one.samples]
    if not parts:
        raise UserError("there is no image to evaluate on")
    return _evaluation(merged([part.samples for part in parts]), parts[0].classes)


def evaluation_transform(pixels: PixelConfig) -> Transform:
    """The centre crop that belongs to a network's weights."""
    return eval_transform(pixels.input_size, pixels.crop_pct, cast("Interpolation", pixels.interpolation))


def normalised(images: Tensor, pixels: PixelConfig) -> Tensor:
    """(B, 3, S, S) uint8 as the network expects it: float32, mean and standard deviation taken out."""
    mean = torch.tensor(pixels.mean, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(pixels.std, device=images.device).view(1, -1, 1, 1)
    return (images.float() / 255.0 - mean) / std


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


def _carried(boxes: Tensor, before: Floats, after: Floats) -> Tensor:
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


@dataclass(frozen=True)
class _Records:
    """What one process found.

    Args:
        samples: arrays by name with a row for each of its samples.
        classes: how many there are.
        broken: the reasons by index, of its samples that could not be read.
    """

    samples: dict[str, NDArray[Any]]
    classes: int
    broken: dict[int, str]


def _attempt(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    pixels: PixelConfig,
    device: torch.device,
    precision: Precision,
    kept: Tensor | None,
) -> _Records | UserError:
    """This process's records, or why there are none; the model is in its old mode afterwards."""
    was_training = model.training
    model.eval()
    found: list[dict[str, Tensor]] = []
    classes = 0
    try:
        with torch.inference_mode():
            for batch in batches:
                seen = normalised(batch[1].to(device, non_blocking=True), pixels)
                with autocast(device, precision):
                    answer = model(seen)
                logits, points = answer if isinstance(answer, tuple) else (answer, None)
                classes = logits.shape[1]
                found.append(_records(batch, logits.float(), points, kept))
    except UserError as error:
        return error
    finally:
        model.train(was_training)
    samples = {name: _array(torch.cat([records[name].cpu() for records in found])) for name in (found or ({},))[0]}
    return _Records(samples, classes, batches.broken if isinstance(batches, EvaluationBatches) else {})


def _records(
    batch: tuple[Tensor, ...], logits: Tensor, points: Tensor | None, kept: Tensor | None
) -> dict[str, Tensor]:
    indices, images, targets, *clicks = batch
    records = {"indices": indices, "targets": targets}
    if targets.ndim == 1:
        records |= _single(logits, targets.to(logits.device), kept)
    else:
        records["logits"] = logits
    if points is not None and clicks:
        records |= dict(zip(("points", "present", "boxes"), clicks, strict=False))
        records |= {"predicted": points.float(), "sides": torch.full((len(images),), images.shape[-1])}
    return records


def _array(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (values.double() if values.is_floating_point() else values).numpy()
    return array


def _single(logits: Tensor, targets: Tensor, kept: Tensor | None) -> dict[str, Tensor]:
    """The records of B samples with one label each; `kept` holds the classes that count, ascending."""
    places = targets
    if kept is not None:
        logits, places = logits[:, kept], torch.searchsorted(kept, targets)
        if not torch.equal(kept[places.clamp(max=len(kept) - 1)], targets):
            raise UserError("the set has images of classes that it is not to have", fix="give all its classes")
    chances = F.log_softmax(logits, dim=1)
    best = logits.topk(min(_TOP, logits.shape[1]), dim=1).indices
    return {
        "predictions": best[:, 0] if kept is None else kept[best[:, 0]],
        "in_top5": (best == places[:, None]).any(dim=1),
        "losses": -chances.gather(1, places[:, None])[:, 0],
        "confidences": chances.gather(1, best[:, :1])[:, 0].exp(),
    }


def _evaluation(records: dict[str, NDArray[Any]], classes: int) -> Evaluation | MultiLabelEvaluation:
    points = None
    if "predicted" in records:
        side = int(records["sides"][0])
        points = PointAnswers(records["predicted"], records["points"], records["present"], side, records.get("boxes"))
    if "logits" in records:
        return MultiLabelEvaluation(records["indices"], records["targets"] > 0.5, records["logits"], points)
    names = ("indices", "targets", "predictions", "in_top5", "losses", "confidences")
    return Evaluation(**{name: records[name] for name in names}, classes=classes, points=points)
