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

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Transform, train_transform
from vtk_cli.data.augmented import AugmentedImages, WatchedBatches
from vtk_cli.data.classification import ImageSource, Splits, open_classification
from vtk_cli.data.classification_named import ArrayReader
from vtk_cli.data.digits import Split, load_digits_split, load_glyphs, upscale
from vtk_cli.data.evaluation_batches import evaluation_transform
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.pointed import without_points
from vtk_cli.engine.batches import Batches, LoaderBatches, TensorBatches
from vtk_cli.engine.distributed import World
from vtk_cli.engine.seeds import sample_seed
from vtk_cli.engine.workers import worker_count
from vtk_cli.errors import UserError
from vtk_cli.search.batch_augmentation import BatchAugmentation
from vtk_cli.search.halves import Halves, read_halves, stratified_halves
from vtk_cli.search.image_options import AugmentationName, ImageOptions
from vtk_cli.search.treatments import Pixels, crop_for, is_cropped, on_batches, pixels_for

RESIDENT_BYTES = 2 * 2**30
"""Images that take no more than this are kept in memory."""
FLOAT_BYTES = 512 * 2**20
"""Images that take no more than this as numbers are kept so: made from bytes in every pass they cost time."""

_AUGMENT, _SUBSET = 0x617567, 0x737562
_CALIBRATION_EPOCH = 0

Part = Literal["train", "valid", "whole"]


class Seen(Protocol):
    """Images as networks see them, by slices: a tensor, or what reads and converts what is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> Tensor: ...


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
    if images.fits_memory(part):
        pixels, targets = _resident(images, source, console)
        inner: Batches = TensorBatches(
            pixels.to(world.device),
            targets.to(world.device),
            batch_size=options.batch_size,
            seed=images.seed,
            world=world,
        )
    else:
        inner = _loaded(images, source, options.batch_size, world, console)
    return NetworkBatches(
        inner, images.pixels, on_batches(images.augmentation, images.size), world=world, seed=images.seed
    )


class NetworkBatches:
    """Batches of bytes, made ready for networks on the device.

    Args:
        batches: `(indices, images, targets)`, images uint8 (B, 3, S, S).
        pixels: what networks see.
        augmentation: what is done to a batch.
        world: this process, on whose device it is done.
        seed: of the draws.
    """

    def __init__(
        self, batches: Batches, pixels: Pixels, augmentation: BatchAugmentation, *, world: World, seed: int
    ) -> None:
        self._batches, self._pixels, self._augmentation = batches, pixels, augmentation
        self._world, self._seed = world, seed

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""
        return self._batches.steps_per_epoch

    @property
    def broken(self) -> dict[int, str]:
        """The reasons by index, of the files found broken so far in this process."""
        return dict(getattr(self._batches, "broken", {}))

    def epoch(self, epoch: int, start: int) -> Iterator[tuple[Any, ...]]:
        """The batches of an epoch from number `start` on, each `(indices, images, targets)`."""
        own = sample_seed(self._seed, self._world.rank, _AUGMENT)
        for place, (indices, images, targets) in enumerate(self._batches.epoch(epoch, start), start):
            generator = torch.Generator().manual_seed(sample_seed(own, epoch, place))
            seen = self._ready(images.to(self._world.device, non_blocking=True), generator)
            yield indices, seen, targets.to(self._world.device, non_blocking=True)

    def _ready(self, images: Tensor, generator: torch.Generator) -> Tensor:
        done = self._augmentation
        coloured = done.lit(done.moved(images, generator).float() / 255, generator)
        return done.holed(self._pixels.seen(coloured), generator)

    def close(self) -> None:
        """End the worker processes, where there are any."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


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
    pixels, targets = _resident(images, source, console)
    return _shown(pixels.to(device), images.pixels), targets.to(device)


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
        pixels, targets = _resident(images, source, console)
        inner = TensorBatches(pixels, targets, batch_size=min(len(source), 64), seed=images.seed)
    batches = NetworkBatches(
        inner, images.pixels, on_batches(images.augmentation, images.size), world=here, seed=images.seed
    )
    try:
        made = [(seen, targets) for _, seen, targets in batches.epoch(_CALIBRATION_EPOCH, 0)]
    finally:
        batches.close()
    return torch.cat([seen for seen, _ in made]), torch.cat([targets for _, targets in made])


@dataclass(frozen=True, eq=False)
class FromBytes:
    """Images kept as bytes on the device, converted by slices."""

    images: Tensor
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, which: slice) -> Tensor:
        """Float32 images of a slice, on the device."""
        return self.pixels.normalised(self.images[which])


@dataclass(frozen=True, eq=False)
class FromFiles:
    """Images that are read anew for every slice, by threads."""

    source: ImageSource
    pixels: Pixels
    device: torch.device
    threads: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, which: slice) -> Tensor:
        """Float32 images of a slice, on the device.

        Raises:
            UserError: an image cannot be read.
        """
        read = partial(_read, self.source, evaluation_transform(self.pixels.config))
        numbers = range(len(self))[which]
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            found = torch.stack([*pool.map(read, numbers)])
        return self.pixels.normalised(found.to(self.device, non_blocking=True))


def _read(source: ImageSource, transform: Transform, index: int) -> Tensor:
    try:
        image = source.read(index)
    except BrokenImage as error:
        raise UserError(error.what, error.where, "replace it, or leave it out with --split-file") from error
    found: Tensor = pil_to_tensor(transform(without_points(image)).image)
    return found


def _shown(images: Tensor, pixels: Pixels) -> Seen:
    return pixels.normalised(images) if 4 * images.numel() <= FLOAT_BYTES else FromBytes(images, pixels)


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


def _resident(images: SearchImages, source: ImageSource, console: Console) -> tuple[Tensor, Tensor]:
    """All images of a source, resized and cut, uint8 (N, 3, S, S), and their labels; broken ones are named."""
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
    return pixels, targets


def _opened(options: ImageOptions, console: Console) -> Splits:
    return open_classification(options.data, console=console, val=options.val, seed=options.seed)


def _digits_of(size: int) -> Splits:
    """The embedded digits, drawn at another size from their 8x8 source and not from 32x32."""
    return Splits(_digits_split("train", size), _digits_split("val", size))


def _digits_split(split: Split, size: int) -> ImageSource:
    names = load_digits_split(split).sample_ids("digits")
    glyphs = load_glyphs(split)
    grey = np.rint(upscale(glyphs.ink, size) * 255).astype(np.uint8)
    reader = ArrayReader(np.repeat(grey[:, None], 3, axis=1))
    return ImageSource("digits", tuple("0123456789"), torch.from_numpy(glyphs.labels), reader, names)
