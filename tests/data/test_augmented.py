from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.augmentation import Augmentation, eval_transform, train_transform
from vtk_cli.data.augmented import PATIENCE, AugmentedImages, WatchedBatches
from vtk_cli.data.byproducts.targets import PointTargets
from vtk_cli.data.classification import ImageSource
from vtk_cli.data.images import BrokenImage
from vtk_cli.data.pointed import PointedImage
from vtk_cli.engine.batches import LoaderBatches
from vtk_cli.errors import UserError

SIDE = 12


@dataclass(frozen=True)
class Painted:
    """Image i is i grey throughout; some are broken."""

    broken: frozenset[int] = frozenset()
    size: tuple[int, int] = (SIDE, SIDE)

    def __call__(self, index: int) -> Image.Image:
        if index in self.broken:
            raise BrokenImage("torn", f"{index}.png")
        return Image.new("RGB", self.size, (index % 256,) * 3)


@dataclass(frozen=True)
class Cut:
    """The left half of an image, stretched to the whole."""

    def __call__(self, pointed: PointedImage) -> PointedImage:
        width, height = pointed.image.size
        image = pointed.image.crop((0, 0, width // 2, height)).resize((width, height))
        return pointed.moved(image, pointed.points * (2, 1))


def source(count: int, *broken: int, targets: torch.Tensor | None = None, size: tuple[int, int] = (SIDE, SIDE)) -> Any:
    targets = torch.arange(count) if targets is None else targets
    names = tuple(f"{index}.png" for index in range(count))
    return ImageSource("painted", names, targets, Painted(frozenset(broken), size), names)


def identity(pointed: PointedImage) -> PointedImage:
    return pointed


def batches(count: int, *broken: int, workers: int = 0, console: Console | None = None) -> WatchedBatches:
    images = source(count, *broken)
    loader = LoaderBatches(AugmentedImages(images, eval_transform(SIDE)), 8, seed=0, workers=workers)
    return WatchedBatches(loader, images, console or Console(quiet=True))


def test_a_sample_without_points_is_image_target_and_flag() -> None:
    image, target, broken = AugmentedImages(source(5), eval_transform(SIDE))[3]
    assert image.dtype == torch.uint8
    assert image.shape == (3, SIDE, SIDE)
    assert (image == 3).all()
    assert target == 3
    assert target.dtype == torch.int64
    assert broken is False


def test_rows_and_columns_of_the_tensor_are_those_of_the_image() -> None:
    values = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    images = ImageSource("one", ("a",), torch.zeros(1, dtype=torch.int64), lambda _: Image.fromarray(values), ("a",))
    image, *_ = AugmentedImages(images, identity)[0]
    assert np.array_equal(image.permute(1, 2, 0), values)


def test_points_are_fractions_of_the_result_and_absent_ones_are_a_half() -> None:
    points = PointTargets(
        torch.tensor([[[0.25, 0.75]], [[0.75, 0.25]], [[0.5, 0.5]]]), torch.tensor([[True], [True], [False]])
    )
    samples = AugmentedImages(source(3, size=(20, 10)), Cut(), points)
    placed = [(sample[2].tolist(), sample[3].tolist()) for sample in (samples[index] for index in range(3))]
    assert placed == [([[0.5, 0.75]], [True]), ([[0.5, 0.5]], [False]), ([[0.5, 0.5]], [False])]
    assert samples[0][2].dtype == torch.float32


def test_points_of_a_batch_are_where_the_crops_took_them() -> None:
    """One white pixel in each image, blown up: its middle is the point."""
    rng = np.random.default_rng(0)
    places = rng.integers(2, 14, (24, 2))

    def read(index: int) -> Image.Image:
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[places[index, 1], places[index, 0]] = 255
        return Image.fromarray(pixels)

    names = tuple(map(str, range(24)))
    images = ImageSource("dots", ("a", "b"), torch.zeros(24, dtype=torch.int64), read, names)
    clicks = PointTargets(
        torch.tensor((places + 0.5) / 16, dtype=torch.float32)[:, None], torch.ones(24, 1, dtype=torch.bool)
    )
    transform = train_transform(Augmentation(64, scale=(0.3, 1.0), interpolation="bilinear", vflip=0.5))
    loader = LoaderBatches(AugmentedImages(images, transform, clicks), 8, seed=1, workers=0)
    compared = 0
    for _, pictures, targets, points, present in WatchedBatches(loader, images, Console(quiet=True)).epoch(0):
        assert points.shape == (8, 1, 2)
        assert present.shape == (8, 1)
        assert targets.shape == (8,)
        for picture, point, there in zip(pictures, points[:, 0], present[:, 0], strict=True):
            if not there or not ((point > 0.15) & (point < 0.85)).all():
                continue
            rows, columns = torch.where(picture[0] > 0.5 * picture[0].max())
            middle = torch.stack((columns.double().mean() + 0.5, rows.double().mean() + 0.5)) / 64
            assert (middle - point).abs().max() < 1.5 / 64
            compared += 1
    assert compared > 8


def test_the_class_of_a_point_outside_the_crop_is_dropped_only_if_asked() -> None:
    targets = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    points = PointTargets(
        torch.tensor([[[0.2, 0.5], [0.9, 0.5], [0.5, 0.5], [0.5, 0.5]]]), torch.tensor([[True, True, False, False]])
    )
    images = source(1, targets=targets)
    kept, dropped = (AugmentedImages(images, Cut(), points, drop_outside=drop)[0] for drop in (False, True))
    assert kept[1].tolist() == [1, 1, 1, 0]
    assert dropped[1].tolist() == [1, 0, 1, 0]
    assert dropped[1].dtype == torch.float32
    assert dropped[3].tolist() == [True, False, False, False]
    assert images.targets.tolist() == [[1, 1, 1, 0]]


def test_points_that_do_not_belong_to_the_source_are_refused() -> None:
    points = PointTargets(torch.full((2, 1, 2), 0.5), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="points of 2 samples for 3 images"):
        AugmentedImages(source(3), identity, points)
    with pytest.raises(ValueError, match="for each sample and class"):
        AugmentedImages(source(2), identity, points, drop_outside=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_replaced_by_the_next_with_its_label_and_named_once(
    workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    watched = batches(20, 19, workers=workers)
    for epoch in range(2):
        seen = {}
        for indices, images, targets in watched.epoch(epoch):
            assert torch.equal(images[:, 0, 0, 0].long(), targets)
            seen.update(zip(indices.tolist(), targets.tolist(), strict=True))
        assert seen == {index: index if index != 19 else 0 for index in range(20)}
    watched.close()
    assert watched.broken == {19: "19.png (torn)"}
    assert capsys.readouterr().err.count("19.png (torn)") == 1


def test_more_than_one_broken_image_in_a_hundred_ends_the_run_with_counts() -> None:
    assert len(list(batches(300, 4, 5, 6).epoch(0))) == 38
    with pytest.raises(UserError, match=r"2 of 20 images cannot be read so far: \d+.png \(torn\)"):
        list(batches(20, 4, 5).epoch(0))


def test_a_source_without_a_readable_image_gives_up() -> None:
    with pytest.raises(UserError, match=r"3 images in a row cannot be read, first 1\.png"):
        AugmentedImages(source(3, 0, 1, 2), identity)[1]
    with pytest.raises(UserError, match=f"{PATIENCE} images in a row"):
        AugmentedImages(source(500, *range(499)), identity)[0]


def test_a_file_that_came_back_is_named_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    healthy = source(20)
    loader = LoaderBatches(AugmentedImages(source(20, 3), identity), 8, seed=0, workers=0)
    list(WatchedBatches(loader, healthy, Console(quiet=True)).epoch(0))
    assert "3.png (could not be read at first, but can be now)" in capsys.readouterr().err


def test_batches_go_on_from_a_position_as_they_would_have() -> None:
    watched = batches(40)
    whole = [batch[0].tolist() for batch in watched.epoch(1)]
    assert [batch[0].tolist() for batch in watched.epoch(1, 2)] == whole[2:]
    assert watched.steps_per_epoch == len(whole) == 5


def test_samples_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(10):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / f"{number}.png")
    from vtk_cli.data.classification_folders import FileReader

    names = tuple(f"{number}.png" for number in range(10))
    images = ImageSource("noise", ("a", "b"), torch.zeros(10, dtype=torch.int64), FileReader(tmp_path, names), names)
    points = PointTargets(torch.rand(10, 1, 2), torch.ones(10, 1, dtype=torch.bool))
    samples = AugmentedImages(images, train_transform(Augmentation(16, auto_augment="rand-m9-mstd0.5-inc1")), points)
    pickle.dumps(samples)

    def all_of(workers: int) -> list[list[torch.Tensor]]:
        loader = LoaderBatches(samples, 4, seed=5, workers=workers, repeats=2)
        found = [list(batch) for epoch in range(2) for batch in loader.epoch(epoch)]
        loader.close()
        return found

    for alone, shared in zip(all_of(0), all_of(2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))
