"""Where crops, flips, shifts and policies take a point: the dot drawn on it is found there afterwards."""

from __future__ import annotations

import math
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import auto_augment as timm_policies
from timm.data import create_transform
from torchvision.transforms import functional as F

from vtk_cli.data.augmentation import Augmentation, Crop, Transform, cut, eval_transform, resize, train_transform
from vtk_cli.data.augmentation_policy import GEOMETRIC, carried, posterized
from vtk_cli.data.pointed import PointedImage, without_points
from vtk_cli.engine.seeds import sample_rng
from vtk_cli.errors import UserError

RADIUS = 5


def pointed(size: tuple[int, int], *points: tuple[float, float]) -> PointedImage:
    return PointedImage(Image.new("RGB", size), np.array(points, float).reshape(-1, 2), np.ones(len(points), bool))


def dotted(size: tuple[int, int], x: float, y: float, radius: float = RADIUS) -> PointedImage:
    """A smooth white dot on black, and the point at its centre."""
    columns, rows = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (radius / 2) ** 2))
    image = Image.fromarray(np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2))
    return PointedImage(image, np.array([[x, y]]), np.ones(1, bool))


def found(image: Image.Image) -> tuple[float, float]:
    """The centroid of what is bright."""
    grey = np.asarray(image, float).mean(axis=2)
    grey = np.where(grey > 0.3 * grey.max(), grey, 0)
    columns, rows = np.meshgrid(np.arange(image.width) + 0.5, np.arange(image.height) + 0.5)
    return float((grey * columns).sum() / grey.sum()), float((grey * rows).sum() / grey.sum())


def is_well_inside(done: PointedImage, margin: float) -> bool:
    x, y = done.points[0]
    return bool(done.present[0]) and all(
        margin < value < side - margin for value, side in zip((x, y), done.image.size, strict=True)
    )


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth random picture."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def drawn(transform: Transform, sample: PointedImage, seed: int) -> PointedImage:
    with sample_rng(seed):
        return transform(sample)


def fraction(done: PointedImage) -> list[float]:
    return (done.points / done.image.size)[0].tolist()


def mirrored(sample: PointedImage, axis: int = 0) -> PointedImage:
    flip = {"hflip": 1.0 - axis, "vflip": float(axis)}
    width, height = sample.image.size
    assert width == height
    return train_transform(Augmentation(width, crop="shift", **flip))(sample)


def test_the_closed_form_of_a_crop_is_kept() -> None:
    whole = pointed((400, 200), (200, 100))
    assert fraction(cut(whole, 100, 50, 200, 100)) == [0.5, 0.5]
    left = cut(whole, 150, 50, 200, 100)
    assert fraction(left) == [0.25, 0.5]
    assert left.present.all()
    assert fraction(mirrored(resize(left, 200, 200, Image.Resampling.BILINEAR))) == [0.75, 0.5]
    outside = cut(whole, 250, 50, 150, 100)
    assert not outside.present.any()


def test_a_point_on_the_border_of_the_crop_is_inside() -> None:
    whole = pointed((400, 200), (100, 50), (300, 150), (99.9, 60), (300.1, 60))
    assert cut(whole, 100, 50, 200, 100).present.tolist() == [True, True, False, False]


def test_a_point_that_left_stays_absent_when_its_place_comes_back() -> None:
    whole = pointed((100, 100), (10, 10))
    back = cut(cut(whole, 20, 20, 50, 50), -20, -20, 100, 100)
    assert back.points.tolist() == [[10, 10]]
    assert not back.present.any()


@pytest.mark.parametrize("axis", [0, 1])
def test_flipping_twice_changes_nothing(axis: int) -> None:
    sample = PointedImage(noise(40, 40), np.array([[3.25, 31.5]]), np.ones(1, bool))
    once = mirrored(sample, axis)
    twice = mirrored(once, axis)
    assert once.points[0, axis] == 40 - sample.points[0, axis]
    assert once.points[0, 1 - axis] == sample.points[0, 1 - axis]
    assert np.array_equal(np.asarray(once.image), np.flip(np.asarray(sample.image), 1 - axis))
    assert twice.points.tolist() == sample.points.tolist()
    assert np.array_equal(np.asarray(twice.image), np.asarray(sample.image))


def test_the_given_points_and_flags_are_left_as_they_are() -> None:
    sample = pointed((60, 40), (5, 5), (50, 30))
    transform = train_transform(Augmentation(32, hflip=1.0, vflip=1.0, auto_augment="rand-m10-n4"))
    for seed in range(20):
        drawn(transform, sample, seed)
    assert sample.points.tolist() == [[5, 5], [50, 30]]
    assert sample.present.all()


@pytest.mark.parametrize("crop", ["random-resized", "shift", "simple"])
def test_a_dot_is_found_where_crop_and_flips_take_its_point(crop: Crop) -> None:
    augmentation = Augmentation(96, crop=crop, scale=(0.2, 1.0), shift=20, hflip=0.5, vflip=0.5)
    transform = train_transform(augmentation)
    compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        done = drawn(transform, dotted((160, 120), rng.uniform(10, 150), rng.uniform(10, 110)), seed)
        assert done.image.size == (96, 96)
        if is_well_inside(done, 14):
            compared += 1
            assert math.dist(found(done.image), done.points[0]) < 1
    assert compared > 15


