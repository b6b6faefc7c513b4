"""A classifier over a whole set, every sample once, also when several processes share the work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vtk_cli.engine.devices import Precision, autocast
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.processes.gathered import merged
from vtk_cli.errors import UserError
from vtk_cli.models.accuracy import Evaluation, MultiLabelEvaluation, PointAnswers
from vtk_cli.models.preprocessing import PixelConfig

__all__ = ["Evaluation", "MultiLabelEvaluation", "Watched", "evaluate", "normalised"]

_TOP = 5


@runtime_checkable
class Watched(Protocol):
    """Batches that leave out what cannot be read, and know it."""

    broken: dict[int, str]

    def require_few(self, broken: Mapping[int, str]) -> None:
        """Refuse a set of which too much cannot be read."""


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
    if isinstance(batches, Watched):
        batches.require_few({index: reason for one in found for index, reason in one.broken.items()})
    parts = [one for one in found if one.samples]
    if not parts:
        raise UserError("there is no image to evaluate on")
    return _evaluation(merged([part.samples for part in parts]), parts[0].classes)


def normalised(images: Tensor, pixels: PixelConfig) -> Tensor:
    """(B, 3, S, S) uint8 as the network expects it: float32, mean and standard deviation taken out."""
    mean = torch.tensor(pixels.mean, device=images.device).view(1, -1, 1, 1)
    std = torch.tensor(pixels.std, device=images.device).view(1, -1, 1, 1)
    return (images.float() / 255.0 - mean) / std


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
    return _Records(samples, classes, batches.broken if isinstance(batches, Watched) else {})


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
