"""What the MaskRefineNet learns from: rough masks of fully labelled images beside the true ones.

The rough masks come from checkpoints in the middle of the teacher's training, which have not memorised these images
(arXiv 2303.15062, Section 3.3).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import pil_to_tensor

from vtk_cli.data.detection import DetectionSet, ImageRecord
from vtk_cli.data.detection.outlines import outline_mask
from vtk_cli.data.points.clicks import click_of_mask
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.errors import UserError
from vtk_cli.segment.pseudo.labels import PseudoLabel
from vtk_cli.segment.refine.configurations import RefineConfig
from vtk_cli.segment.refine.crops import click_heat, crop_window, refine_input

HELD_OUT = 0.1
"""The share of fully labelled images that chooses among the states of the training."""


@dataclass(frozen=True, eq=False)
class RefinePair:
    """A rough mask and the object it is of.

    Args:
        record: the image.
        rough: its mask; `label` is the object's class.
        index: of the object in the record.
        centroid: x, y of the object's mask.
    """

    record: ImageRecord
    rough: PseudoLabel
    index: int
    centroid: tuple[float, float]

    def truth(self) -> Tensor:
        """bool (H, W): the true mask."""
        outline = self.record.outlines[self.index]
        return torch.from_numpy(outline_mask(outline, self.record.height, self.record.width))


@dataclass(frozen=True)
class RefineBatch:
    """Crops as they are trained on; small, since most of the network's input is zeros.

    Args:
        images: float (n, 3, S, S), normalised.
        rough: bool (n, S, S).
        targets: bool (n, S, S).
        clicks: float (n, 2) x, y in pixels of the crops.
        present: bool (n,): whether there is a click; not where nothing of the object is in the crop.
        labels: int64 (n,).
    """

    images: Tensor
    rough: Tensor
    targets: Tensor
    clicks: Tensor
    present: Tensor
    labels: Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> RefineBatch:
        """The same on another device."""
        parts = (self.images, self.rough, self.targets, self.clicks, self.present, self.labels)
        return RefineBatch(*(part.to(device, non_blocking=non_blocking) for part in parts))

    def inputs(self, config: RefineConfig, classes: int) -> Tensor:
        """What the network is given: (n, C + 5, S, S)."""
        heat = click_heat(self.clicks, self.present, config.side, config.sigma, config.reach)
        return refine_input(self.images, heat, self.rough, self.labels, classes)


def match_rough_masks(dataset: DetectionSet, rough: Iterable[PseudoLabel]) -> list[RefinePair]:
    """Each rough mask with the object of its class and image whose centroid is nearest to its click, however far.

    Crowds and objects with an empty mask are none; a rough mask with no object of its class is left out.

    Args:
        dataset: the fully labelled images.
        rough: of these images.
    """
    by_image: defaultdict[int, list[PseudoLabel]] = defaultdict(list)
    for label in rough:
        by_image[label.image_id].append(label)
    return [pair for record in dataset.records for pair in _pairs_of(record, by_image[record.id])]


def hold_out(image_ids: Sequence[int], seed: int, share: float = HELD_OUT) -> tuple[list[int], list[int]]:
    """Part images into those to train on and those to choose by, at least one of each.

    Args:
        image_ids: at least two; their order plays no role.
        seed: of the draw.
        share: to choose by.

    Returns:
        Both ascending.

    Raises:
        UserError: there are fewer than two images.
    """
    known = sorted(set(image_ids))
    if len(known) < 2:
        what = f"{len(known)} fully labelled images with rough masks, of which one would be held out"
        raise UserError(what, fix="label at least 2, or go on without refinement (--no-refine)")
    generator = torch.Generator().manual_seed(sample_seed(seed, len(known), 0))
    order = torch.randperm(len(known), generator=generator).tolist()
    count = max(1, round(share * len(known)))
    held = sorted(known[index] for index in order[:count])
    return sorted(known[index] for index in order[count:]), held


class RefinePairs(Dataset[RefineBatch]):
    """Augmented crops, each a batch of one; the random choices are drawn from torch's global generator.

    Args:
        pairs: at least one.
        config: what crops are like.
    """

    def __init__(self, pairs: Sequence[RefinePair], config: RefineConfig) -> None:
        self._pairs, self._config = pairs, config

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> RefineBatch:
        """Raises `BrokenImage` where the image can no longer be read."""
        pair = self._pairs[index]
        image, rough, truth = network_image(pair.record), torch.from_numpy(pair.rough.pixels()), pair.truth()
        scale = _uniform(*self._config.train_scales)
        window = crop_window(rough, pair.centroid, scale)
        return training_crop(
            window.of(image), window.of(rough), window.of(truth), label=pair.rough.label, config=self._config
        )

    def name_of(self, index: int) -> str:
        """The path of a crop's image, and which of its objects it is, from 1."""
        return f"{self._pairs[index].record.file} (object {self._pairs[index].index + 1})"


