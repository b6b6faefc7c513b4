"""FreqAug: chances, what stays untouched, invariances, and what it must come after."""

from __future__ import annotations

import pytest
import torch

from vtk_cli.errors import UserError
from vtk_cli.video_pretrain.freqaug import FreqAug
from vtk_kernels.frequency import high, low

T_HIGH, S_HIGH = high(0.1), high(0.05)
KINDS = {
    "t": FreqAug("t", T_HIGH, probability=1.0),
    "s": FreqAug("s", None, S_HIGH, probability=1.0),
    "st": FreqAug("st", T_HIGH, S_HIGH, probability=1.0),
    "joint": FreqAug("joint", T_HIGH, S_HIGH, probability=1.0),
    "diff": FreqAug("diff", probability=1.0),
}
ALL = torch.ones(2, dtype=torch.bool)


def clips(batch: int = 2, frames: int = 8, side: int = 20) -> torch.Tensor:
    return torch.randn(batch, 3, frames, side, side + 4, generator=torch.Generator().manual_seed(0))


def filtered(kind: str, given: torch.Tensor) -> torch.Tensor:
    return KINDS[kind](given, ALL[: len(given)])


@pytest.mark.parametrize("kind", KINDS)
def test_views_that_are_not_drawn_pass_bit_by_bit(kind):
    given = clips()
    found = KINDS[kind](given, torch.tensor([True, False]))
    assert torch.equal(found[1], given[1])
    assert not torch.equal(found[0], given[0])
    assert torch.equal(KINDS[kind](given, torch.zeros(2, dtype=torch.bool)), given)


def test_a_chance_of_0_draws_none_and_of_1_all():
    generator = torch.Generator().manual_seed(0)
    assert not FreqAug("t", T_HIGH, probability=0.0).draw(10_000, generator).any()
    assert FreqAug("t", T_HIGH, probability=1.0).draw(10_000, generator).all()


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.8])
def test_the_share_of_drawn_views_is_the_chance_within_three_deviations(chance):
    drawn = FreqAug("t", T_HIGH, probability=chance).draw(10_000, torch.Generator().manual_seed(1))
    assert abs(drawn.sum().item() - 10_000 * chance) < 3 * (10_000 * chance * (1 - chance)) ** 0.5


def test_the_same_seed_draws_the_same_and_the_views_of_a_video_independently():
    augment = FreqAug("t", T_HIGH, probability=0.5)
    one, other = (augment.draw(5000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    generator = torch.Generator().manual_seed(4)
    pairs = torch.stack([augment.draw(2, generator) for _ in range(10_000)]).float()
    assert abs(torch.corrcoef(pairs.T)[0, 1]) < 4 / 100
    both = pairs.prod(dim=1).mean()
    assert abs(both - 0.25) < 3 * (0.25 * 0.75 / 10_000) ** 0.5


def test_at_8_frames_the_temporal_filter_takes_the_mean_of_each_pixel():
    given = clips()
    torch.testing.assert_close(filtered("t", given), given - given.mean(2, keepdim=True))


@pytest.mark.parametrize("kind", KINDS)
def test_normalising_before_or_after_differs_by_the_deviation_alone(kind):
    """HP((x - mu) / sd) = HP(x) / sd: what lets it be the last step."""
    given = clips().double()
    torch.testing.assert_close(filtered(kind, (given - 0.45) / 0.225), filtered(kind, given) / 0.225)


@pytest.mark.parametrize("kind", ["t", "s", "st", "joint"])
def test_filters_commute_with_shifts_flips_and_the_order_of_channels(kind):
    given = clips().double()
    for change in (
        lambda x: x.roll((2, 3, 5), (2, 3, 4)),
        lambda x: x.flip(4),
        lambda x: x.flip(2),
        lambda x: x[:, [2, 0, 1]],
    ):
        torch.testing.assert_close(filtered(kind, change(given)), change(filtered(kind, given)))


def test_both_filters_one_after_the_other_in_either_order_are_st():
    given = clips().double()
    found = filtered("st", given)
    torch.testing.assert_close(found, filtered("s", filtered("t", given)))
    torch.testing.assert_close(found, filtered("t", filtered("s", given)))


def test_joint_takes_out_what_is_low_in_both_and_st_what_is_low_in_either():
    given = clips().double()
    lows = FreqAug("st", low(0.1), low(0.05), probability=1.0)(given, ALL)
    torch.testing.assert_close(filtered("joint", given), given - lows)
    torch.testing.assert_close(
        filtered("st", given), given - (given - filtered("t", given)) - (given - filtered("s", given)) + lows
    )


def test_a_static_clip_has_nothing_left_in_time_and_flat_frames_nothing_in_space():
    static = clips()[:, :, :1].expand(-1, -1, 8, -1, -1)
    flat = clips()[..., :1, :1].expand(-1, -1, -1, 20, 24)
    for kind, given in (("t", static), ("diff", static), ("st", static), ("s", flat), ("st", flat)):
        assert filtered(kind, given).abs().max() < 1e-5, kind


@pytest.mark.parametrize("keep_dc", [False, True])
@pytest.mark.parametrize("renorm", [False, True])
def test_means_and_deviations_are_kept_where_that_is_asked_for(keep_dc, renorm):
    given = 3 * clips() + 5
    found = FreqAug("t", T_HIGH, keep_dc=keep_dc, renorm=renorm)(given, torch.tensor([True, False]))
    assert torch.equal(found[1], given[1])
    means = given[0].mean((1, 2, 3)) if keep_dc else torch.zeros(3)
    torch.testing.assert_close(found[0].mean((1, 2, 3)), means, atol=1e-5, rtol=1e-5)
    if renorm and not keep_dc:
        torch.testing.assert_close(found[0].std(correction=0), given[0].std(correction=0))


def test_differences_are_of_each_frame_and_the_one_before():
    given = torch.tensor([1.0, 4.0, 9.0, 16.0]).view(1, 1, 4, 1, 1)
    assert FreqAug("diff")(given, ALL[:1]).flatten().tolist() == [3, 3, 5, 7]


def test_filters_that_leave_nothing_are_refused():
    for kind in ("t", "st", "joint", "diff"):
        with pytest.raises(UserError, match="needs >= 2 frames"):
            KINDS[kind].check(1, 24)
    with pytest.raises(UserError, match="removes every frequency"):
        FreqAug("t", high(0.5)).check(7, 24)
    FreqAug("t", high(0.5)).check(8, 24)
    FreqAug("none").check(1, 24)
    for augment in KINDS.values():
        augment.check(8, 24)


def test_none_gives_the_very_clips_back():
    given = clips()
    assert FreqAug("none")(given, ALL) is given
