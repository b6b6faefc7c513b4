from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from vtk_cli.console import Console
from vtk_cli.data.digits import load_digits_split, load_glyphs
from vtk_cli.engine.processes.distributed import World
from vtk_cli.errors import UserError
from vtk_cli.search import images as search_images
from vtk_cli.search import seen_images as seen
from vtk_cli.search.batch_augmentation import BatchAugmentation
from vtk_cli.search.halves import Halves, read_halves, stratified_halves
from vtk_cli.search.image_options import ImageOptions
from vtk_cli.search.images import (
    calibration_tensors,
    open_search_images,
    scoring_tensors,
    training_batches,
)
from vtk_cli.search.treatments import crop_for, luma, on_batches, pixels_for

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, CPU)
QUIET = Console(quiet=True)


def opened(size=32, channels=3, **options):
    chosen = ImageOptions(**({"batch_size": 50} | options))
    return open_search_images(chosen, size=size, channels=channels, console=QUIET), chosen


def digits(size=32, channels=3, **options):
    return opened(size, channels, **options)[0]


def folder_of_images(root, per_class=6, side=40, broken=()):
    for split, count in (("train", per_class), ("val", 2)):
        for label, name in enumerate("ab"):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                values = np.random.default_rng([label, number]).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
                Image.fromarray(values).save(place / f"{number}.png")
                if split == "train" and (name, number) in broken:
                    (place / f"{number}.png").write_bytes(b"no image")
    return root


# The halves


def test_the_halves_share_every_class_equally_and_no_image():
    labels = np.repeat(np.arange(10), [10, 11, 12, 13, 3, 5, 7, 9, 2, 30])
    halves = stratified_halves(labels, seed=0)
    assert not {*halves.train} & {*halves.valid}
    assert sorted(halves.train + halves.valid) == list(range(len(labels)))
    assert len(halves.train) - len(halves.valid) in (0, 1)
    counts = [np.bincount(labels[list(half)], minlength=10) for half in (halves.train, halves.valid)]
    assert abs(counts[0] - counts[1]).max() <= 1


def test_another_seed_draws_other_halves_and_the_same_seed_the_same():
    labels = np.arange(100) % 5
    assert stratified_halves(labels, 1) == stratified_halves(labels, 1) != stratified_halves(labels, 2)


def test_a_written_split_is_read_back(tmp_path):
    halves = stratified_halves(np.arange(20) % 2, 0)
    halves.write(tmp_path / "split.json")
    assert read_halves(tmp_path / "split.json", 20) == halves


def test_the_released_form_of_a_split_file_is_read(tmp_path):
    path = tmp_path / "cifar-split.txt"
    path.write_text(json.dumps({"train": ["int", ["7", "0"]], "valid": ["int", ["3", "11"]]}))
    assert read_halves(path, 12) == Halves((0, 7), (3, 11))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"train": [], "valid": [1]}, "the half train is empty"),
        ({"train": [0], "valid": ["int", []]}, "the half valid is empty"),
        ({"train": [0, 1, 2], "valid": [1, 2, 3]}, "the halves overlap in 2 images, the first 1"),
        ({"train": [0, 10], "valid": [1]}, "the half train has image 10, the training images are 0 to 9"),
        ({"train": [0, -1], "valid": [1]}, "the half train has image -1, the training images are 0 to 9"),
        ({"train": [0, 0], "valid": [1]}, "the half train has images twice"),
        ({"train": [0, "x"], "valid": [1]}, "entry 1 of train is 'x', no number of an image"),
        ({"train": [True], "valid": [1]}, "entry 0 of train is True"),
        ({"train": 3, "valid": [1]}, "train is no list of numbers"),
        ({"xvalid": [0], "xtest": [1]}, r"does not name the halves train and valid \(it has xvalid, xtest\)"),
        ([1, 2], r"does not name the halves train and valid \(no object\)"),
    ],
)
def test_a_wrong_split_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as refused:
        read_halves(path, 10)
    assert "\n" not in str(refused.value)
    assert refused.value.where == str(path)


