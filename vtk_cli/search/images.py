"""The images of a search: opened, cut into two halves, and brought to networks as batches ready for them.

    images = open_search_images(options, size=32, console=console)
    images.halves.write(run.path / "split.json")
    batches = training_batches(images, options, world=world, console=console)          # of the half for weights
    calibration, _ = calibration_tensors(images, device=device, limit=850, console=console)
    seen, labels = scoring_tensors(images, device=device, limit=None, console=console)  # of the half for scores
    logits = supernet(seen[0:512], genes)

Every batch is a function of the seed, the epoch and its place, so that an interrupted training sees what an
uninterrupted one sees.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vtk_cli.console import Console
from vtk_cli.data.augmentation import train_transform
from vtk_cli.data.augmented import AugmentedImages, WatchedBatches
from vtk_cli.data.classification import ImageSource, Splits, open_classification
from vtk_cli.data.classification_named import ArrayReader
from vtk_cli.data.digits import DigitsSplit, Split, load_glyphs, upscale
from vtk_cli.data.evaluation_batches import evaluation_transform
from vtk_cli.data.images import BrokenImage
from vtk_cli.engine.batches import Batches, LoaderBatches, TensorBatches
from vtk_cli.engine.processes.distributed import World
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError
from vtk_cli.search.halves import Halves, read_halves, stratified_halves
from vtk_cli.search.image_options import AugmentationName, ImageOptions
from vtk_cli.search.network_batches import NetworkBatches
from vtk_cli.search.seen_images import FromFiles, Seen, seen_images
from vtk_cli.search.treatments import Pixels, crop_for, is_cropped, on_batches, pixels_for

RESIDENT_BYTES = 2 * 2**30
"""Images that take no more than this are kept in memory."""
_SUBSET = 0x737562
_LARGEST_DIGITS = 256
"""All of them are kept in memory."""
_CALIBRATION_EPOCH = 0

Part = Literal["train", "valid", "whole"]


@dataclass(frozen=True, eq=False)
class SearchImages:
    """What is searched and trained on.

    Args:
        splits: all training images, and the validation images that no search looks at.
        halves: of the training images.
        pixels: what networks see.
        augmentation: of training.
        seed: of every draw.
        workers: processes or threads that read images; 0 reads where they are needed.
    """

    splits: Splits
    halves: Halves
    pixels: Pixels
    augmentation: AugmentationName
    seed: int
    workers: int

    @property
    def classes(self) -> int:
        """Their number."""
        return len(self.splits.train.class_names)

    @property
    def size(self) -> int:
        """Side of the input, in pixels."""
        return self.pixels.config.input_size

    def part(self, part: Part) -> ImageSource:
        """The training images of a half, or all."""
        if part == "whole":
            return self.splits.train
        return self.splits.train.subset(self.halves.train if part == "train" else self.halves.valid)

    def fits_memory(self, part: Part) -> bool:
        """Whether a part is augmented in memory: it is small, and its crops need no more than the resized image."""
        return not is_cropped(self.augmentation) and len(self.part(part)) * 3 * self.size**2 <= RESIDENT_BYTES


def open_search_images(
    options: ImageOptions, *, size: int, console: Console, channels: int = 3, whole: bool = False
) -> SearchImages:
    """Open the images that the options name; no image of a folder is decoded.

    Args:
        options: of the search or the re-training.
        size: side of the networks' input, where the options say none.
        console: told what is missing.
        channels: of the networks' input, 3 or 1.
        whole: the halves are not needed, e.g. for a re-training: what cannot be halved is taken, too.

    Raises:
        UserError: images, labels or the split file are not what they must be.
    """
    size = options.size or size
    splits = _digits_of(size) if options.on_digits and options.val is None else _opened(options, console)
    train = splits.train
    if train.multi_label:
        raise UserError("its images have several labels each", options.data, "give images of one class each")
    halves = Halves((), ())
    if options.split_file is not None:
        halves = read_halves(options.split_file, len(train))
    elif not whole:
        halves = stratified_halves(train.targets.numpy(), options.seed)
    pixels = pixels_for(options.data_name, options.augmentation, options.pixels, size, grey=channels == 1)
    workers = 0 if options.workers is None and options.on_digits else worker_count(options.workers)
    return SearchImages(splits, halves, pixels, options.augmentation, options.seed, workers)


def training_batches(
    images: SearchImages, options: ImageOptions, *, world: World, console: Console, part: Part = "train"
) -> Batches:
    """Batches `(indices, images, targets)` for `engine.loop`: images float32 as networks see them, on the device.

    Args:
        images: of the search.
        options: for the size of a batch.
        world: this process among the others.
        console: told of files that cannot be read.
        part: which training images: `train`, the half for weights, or `whole`.

    Raises:
        UserError: the processes cannot share a batch equally, or too many images cannot be read.
    """
    source = images.part(part)
    broken: dict[int, str] = {}
    if images.fits_memory(part):
        pixels, targets, broken = _resident(images, source, console)
        inner: Batches = TensorBatches(
            pixels.to(world.device),
            targets.to(world.device),
            batch_size=options.batch_size,
            seed=images.seed,
            world=world,
            names=source.names,
        )
    else:
        inner = _loaded(images, source, options.batch_size, world, console)
    return NetworkBatches(
        inner,
        images.pixels,
        on_batches(images.augmentation, images.size),
        world=world,
        seed=images.seed,
        broken=broken,
    )


def scoring_tensors(
    images: SearchImages, *, device: torch.device, limit: int | None, console: Console
) -> tuple[Seen, Tensor]:
    """The half that architectures are judged on, as networks see it, without augmentation.

    Args:
        images: of the search.
        device: where networks compute.
        limit: so many of the images, drawn by the seed; None: all.
        console: told of files that cannot be read; the next image takes the place of each.

    Returns:
        Images by slices, float32 (B, 3, S, S) or (B, 1, S, S) on the device, and the labels (N,) int64 there.

    Raises:
        UserError: too many images cannot be read.
    """
    source = _drawn(images.part("valid"), limit, images.seed)
    if len(source) * 3 * images.size**2 > RESIDENT_BYTES:
        return FromFiles(source, images.pixels, device, images.workers), source.targets.to(device)
    pixels, targets, _ = _resident(images, source, console)
    return seen_images(pixels.to(device), images.pixels), targets.to(device)


def calibration_tensors(
    images: SearchImages, *, device: torch.device, limit: int, console: Console
) -> tuple[Tensor, Tensor]:
    """Images of the half for weights, augmented as in training: what batch normalisation is calibrated on.

    The same images in the same order for every architecture.

    Args:
        images: of the search.
        device: where networks compute.
        limit: so many, drawn by the seed, or all where there are fewer.
        console: told of files that cannot be read.

    Returns:
        Images float32 (N, 3, S, S) or (N, 1, S, S) and labels (N,) int64, on the device.

    Raises:
        UserError: too many images cannot be read.
    """
    source = _drawn(images.part("train"), limit, images.seed)
    here = World(0, 1, 0, device)
    if is_cropped(images.augmentation):
        inner: Batches = _loaded(images, source, min(len(source), 64), here, console)
    else:
        pixels, targets, _ = _resident(images, source, console)
        inner = TensorBatches(pixels, targets, batch_size=min(len(source), 64), seed=images.seed)
    batches = NetworkBatches(
        inner, images.pixels, on_batches(images.augmentation, images.size), world=here, seed=images.seed
    )
    try:
        made = [(seen, targets) for _, seen, targets in batches.epoch(_CALIBRATION_EPOCH, 0)]
    finally:
        batches.close()
    return torch.cat([seen for seen, _ in made]), torch.cat([targets for _, targets in made])


def source_digest(source: ImageSource) -> str:
    """A checksum of what a training sees of a source: its classes, and the pixels and label of every image."""
    digest = hashlib.sha256(json.dumps([source.class_names, source.targets.tolist()]).encode())
    for index in range(len(source)):
        try:
            image = source.read(index)
        except BrokenImage:
            digest.update(b"broken")
        else:
            digest.update(f"{image.size}".encode() + image.tobytes())
    return digest.hexdigest()


def listing_digest(source: ImageSource) -> str:
    """A checksum of which images a source has, in which order and of which classes; none is read."""
    listed = [source.class_names, source.targets.tolist(), list(source.names)]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def _drawn(source: ImageSource, limit: int | None, seed: int) -> ImageSource:
    if limit is not None and limit < 1:
        raise UserError(f"{limit} images are none to judge by", fix="give at least 1")
    if limit is None or limit >= len(source):
        return source
    order = np.random.default_rng([seed, _SUBSET]).permutation(len(source))
    return source.subset(sorted(order[:limit].tolist()))


def _loaded(
    images: SearchImages, source: ImageSource, batch_size: int, world: World, console: Console
) -> WatchedBatches:
    crops = is_cropped(images.augmentation)
    transform = (
        train_transform(crop_for(images.augmentation, images.size))
        if crops
        else evaluation_transform(images.pixels.config)
    )
    batches = LoaderBatches(
        AugmentedImages(source, transform),
        batch_size,
        images.seed,
        images.workers,
        world,
        pin_memory=world.device.type == "cuda",
    )
    return WatchedBatches(batches, source, console)


def _resident(images: SearchImages, source: ImageSource, console: Console) -> tuple[Tensor, Tensor, dict[int, str]]:
    """All images of a source, resized and cut, uint8 (N, 3, S, S), their labels, and why some cannot be read."""
    transform = evaluation_transform(images.pixels.config)
    size = images.size
    inner = LoaderBatches(AugmentedImages(source, transform), 256, images.seed, images.workers)
    batches = WatchedBatches(inner, source, console)
    pixels = torch.empty(len(source), 3, size, size, dtype=torch.uint8)
    targets = torch.empty(len(source), dtype=torch.int64)
    try:
        with console.progress(f"reading {source.name}", batches.steps_per_epoch) as progress:
            for indices, read, labels in batches.epoch(0):
                pixels[indices], targets[indices] = read, labels
                progress.advance()
    finally:
        batches.close()
    return pixels, targets, batches.broken


def _opened(options: ImageOptions, console: Console) -> Splits:
    return open_classification(options.data, console=console, val=options.val, seed=options.seed)


def _digits_of(size: int) -> Splits:
    """The embedded digits, drawn at another size from their 8x8 source and not from 32x32."""
    if size > _LARGEST_DIGITS:
        raise UserError(f"the digits are drawn with at most {_LARGEST_DIGITS} pixels a side", f"--size {size}")
    return Splits(_digits_split("train", size), _digits_split("val", size))


def _digits_split(split: Split, size: int) -> ImageSource:
    glyphs = load_glyphs(split)
    grey = np.rint(upscale(glyphs.ink, size) * 255).astype(np.uint8)
    drawn = DigitsSplit(np.repeat(grey[:, None], 3, axis=1), glyphs.labels, glyphs.ids)
    reader, names = ArrayReader(drawn.images), drawn.sample_ids("digits")
    return ImageSource("digits", tuple("0123456789"), torch.from_numpy(drawn.labels), reader, names)