def collate_crops(crops: Sequence[RefineBatch]) -> RefineBatch:
    """One batch of several."""
    fields = ("images", "rough", "targets", "clicks", "present", "labels")
    return RefineBatch(*(torch.cat([getattr(crop, field) for crop in crops]) for field in fields))


def training_crop(image: Tensor, rough: Tensor, truth: Tensor, *, label: int, config: RefineConfig) -> RefineBatch:
    """An augmented crop: resized with its shape kept, cut or zero-padded about its centre to S x S, perhaps mirrored.

    The click is the centroid of what is left of the object.

    Args:
        image: float (3, h, w), normalised.
        rough: bool (h, w).
        truth: bool (h, w).
        label: of the object.
        config: how much it is resized, how often mirrored, and S.
    """
    height, width = rough.shape
    factor = config.side * _uniform(*config.train_sizes) / min(height, width)
    # what a resize would make beyond the square is cut off first: a crop of 2 x 1000 pixels is not blown up to 128,000
    reach = (min(height, _reach(config.side, factor)), min(width, _reach(config.side, factor)))
    image, rough, truth = (_centred(part, reach) for part in (image, rough, truth))
    size = (max(1, round(reach[0] * factor)), max(1, round(reach[1] * factor)))
    image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
    masks = F.interpolate(torch.stack([rough, truth])[None].float(), size=size, mode="nearest-exact")[0]
    whole = _centred(torch.cat([image, masks]), (config.side, config.side))
    if _uniform(0, 1) < config.flip:
        whole = whole.flip(-1)
    target = whole[4] > 0.5
    present = bool(target.any())
    click = click_of_mask(target.numpy(), "centroid") if present else np.zeros(2)
    return RefineBatch(
        images=whole[None, :3],
        rough=whole[None, 3] > 0.5,
        targets=target[None],
        clicks=torch.from_numpy(click).float()[None],
        present=torch.tensor([present]),
        labels=torch.tensor([label]),
    )


def network_image(record: ImageRecord) -> Tensor:
    """float (3, H, W): an image with ImageNet's mean 0 and deviation 1 a channel.

    Raises:
        BrokenImage: it can no longer be read.
    """
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    pixels: Tensor = pil_to_tensor(record.read())
    return (pixels.float() / 255 - mean) / deviation


def _pairs_of(record: ImageRecord, rough: Sequence[PseudoLabel]) -> list[RefinePair]:
    if not rough:
        return []
    masks = (outline_mask(outline, record.height, record.width) for outline in record.outlines)
    centroids = [click_of_mask(mask, "centroid") if mask.any() else np.full(2, np.nan) for mask in masks]
    pairs = []
    for label in rough:
        distances = [
            np.inf
            if crowd or label.label != of_class or np.isnan(centre[0])
            else float(np.hypot(*(centre - label.point)))
            for centre, of_class, crowd in zip(centroids, record.labels.tolist(), record.crowd, strict=True)
        ]
        if min(distances, default=np.inf) < np.inf:
            nearest = int(np.argmin(distances))
            x, y = centroids[nearest].tolist()
            pairs.append(RefinePair(record, label, nearest, (x, y)))
    return pairs


def _reach(side: int, factor: float) -> int:
    """How many pixels of a crop may be seen in `side` pixels after it is resized by `factor`, with some to spare."""
    return int(side / factor) + 4


def _centred(image: Tensor, size: tuple[int, int]) -> Tensor:
    """(..., H, W) cut or zero-padded about its centre to `size`."""
    for axis, length in ((-2, size[0]), (-1, size[1])):
        spare = image.shape[axis] - length
        if spare > 0:
            image = image.narrow(axis, spare // 2, length)
        elif spare < 0:
            before, after = -spare // 2, -spare - (-spare // 2)
            image = F.pad(image, (0, 0, before, after) if axis == -2 else (before, after))
    return image


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
