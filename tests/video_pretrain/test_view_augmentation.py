"""Views of clips: every frame alike, in the published order, from one generator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.view_augmentation import (
    ViewAugmentation,
    ViewDraw,
    blurred,
    check_policy,
    scaled_size,
    turned_hue,
)

AUGMENT = ViewAugmentation(
    side=16,
    crop="random-resized",
    area=(0.2, 0.766),
    aspect=4 / 3,
    short_side=(20, 30),
    hflip=0.5,
    jitter=0.6,
    hue=0.15,
    jitter_prob=0.8,
    gray_prob=0.2,
    blur_prob=0.5,
    blur=(0.1, 2.0),
    mean=0.45,
    std=0.225,
)
SHORT_SIDE = dataclasses.replace(AUGMENT, crop="short-side")
POLICY = dataclasses.replace(AUGMENT, policy="rand-m9-mstd0.5-inc1")
PLAIN = ViewDraw((), gray=False, blur=None, box=(2, 3, 20, 18), resized=None, flip=False)


def clip(frames: int = 5, height: int = 24, width: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=generator)


def draws(augment: ViewAugmentation, count: int) -> list[ViewDraw]:
    generator = np.random.default_rng(0)
    return [augment.draw(24, 32, generator) for _ in range(count)]


@pytest.mark.parametrize("augment", [AUGMENT, SHORT_SIDE, POLICY])
def test_a_clip_of_one_picture_stays_one_picture(augment):
    still = clip(1).expand(5, -1, -1, -1)
    for draw in draws(augment, 12):
        view = augment.apply(still, draw)
        assert (view == view[:, :1]).all()


@pytest.mark.parametrize("augment", [AUGMENT, SHORT_SIDE, POLICY])
def test_a_frames_view_depends_on_that_frame_alone(augment):
    given = clip()
    order = torch.tensor([3, 0, 4, 2, 1])
    for draw in draws(augment, 6):
        view = augment.apply(given, draw)
        assert view.shape == (3, 5, 16, 16)
        torch.testing.assert_close(augment.apply(given[order], draw), view[:, order])
        torch.testing.assert_close(augment.apply(given[2:3], draw), view[:, 2:3])


def test_steps_come_in_the_published_order():
    draw = ViewDraw(
        (("hue", 0.1), ("brightness", 1.5), ("saturation", 0.5), ("contrast", 1.4)),
        gray=True,
        blur=1.2,
        box=(2, 3, 20, 18),
        resized=None,
        flip=True,
    )
    frames = clip().permute(0, 3, 1, 2).float() / 255
    frames = F.adjust_brightness(F.adjust_hue(frames, 0.1), 1.5)
    frames = F.adjust_contrast(F.adjust_saturation(frames, 0.5), 1.4)
    frames = F.gaussian_blur(F.rgb_to_grayscale(frames, 3), [9, 9], [1.2, 1.2])
    frames = (frames - 0.45) / 0.225
    frames = F.resize(frames[..., 2:22, 3:21], [16, 16], antialias=True).flip(-1)
    torch.testing.assert_close(AUGMENT.apply(clip(), draw), frames.transpose(0, 1))


def test_the_order_of_the_colour_changes_is_random():
    orders = {tuple(name for name, _ in draw.jitter) for draw in draws(AUGMENT, 300) if draw.jitter}
    assert len(orders) == 24


def test_each_step_is_done_as_often_as_its_chance_and_as_strongly_as_its_range():
    drawn = draws(AUGMENT, 4000)
    for share, chance in (
        (np.mean([bool(draw.jitter) for draw in drawn]), 0.8),
        (np.mean([draw.gray for draw in drawn]), 0.2),
        (np.mean([draw.blur is not None for draw in drawn]), 0.5),
        (np.mean([draw.flip for draw in drawn]), 0.5),
    ):
        assert abs(share - chance) < 3.5 * (chance * (1 - chance) / 4000) ** 0.5
    values = [dict(draw.jitter) for draw in drawn if draw.jitter]
    for name, least, most in (("brightness", 0.4, 1.6), ("contrast", 0.4, 1.6), ("hue", -0.15, 0.15)):
        found = [value[name] for value in values]
        assert least <= min(found) < least + 0.01 * (most - least) * 2
        assert most >= max(found) > most - 0.01 * (most - least) * 2
    sigmas = [draw.blur for draw in drawn if draw.blur is not None]
    assert 0.1 <= min(sigmas) < 0.12
    assert 1.98 < max(sigmas) <= 2


def test_parts_have_the_area_and_shape_that_were_asked_for_and_lie_within():
    boxes = np.array([draw.box for draw in draws(dataclasses.replace(AUGMENT, area=(0.2, 0.5)), 2000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all()  # noqa: PT018
    assert (top + height).max() == 24
    assert (left + width).max() == 32
    share, ratio = height * width / (24 * 32), width / height
    assert 0.17 < share.min() < 0.25
    assert 0.45 < share.max() < 0.55
    assert 0.7 < ratio.min() < 0.8
    assert 1.28 < ratio.max() < 1.45


def test_a_part_that_never_fits_is_the_middle():
    augment = dataclasses.replace(AUGMENT, area=(0.99, 1.0), aspect=1.01)
    assert augment.draw(10, 100, np.random.default_rng(0)).box == (0, 45, 10, 10)


def test_short_sides_are_drawn_with_both_ends_and_crops_reach_every_corner():
    drawn = draws(SHORT_SIDE, 3000)
    short = [min(draw.resized) for draw in drawn if draw.resized]
    assert (min(short), max(short)) == (20, 30)
    assert all(draw.resized == scaled_size(24, 32, min(draw.resized)) for draw in drawn if draw.resized)
    assert {draw.box[0] for draw in drawn if draw.resized == (20, 27)} == set(range(5))
    assert {draw.box[1] for draw in drawn if draw.resized == (20, 27)} == set(range(12))


def test_a_flip_mirrors_the_view_and_nothing_else():
    flipped = dataclasses.replace(PLAIN, flip=True)
    torch.testing.assert_close(AUGMENT.apply(clip(), flipped), AUGMENT.apply(clip(), PLAIN).flip(-1))


def test_without_resizing_a_view_is_the_normalised_pixels():
    plain = dataclasses.replace(PLAIN, box=(1, 2, 16, 16))
    expected = (clip()[:, 1:17, 2:18].float() / 255 - 0.45) / 0.225
    torch.testing.assert_close(AUGMENT.apply(clip(), plain), expected.permute(3, 0, 1, 2))


@pytest.mark.parametrize("turn", [-0.5, -0.15, 0.0, 0.1, 0.5])
def test_hues_turn_as_torchvision_turns_them(turn):
    frames = clip(4).permute(0, 3, 1, 2).float() / 255
    frames[0] = frames[0, :1]  # grey: there is no hue
    frames[1] = (frames[1] * 2).round() / 2  # channels that are equal
    torch.testing.assert_close(turned_hue(frames, turn), F.adjust_hue(frames, turn))


def test_a_third_of_a_turn_makes_red_green():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(turned_hue(red, 1 / 3).flatten(), torch.tensor([0.0, 1.0, 0.0]))


def test_a_blur_does_not_reach_the_next_frame_and_keeps_a_flat_one():
    frames = torch.zeros(3, 3, 12, 12)
    frames[1] = 1.0
    found = blurred(frames, 2.0)
    assert (found[[0, 2]] == 0).all()
    torch.testing.assert_close(found[1], torch.ones(3, 12, 12))
    assert blurred(torch.rand(2, 3, 1, 9), 2.0).shape == (2, 3, 1, 9)


def test_the_same_generator_draws_the_same_views():
    assert draws(POLICY, 20) == draws(POLICY, 20)
    draw = draws(POLICY, 1)[0]
    assert torch.equal(POLICY.apply(clip(), draw), POLICY.apply(clip(), draw))


def test_what_is_no_policy_is_refused():
    for name in ("nonsense", "augmix-m3", "rand-x9"):
        with pytest.raises(UserError, match="no RandAugment policy"):
            check_policy(name)
    check_policy("rand-m20-mstd0.5-inc1")