def test_text_that_is_no_json_is_refused_with_its_line(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"train": [1,\n 2')
    with pytest.raises(UserError, match="is not JSON") as refused:
        read_halves(path, 10)
    assert refused.value.where == f"{path}:2"


def test_one_image_cannot_be_halved():
    with pytest.raises(UserError, match="the half valid is empty"):
        stratified_halves(np.array([0]), 0)


# What networks see


def test_pixels_in_memory_are_those_of_the_digits():
    found, labels = scoring_tensors(digits(), device=CPU, limit=None, console=QUIET)
    source = load_digits_split("train")
    expected = (torch.from_numpy(source.images[list(digits().halves.valid)]).double() / 255 - 0.3) / 0.35
    order = np.argsort(digits().halves.valid)
    torch.testing.assert_close(found[:].double(), expected[order], rtol=0, atol=1e-5)
    assert labels.tolist() == source.labels[list(digits().halves.valid)].tolist()


def test_digits_of_16_pixels_are_drawn_from_their_source_and_grey():
    images = digits(16, channels=1)
    found, _ = scoring_tensors(images, device=CPU, limit=None, console=QUIET)
    ink = torch.from_numpy(load_glyphs("train").ink[list(images.halves.valid)])[:, None]
    expected = torch.nn.functional.interpolate(ink, (16, 16), mode="bilinear", align_corners=False)
    assert found[:].shape[1:] == (1, 16, 16)
    torch.testing.assert_close(found[:].double() * 0.35 + 0.3, expected, rtol=0, atol=0.5 / 255 + 1e-5)


def test_grey_is_the_same_before_and_after_normalising():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    pixels = pixels_for("digits", "digits", "auto", 4, grey=True)
    assert torch.allclose(pixels.normalised(images), (luma(images / 255) - 0.3) / 0.35, atol=1e-5)


@pytest.mark.parametrize(
    ("data", "augmentation", "wanted", "mean", "std"),
    [
        ("cifar10", "cifar", "auto", 125.3, 63.0),
        ("CIFAR-100", "cifar-cutout", "auto", 129.3, 68.2),
        ("ImageNet16-120", "cifar", "auto", 122.68, 63.22),
        ("flowers", "imagenet", "auto", 0.485 * 255, 0.229 * 255),
        ("imagenet", "imagenet-square", "auto", 0, 255),
        ("imagenet", "imagenet-square", "normalised", 0.485 * 255, 0.229 * 255),
        ("imagenet", "spos", "auto", 0, 1),
        ("cifar10", "cifar", "unit", 0, 255),
    ],
)
def test_moments_are_those_published_with_data_and_augmentation(data, augmentation, wanted, mean, std):
    red = torch.full((1, 3, 2, 2), 200, dtype=torch.uint8)
    found = pixels_for(data, augmentation, wanted, 2).normalised(red)[0, 0, 0, 0].item()
    assert found == pytest.approx((200 - mean) / std, rel=1e-5)


def test_evaluation_of_imagenet_resizes_to_256_for_224_and_small_images_are_not_cut():
    assert round(224 / pixels_for("x", "imagenet-square", "auto", 224).config.crop_pct) == 256
    assert pixels_for("x", "cifar", "auto", 32).config.crop_pct == 1.0


def test_the_retraining_of_darts_crops_squares_without_jitter_and_spos_with_it():
    square, spos = crop_for("imagenet-square", 224), crop_for("spos", 224)
    assert (square.ratio, square.scale, square.interpolation, square.hflip) == ((1, 1), (0.08, 1), "bilinear", 0.5)
    assert (square.color_jitter, spos.color_jitter, spos.ratio) == (0, 0.4, (3 / 4, 4 / 3))
    assert on_batches("imagenet-square", 224).lighting == 0.1


# Augmentation of batches


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_wrapping_shift_moves_the_whole_batch_alike_and_loses_nothing():
    images = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    seen_shifts = set()
    for seed in range(60):
        moved = BatchAugmentation(wrap=1).moved(images, generator(seed))
        match = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if torch.equal(moved, torch.roll(images, (down, right), (2, 3)))
        ]
        assert len(match) == 1
        seen_shifts.add(match[0])
    assert len(seen_shifts) == 9


def test_digits_move_by_half_a_pixel_of_their_source():
    assert [on_batches("digits", size).wrap for size in (16, 32, 64)] == [1, 2, 4]


def test_padded_crops_and_flips_equal_the_slow_way_one_image_at_a_time():
    images = torch.randint(1, 256, (64, 3, 8, 8), dtype=torch.uint8, generator=generator(1))
    moved = BatchAugmentation(padding=2, flip=True).moved(images, generator(2))
    ways = set()
    for image, out in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
        match = [
            (top, left, flipped)
            for top in range(5)
            for left in range(5)
            for flipped in (False, True)
            if torch.equal(out.flip(2) if flipped else out, padded[:, top : top + 8, left : left + 8])
        ]
        assert len(match) == 1
        ways.add(match[0])
    assert len({way[0] for way in ways}) == len({way[1] for way in ways}) == 5
    assert len({way[2] for way in ways}) == 2


def test_lighting_adds_one_colour_to_an_image_with_the_covariance_of_imagenets_colours():
    black = torch.zeros(20000, 3, 2, 2)
    lit = BatchAugmentation(lighting=0.1).lit(black, generator())
    assert torch.equal(lit, lit[:, :, :1, :1].expand_as(lit))
    vectors = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    values = torch.tensor([0.2175, 0.0188, 0.0045])
    expected = 0.01 * vectors @ torch.diag(values**2) @ vectors.T
    torch.testing.assert_close(torch.cov(lit[:, :, 0, 0].T), expected, rtol=0.05, atol=1e-6)


def test_a_hole_is_a_square_of_zeros_that_the_border_may_cut():
    ones = torch.ones(200, 1, 32, 32)
    holed = BatchAugmentation(hole=16).holed(ones, generator())
    sizes = {int((image == 0).sum()) for image in holed}
    assert max(sizes) == 256
    assert min(sizes) >= 64
    assert len(sizes) > 5


def test_no_augmentation_changes_nothing_and_draws_nothing():
    images, source = torch.rand(2, 3, 8, 8), generator()
    done = BatchAugmentation()
    assert done.holed(done.lit(done.moved(images, source), source), source) is images
    assert torch.equal(source.get_state(), generator().get_state())


# Batches


def test_every_image_of_the_half_comes_once_an_epoch_with_its_label():
    images, options = opened(augmentation="none")
    targets = images.part("train").targets
    came = list(training_batches(images, options, world=ALONE, console=QUIET).epoch(3, 0))
    indices = torch.cat([batch[0] for batch in came])
    assert sorted(indices.tolist()) == list(range(len(images.halves.train)))
    assert torch.equal(torch.cat([batch[2] for batch in came]), targets[indices])


@pytest.mark.parametrize("augmentation", ["digits", "cifar-cutout", "imagenet", "imagenet-square"])
def test_a_batch_is_the_same_wherever_an_epoch_is_taken_up(augmentation):
    images, options = opened(augmentation=augmentation, batch_size=200)
    whole = list(training_batches(images, options, world=ALONE, console=QUIET).epoch(1, 0))
    rest = list(training_batches(images, options, world=ALONE, console=QUIET).epoch(1, 2))
    assert len(whole) - 2 == len(rest) > 0
    for ours, theirs in zip(whole[2:], rest, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    other = next(training_batches(images, options, world=ALONE, console=QUIET).epoch(2, 0))
    assert not torch.equal(other[1], whole[0][1])


def test_the_whole_set_is_trained_on_where_it_is_asked_for():
    images, options = opened()
    batches = training_batches(images, options, world=ALONE, console=QUIET, part="whole")
    assert sum(len(batch[0]) for batch in batches.epoch(0, 0)) == 1437


def test_images_that_do_not_fit_into_memory_are_read_and_look_the_same(monkeypatch):
    images, options = opened(augmentation="none")
    resident = list(training_batches(images, options, world=ALONE, console=QUIET).epoch(0, 0))
    monkeypatch.setattr(search_images, "RESIDENT_BYTES", 1000)
    read = list(training_batches(images, options, world=ALONE, console=QUIET).epoch(0, 0))
    for ours, theirs in zip(resident, read, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("limit", ["FLOAT_BYTES", "RESIDENT_BYTES"])
def test_images_to_score_on_are_the_same_as_numbers_as_bytes_and_from_files(tmp_path, monkeypatch, limit):
    root = folder_of_images(tmp_path / "data")
    images = digits(16, data=str(root), augmentation="cifar", workers=2)
    numbers, labels = scoring_tensors(images, device=CPU, limit=None, console=QUIET)
    assert isinstance(numbers, torch.Tensor)
    monkeypatch.setattr(seen, "FLOAT_BYTES", 0)
    if limit == "RESIDENT_BYTES":
        monkeypatch.setattr(search_images, "RESIDENT_BYTES", 0)
    slices, same = scoring_tensors(images, device=CPU, limit=None, console=QUIET)
    assert isinstance(slices, seen.FromFiles if limit == "RESIDENT_BYTES" else seen.FromBytes)
    assert len(slices) == len(numbers) == len(labels) == 6
    assert torch.equal(labels, same)
    assert torch.equal(torch.cat([slices[0:4], slices[4:9]]), numbers)


def test_a_limit_draws_images_of_the_scoring_half_by_the_seed():
    images = digits()
    found, labels = scoring_tensors(images, device=CPU, limit=100, console=QUIET)
    again, _ = scoring_tensors(images, device=CPU, limit=100, console=QUIET)
    assert len(found) == len(labels) == 100
    assert torch.equal(found[:], again[:])
    assert len(labels.unique()) == 10
    other, _ = scoring_tensors(digits(seed=5), device=CPU, limit=100, console=QUIET)
    assert not torch.equal(found[:], other[:])


def test_no_image_to_score_on_is_refused():
    with pytest.raises(UserError, match="0 images are none to judge by"):
        scoring_tensors(digits(), device=CPU, limit=0, console=QUIET)


def test_calibration_images_are_of_the_half_for_weights_augmented_and_always_the_same():
    images = digits(augmentation="none")
    plain, labels = calibration_tensors(images, device=CPU, limit=128, console=QUIET)
    train = load_digits_split("train")
    known = {image.tobytes() for image in train.images[list(images.halves.train)]}
    back = (plain * 0.35 + 0.3).mul(255).round().to(torch.uint8).numpy()
    assert all(image.tobytes() in known for image in back)
    assert (plain.shape, labels.shape) == ((128, 3, 32, 32), (128,))
    shifted = [calibration_tensors(digits(), device=CPU, limit=128, console=QUIET)[0] for _ in range(2)]
    assert torch.equal(*shifted)
    assert not torch.equal(shifted[0], plain)
    assert len(calibration_tensors(images, device=CPU, limit=10**6, console=QUIET)[0]) == len(images.halves.train)


@pytest.mark.parametrize("augmentation", ["imagenet-lighting", "spos", "cifar"])
def test_a_folder_of_images_is_trained_and_calibrated_on(tmp_path, augmentation):
    root = folder_of_images(tmp_path / "data")
    images, options = opened(24, data=str(root), augmentation=augmentation, workers=0, batch_size=4)
    batches = training_batches(images, options, world=ALONE, console=QUIET)
    shapes = [tuple(batch[1].shape) for batch in batches.epoch(0, 0)]
    assert sum(shape[0] for shape in shapes) == 6
    assert all(shape[1:] == (3, 24, 24) for shape in shapes)
    assert calibration_tensors(images, device=CPU, limit=5, console=QUIET)[0].shape == (5, 3, 24, 24)


def test_a_broken_file_is_named_and_the_next_image_takes_its_place(tmp_path):
    root = folder_of_images(tmp_path / "data", broken={("a", 2)})
    images, options = opened(16, data=str(root), augmentation="cifar", workers=0, batch_size=4)
    batches = training_batches(images, options, world=ALONE, console=QUIET, part="whole")
    assert sum(len(batch[0]) for batch in batches.epoch(0, 0)) == 12
    assert list(batches.broken) == [2]
    root = folder_of_images(tmp_path / "worse", broken={("a", 2), ("b", 0), ("b", 1)})
    images, options = opened(16, data=str(root), augmentation="cifar", workers=0, batch_size=4)
    with pytest.raises(UserError, match="of 12 images cannot be read"):
        training_batches(images, options, world=ALONE, console=QUIET, part="whole")


def test_a_file_that_breaks_while_scoring_is_named(tmp_path, monkeypatch):
    root = folder_of_images(tmp_path / "data", broken={("a", number) for number in range(6)})
    monkeypatch.setattr(search_images, "RESIDENT_BYTES", 0)
    images = digits(16, data=str(root), augmentation="cifar", workers=1)
    slices, _ = scoring_tensors(images, device=CPU, limit=None, console=QUIET)
    with pytest.raises(UserError, match=r"not an image") as refused:
        slices[0:6]
    assert str(root) in refused.value.where


def test_images_of_several_labels_are_refused():
    with pytest.raises(UserError, match="several labels"):
        digits(data="digits-coco", augmentation="cifar")


def test_a_split_file_of_other_images_is_refused(tmp_path):
    Halves((0, 1), (2, 5000)).write(tmp_path / "split.json")
    with pytest.raises(UserError, match="the half valid has image 5000, the training images are 0 to 1436"):
        digits(split_file=tmp_path / "split.json")


def test_the_options_import_no_torch():
    code = "import sys, vtk_cli.search.retrain_options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
