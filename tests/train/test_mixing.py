from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from timm.data.mixup import Mixup
from torch import Tensor

from vtk_cli.engine.seeds import sample_rng
from vtk_cli.train.mixing import Mixed, Mixer

CLASSES, SIDE = 5, 12


def batch(samples: int) -> tuple[Tensor, Tensor]:
    """Images that say whose they are: image i is i + 1 everywhere."""
    images = torch.arange(1.0, samples + 1)[:, None, None, None].expand(samples, 3, SIDE, SIDE).clone()
    return images, torch.arange(samples) % CLASSES


def mixed_with(mixer: Mixer, samples: int, seed: int, points: Tensor | None = None) -> Mixed:
    images, targets = batch(samples)
    present = None if points is None else torch.ones(points.shape[:2], dtype=torch.bool)
    return mixer(images, targets, points, present, seed=seed)


def own_shares(mixed: Mixed) -> Tensor:
    """(B, H, W): how much of each pixel is the sample's own, read off images that say whose they are."""
    count = len(mixed.images)
    own = torch.arange(1.0, count + 1)[:, None, None]
    partner = own.flip(0)
    return (mixed.images[:, 0] - partner) / (own - partner)


def test_without_mixing_targets_are_made_dense_and_smoothed() -> None:
    images, targets = batch(3)
    mixed = Mixer(CLASSES, smoothing=0.1)(images.clone(), targets, seed=0)
    assert torch.equal(mixed.images, images)
    expected = torch.full((3, CLASSES), 0.02)
    expected[range(3), targets] = 0.92
    torch.testing.assert_close(mixed.targets, expected)
    assert mixed.points is None


def test_several_labels_are_smoothed_towards_one_half() -> None:
    images, _ = batch(1)
    hot = torch.tensor([[1.0, 0.0, 1.0, 0.0, 0.0]])
    mixed = Mixer(CLASSES, smoothing=0.2, multi_label=True)(images, hot, seed=0)
    torch.testing.assert_close(mixed.targets, torch.tensor([[0.9, 0.1, 0.9, 0.1, 0.1]]))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_targets_and_shares_are_the_share_of_the_pixels(mode: str, mixup: float, cutmix: float) -> None:
    mixer = Mixer(CLASSES, mixup_alpha=mixup, cutmix_alpha=cutmix, mode=mode)
    points = torch.full((4, 1, 2), 0.5)
    for seed in range(6):
        mixed = mixed_with(mixer, 4, seed, points)
        assert mixed.points is not None
        share = own_shares(mixed).mean(dim=(1, 2))
        torch.testing.assert_close(mixed.points.share[:, 0], share, atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed.points.share.sum(dim=1), torch.ones(4))
        torch.testing.assert_close(mixed.targets[range(4), torch.arange(4) % CLASSES], share, atol=1e-5, rtol=0)
        torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(4))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_after_cutmix_a_point_is_present_where_its_own_image_shows(mode: str) -> None:
    mixer = Mixer(CLASSES, cutmix_alpha=1.0, mode=mode)
    generator = torch.Generator().manual_seed(0)
    seen = []
    for seed in range(20):
        points = torch.rand(4, 3, 2, generator=generator)
        mixed = mixed_with(mixer, 4, seed, points)
        assert mixed.points is not None
        own = own_shares(mixed)
        for sample in range(4):
            for place, source in enumerate((sample, 3 - sample)):
                for number, (x, y) in enumerate(points[source].tolist()):
                    shows = own[sample, int(y * SIDE), int(x * SIDE)].item()
                    expected = round(shows if place == 0 else 1 - shows)
                    assert mixed.points.present[sample, place, number] == expected
                    seen.append(expected)
                assert torch.equal(mixed.points.points[sample, place], points[source])
    assert 0 < np.mean(seen) < 1


def test_after_mixup_both_points_are_present() -> None:
    mixed = mixed_with(Mixer(CLASSES, mixup_alpha=0.8), 6, 3, torch.rand(6, 2, 2))
    assert mixed.points is not None
    assert bool((mixed.points.present == 1).all())
    assert 0 < mixed.points.share[0, 0] < 1


def test_a_point_on_the_far_edge_belongs_to_the_last_pixel() -> None:
    mixed = mixed_with(Mixer(CLASSES, cutmix_alpha=1.0), 4, 1, torch.ones(4, 1, 2))
    assert mixed.points is not None
    own = own_shares(mixed)[:, -1, -1].round()
    assert torch.equal(mixed.points.present[:, 0, 0], own)


def test_unmixed_points_count_fully_and_have_no_partner() -> None:
    mixed = mixed_with(Mixer(CLASSES), 4, 0, torch.rand(4, 1, 2))
    assert mixed.points is not None
    assert torch.equal(mixed.points.share, torch.tensor([[1.0, 0.0]]).expand(4, 2))
    assert torch.equal(mixed.points.present[:, :, 0], torch.tensor([[1.0, 0.0]]).expand(4, 2))


def test_absent_points_stay_absent() -> None:
    images, targets = batch(4)
    present = torch.tensor([[True], [False], [True], [False]])
    mixed = Mixer(CLASSES, mixup_alpha=0.8)(images, targets, torch.full((4, 1, 2), 0.5), present, seed=0)
    assert mixed.points is not None
    assert mixed.points.present[:, 0, 0].tolist() == [1, 0, 1, 0]
    assert mixed.points.present[:, 1, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_the_sample_in_the_middle_of_an_odd_batch_stays_as_it_is(mode: str) -> None:
    mixed = mixed_with(Mixer(CLASSES, mixup_alpha=0.8, mode=mode), 5, 3, torch.rand(5, 1, 2))
    assert torch.equal(mixed.images[2], torch.full((3, SIDE, SIDE), 3.0))
    assert mixed.targets[2].tolist() == [0, 0, 1, 0, 0]
    assert not torch.equal(mixed.images[0], torch.full((3, SIDE, SIDE), 1.0))
    assert mixed.points is not None
    assert mixed.points.share[2].tolist() == [1, 0]
    assert mixed.points.present[2, :, 0].tolist() == [1, 0]


def test_one_coefficient_a_batch_mixes_as_timm_does() -> None:
    images, targets = batch(6)
    with sample_rng(9):
        expected = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=CLASSES, label_smoothing=0.1)(images, targets)
    mixed = mixed_with(Mixer(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0, smoothing=0.1), 6, 9)
    assert torch.equal(mixed.images, expected[0])
    assert torch.equal(mixed.targets, expected[1])


def test_each_pair_and_each_element_has_a_coefficient_of_its_own() -> None:
    for mode, distinct in (("batch", 1), ("pair", 4), ("elem", 8)):
        shares = own_shares(mixed_with(Mixer(CLASSES, mixup_alpha=0.8, mode=mode), 8, 3)).mean(dim=(1, 2))
        assert len({round(share, 4) for share in shares.tolist()}) == distinct


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_batches_of_every_size_are_mixed(samples: int) -> None:
    mixed = mixed_with(Mixer(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0), samples, 0, torch.rand(samples, 1, 2))
    assert mixed.targets.shape == (samples, CLASSES)


def test_the_same_seed_mixes_alike_and_draws_from_no_generator() -> None:
    mixer = Mixer(CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0, mode="elem")
    first = mixed_with(mixer, 8, 7)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    second, other = mixed_with(mixer, 8, 7), mixed_with(mixer, 8, 8)
    assert torch.equal(first.images, second.images)
    assert not torch.equal(first.images, other.images)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