@pytest.mark.parametrize("name", sorted(timm_policies.NAME_TO_OP))
def test_a_dot_is_found_where_each_operation_of_timm_takes_its_point(name: str) -> None:
    """Also that no operation is missing from those that move pixels."""
    hparams = {"translate_const": 43, "img_mean": (0, 0, 0), "magnitude_std": math.inf}
    operation = timm_policies.AugmentOp(name, prob=1.0, magnitude=9, hparams=hparams)
    moves = operation.aug_fn in GEOMETRIC
    operation.aug_fn = carried(posterized if name.startswith("Posterize") else operation.aug_fn)
    compared, moved = 0, 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        sample = dotted((96, 96), rng.uniform(30, 66), rng.uniform(30, 66))
        done = drawn(operation, sample, seed)
        if not is_well_inside(done, 10):
            continue
        image = done.image
        if np.asarray(image).mean() > 128:  # inverted
            image = Image.fromarray(255 - np.asarray(image))
        if np.asarray(image).max() < 20 or np.asarray(image).mean() > 60:  # solarised or posterised away, or equalised
            continue
        compared += 1
        moved += math.dist(done.points[0], sample.points[0]) > 3
        assert math.dist(found(image), done.points[0]) < 1.5
    assert compared > 3
    assert (moved > 1) == moves


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m7-n4-tweights", "v0", "original-mstd0.5", "3a"])
def test_a_dot_is_found_where_a_whole_pipeline_takes_its_point(policy: str) -> None:
    transform = train_transform(
        Augmentation(128, scale=(0.3, 1.0), auto_augment=policy, color_jitter=0.3, mean=(0, 0, 0))
    )
    distances = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        done = drawn(transform, dotted((200, 150), rng.uniform(20, 180), rng.uniform(20, 130), 8), seed)
        grey = np.asarray(done.image, float).mean(axis=2)
        bright = grey > 0.3 * grey.max()
        if is_well_inside(done, 24) and grey.max() > 60 and bright.mean() < 0.05 and np.median(grey) < 20:
            distances.append(math.dist(found(done.image), done.points[0]))
    assert len(distances) > 12
    # A dot may be cut by the border in one operation and moved back by the next: its middle is then elsewhere.
    assert np.mean(np.array(distances) < 2) > 0.9


@pytest.mark.parametrize("degrees", [0, 17.5, 90, 180, 270, -45, 360])
def test_a_rotation_takes_points_about_the_centre(degrees: float) -> None:
    rotate = carried(timm_policies.rotate)
    sample = dotted((64, 64), 40.5, 22.25)
    done = rotate(sample, degrees, resample=Image.Resampling.BILINEAR)
    offset = complex(40.5 - 32, -(22.25 - 32)) * np.exp(1j * math.radians(degrees))
    assert done.points[0] == pytest.approx([32 + offset.real, 32 - offset.imag])
    assert math.dist(found(done.image), done.points[0]) < 0.3


@pytest.mark.parametrize("policy", ["", "rand-m9-mstd0.5-inc1", "rand-m9-n3-tweights", "original", "v0r-mstd0.5", "3a"])
@pytest.mark.parametrize("interpolation", ["bicubic", "random"])
def test_the_pixels_are_those_of_timm(policy: str, interpolation: Any) -> None:
    theirs = create_transform(
        48,
        is_training=True,
        vflip=0.3,
        color_jitter=0.3,
        auto_augment=policy or None,
        interpolation=interpolation,
        use_prefetcher=True,
    )
    ours = train_transform(
        Augmentation(48, vflip=0.3, color_jitter=0.3, auto_augment=policy, interpolation=interpolation)
    )
    for seed in range(25):
        image = noise(90 + seed, 70, seed)
        with sample_rng(seed):
            expected = theirs(image)
        bare = drawn(ours, without_points(image), seed)
        carrying = drawn(ours, PointedImage(image, np.array([[9.0, 20.0]]), np.ones(1, bool)), seed)
        assert np.array_equal(np.asarray(bare.image).transpose(2, 0, 1), expected)
        assert np.array_equal(np.asarray(bare.image), np.asarray(carrying.image))


@pytest.mark.parametrize("size", [(90, 70), (70, 91), (33, 33), (32, 64), (5, 3), (1, 1)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875, 0.95])
def test_the_centre_crop_is_timms(size: tuple[int, int], crop_pct: float) -> None:
    image = noise(*size)
    theirs = create_transform(32, is_training=False, interpolation="bicubic", crop_pct=crop_pct, use_prefetcher=True)
    done = eval_transform(32, crop_pct, "bicubic")(without_points(image))
    assert np.array_equal(np.asarray(done.image).transpose(2, 0, 1), theirs(image))


@pytest.mark.parametrize("size", [(160, 120), (96, 200)])
def test_a_dot_is_found_where_the_centre_crop_takes_its_point(size: tuple[int, int]) -> None:
    done = eval_transform(64, 0.875)(dotted(size, size[0] / 2 + 12, size[1] / 2 - 9))
    assert done.present.all()
    assert math.dist(found(done.image), done.points[0]) < 0.5


@pytest.mark.parametrize("crop", ["random-resized", "shift", "simple"])
@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (3000, 1), (2, 1)])
def test_an_image_of_one_pixel_or_one_line_is_upscaled(crop: Crop, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (10, 200, 30))
    sample = PointedImage(image, np.array([[size[0] / 2, size[1] / 2]]), np.ones(1, bool))
    for transform in (train_transform(Augmentation(24, crop=crop)), eval_transform(24, 0.9)):
        done = drawn(transform, sample, 0)
        assert done.image.size == (24, 24)
        assert (np.asarray(done.image) == (10, 200, 30)).all()


def test_a_shift_moves_the_whole_image_and_fills_what_it_uncovers() -> None:
    image = noise(20, 20)
    transform = train_transform(Augmentation(20, crop="shift", shift=3, fill=7, hflip=0.0))
    seen = set()
    for seed in range(200):
        done = drawn(transform, PointedImage(image, np.array([[10.0, 10.0]]), np.ones(1, bool)), seed)
        right, down = (done.points[0] - 10).astype(int).tolist()
        seen.add((right, down))
        expected = F.affine(image, 0.0, [right, down], 1.0, [0.0], fill=[7, 7, 7])
        assert np.array_equal(np.asarray(done.image), np.asarray(expected))
    assert {abs(value) for shift in seen for value in shift} == {0, 1, 2, 3}
    assert len(seen) > 40


def test_the_simple_crop_is_torchvisions_of_the_reflected_image() -> None:
    image = noise(41, 33)
    resized = F.resize(image, 24, F.InterpolationMode.BICUBIC)
    padded = F.pad(resized, 4, padding_mode="reflect")
    transform = train_transform(Augmentation(24, crop="simple", hflip=0.0))
    seen = set()
    for seed in range(60):
        done = drawn(transform, PointedImage(image, np.array([[41.0, 33.0]]) / 2, np.ones(1, bool)), seed)
        left, top = (np.array(resized.size) / 2 + 4 - done.points[0]).round(3)
        seen.add((left, top))
        expected = F.crop(padded, round(top), round(left), 24, 24)
        assert np.array_equal(np.asarray(done.image), np.asarray(expected))
    assert min(left for left, _ in seen) == 0
    assert max(top for _, top in seen) == 8


def test_posterising_to_no_bits_leaves_black() -> None:
    image = noise(20, 20)
    assert not np.asarray(posterized(image, 0)).any()
    assert set(np.unique(np.asarray(posterized(image, 1)))) == {0, 128}
    assert np.array_equal(np.asarray(posterized(image, 8)), np.asarray(image))


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m1", "v0", "original", "originalr", "augmix-m9"])
def test_no_magnitude_of_a_policy_stops_training(policy: str) -> None:
    transform = train_transform(Augmentation(24, auto_augment=policy))
    for seed in range(150):
        drawn(transform, without_points(noise(30, 30)), seed)


def test_a_policy_that_timm_does_not_know_is_the_users_mistake() -> None:
    for policy in ("rnad-m9", "rand-x9", "rand-mfoo9", "v7", "augmix-z3"):
        with pytest.raises(UserError, match=r"--auto-augment: no augmentation policy"):
            train_transform(Augmentation(32, auto_augment=policy))


def test_augmix_is_refused_where_a_point_would_be_in_several_places() -> None:
    transform = train_transform(Augmentation(32, auto_augment="augmix-m5-w4-d2"))
    assert drawn(transform, without_points(noise(40, 40)), 0).image.size == (32, 32)
    with pytest.raises(UserError, match="several places"):
        drawn(transform, pointed((40, 40), (3, 3)), 0)


def test_a_transform_travels_to_a_worker_process() -> None:
    transform = train_transform(Augmentation(32, auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.2))
    sample = PointedImage(noise(50, 40), np.array([[20.0, 20.0]]), np.ones(1, bool))
    there = pickle.loads(pickle.dumps(transform))  # noqa: S301
    for seed in range(5):
        here, away = drawn(transform, sample, seed), drawn(there, sample, seed)
        assert np.array_equal(np.asarray(here.image), np.asarray(away.image))
        assert np.array_equal(here.points, away.points)


def test_all_draws_come_from_the_global_generators() -> None:
    transform = train_transform(Augmentation(32, auto_augment="rand-m9-mstd0.5-inc1", interpolation="random"))
    image = noise(50, 40)
    results = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        results.append([np.asarray(transform(without_points(image)).image) for _ in range(5)])
    assert all(np.array_equal(first, second) for first, second in zip(*results, strict=True))
    assert not np.array_equal(results[0][0], results[0][1])
