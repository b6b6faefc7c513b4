"""The frequency filter against its definition, and the properties of an ideal filter."""

import itertools
import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtk_kernels.frequency import PassBand, band, frequency_filter, high, low
from vtk_kernels.frequency.bands import Filter
from vtk_kernels.frequency.lowrank import low_rank

ERROR = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-6, torch.float16: 2**-9}
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
quick = settings(
    max_examples=15 if INTERPRETED else 200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
percent = st.integers(1, 50).map(lambda hundredths: Fraction(hundredths, 100))
ends = st.one_of(
    percent.map(lambda f: (f, Fraction(1))),
    percent.map(lambda f: (Fraction(0), f)),
    st.tuples(percent, percent).filter(lambda pair: pair[0] < pair[1]),
)


SIZES = (1, 1, 8, 3, 5) if INTERPRETED else (1, 2, 8, 7, 9)


def pass_band(pair):
    return None if pair is None else PassBand(float(pair[0]), float(pair[1]))


def kind(pair):
    return pair[0] > 0, pair[1] < 1


def noise(*size, dtype=torch.float64, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(ours, expected, dtype=None):
    assert ours.shape == expected.shape
    error = ERROR[dtype or ours.dtype]
    torch.testing.assert_close(ours.double(), expected.double(), rtol=error, atol=error)


@quick
@given(
    sizes=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 12), st.integers(1, 9), st.integers(1, 40)),
    time=st.none() | ends,
    space=st.none() | ends,
    shape=st.sampled_from(["box", "radial"]),
    joint=st.booleans(),
    dtype=st.sampled_from(sorted(ERROR, key=str)),
    some=st.none() | st.lists(st.booleans(), min_size=2, max_size=2),
    turned=st.booleans(),
)
def test_it_is_the_transform_masked_and_transformed_back(
    backend, by_definition, sizes, time, space, shape, joint, dtype, some, turned
):
    if time is None and space is None:
        return
    joint = joint and time is not None and space is not None and kind(time) == kind(space)
    clip = noise(*sizes, dtype=dtype)
    if turned:  # not contiguous
        clip = clip.mT.contiguous().mT[::1, :, :, :, :]
    apply = None if some is None else torch.tensor(some[: sizes[0]], dtype=torch.bool)
    arguments = {"shape": shape, "joint": joint, "apply": apply}
    passes = Filter(pass_band(time), pass_band(space), shape, joint).passes(*sizes[2:])
    if not passes.any():
        with pytest.raises(ValueError, match=r"removes? every frequency|needs at least 2 frames"):
            frequency_filter(clip, pass_band(time), pass_band(space), **arguments)
        return
    filtered = frequency_filter(clip, pass_band(time), pass_band(space), **arguments)
    assert filtered.dtype == dtype
    assert filtered.is_contiguous()
    expected = by_definition(clip.double(), time, space, shape, joint)
    chosen = torch.ones(sizes[0], dtype=torch.bool) if apply is None else apply
    close(filtered[chosen], expected[chosen])
    assert torch.equal(filtered[~chosen], clip[~chosen])


WAYS = [
    *itertools.product([high(0.1), low(0.2), band(0.1, 0.4)], [None], ["box"], [False]),
    *itertools.product([None], [high(0.1), low(0.2), band(0.1, 0.4)], ["box", "radial"], [False]),
    *itertools.product([high(0.1), low(0.3)], [high(0.2), low(0.3), band(0.1, 0.4)], ["box"], [False]),
    (high(0.2), high(0.2), "box", True),
    (low(0.3), low(0.3), "radial", True),
    (band(0.1, 0.4), band(0.2, 0.5), "box", True),
]
"""Every path of the kernels: time, space, both, joint; kept and taken out; box and disc."""


@pytest.fixture(params=range(len(WAYS)))
def way(request, few):
    if request.param not in few(range(len(WAYS))):
        pytest.skip("the interpreter runs some")
    time, space, shape, joint = WAYS[request.param]
    return lambda clip, **more: frequency_filter(clip, time, space, shape=shape, joint=joint, **more)


def test_filtering_twice_is_filtering_once(backend, way):
    once = way(noise(*SIZES))
    close(way(once), once)


def test_it_is_its_own_adjoint(backend, way):
    x, y = noise(*SIZES), noise(*SIZES, seed=1)
    assert torch.allclose((y * way(x)).sum(), (way(y) * x).sum(), rtol=0, atol=1e-11)


def test_it_is_linear_and_energy_never_grows(backend, way):
    x, y = noise(*SIZES), noise(*SIZES, seed=1)
    close(way(2 * x - 3 * y), 2 * way(x) - 3 * way(y))
    kept = way(x)
    # Parseval: what stays and what goes are orthogonal.
    close(kept.square().sum() + (x - kept).square().sum(), x.square().sum())


def test_it_commutes_with_shifts_and_mirrors_and_does_not_mix_channels_or_clips(backend, way):
    x = noise(2, *SIZES[1:])
    filtered = way(x)
    for dim in (2, 3, 4):
        close(way(x.roll(2, dim)), filtered.roll(2, dim))
        close(way(x.flip(dim)), filtered.flip(dim))
    assert torch.equal(way(x.flip(0, 1)), filtered.flip(0, 1))


@pytest.mark.parametrize("sizes", [(8, 3, 4)] if INTERPRETED else [(8, 6, 7), (7, 9, 10)])
@pytest.mark.parametrize("f", [0.1, 0.25, 0.4])
def test_low_and_high_add_up_to_the_clip(backend, sizes, f):
    x = noise(1, 1, *sizes)
    close(frequency_filter(x, low(f)) + frequency_filter(x, high(f)), x)
    for shape in ("box", "radial"):
        close(frequency_filter(x, None, low(f), shape=shape) + frequency_filter(x, None, high(f), shape=shape), x)
    both = frequency_filter(x, low(f), low(f))
    close(both + frequency_filter(x, high(f), high(f), joint=True), x)


def test_a_band_is_the_difference_of_two_lows(backend):
    x = noise(1, 1, 9, 5, 6)
    close(frequency_filter(x, band(0.15, 0.4)), frequency_filter(x, low(0.4)) - frequency_filter(x, low(0.15)))
    lows = [frequency_filter(x, None, low(f)) for f in (0.15, 0.4)]
    close(frequency_filter(x, None, band(0.15, 0.4)), lows[1] - lows[0])
    lows = [frequency_filter(x, low(f), low(f), joint=True) for f in (0.15, 0.4)]
    close(frequency_filter(x, band(0.15, 0.4), band(0.15, 0.4), joint=True), lows[1] - lows[0])


def test_both_is_one_after_the_other_in_either_order(backend):
    x = noise(*SIZES)
    both = frequency_filter(x, high(0.15), high(0.2))
    close(both, frequency_filter(frequency_filter(x, high(0.15)), None, high(0.2)))
    close(both, frequency_filter(frequency_filter(x, None, high(0.2)), high(0.15)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_what_does_not_change_is_removed_and_a_constant_shift_with_it(backend, dtype):
    frame, constant = noise(1, 3, 1, 7, 9, dtype=dtype), noise(1, 3, 8, 1, 1, dtype=dtype)
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-6}[dtype]
    assert frequency_filter(frame.expand(1, 3, 8, 7, 9), high(0.1)).abs().max() < tolerance
    assert frequency_filter(constant.expand(1, 3, 8, 7, 9), None, high(0.1)).abs().max() < tolerance
    x = noise(1, 3, 8, 7, 9, dtype=dtype)
    close(frequency_filter((x - 0.45) / 0.225, high(0.1)), frequency_filter(x, high(0.1)) / 0.225)


def test_a_joint_high_pass_keeps_what_moves_or_what_is_sharp(backend):
    clip = noise(1, 1, 8, 6, 6)
    moving, sharp = clip - clip.mean(2, keepdim=True), clip - clip.mean((3, 4), keepdim=True)
    filtered = {joint: frequency_filter(clip, high(0.1), high(0.1), joint=joint) for joint in (False, True)}
    close(filtered[True], clip - clip.mean((2, 3, 4), keepdim=True))
    close(filtered[False], moving + sharp - filtered[True])


def test_a_moving_grating_above_the_cut_passes_and_one_below_is_removed(backend):
    t, w = torch.arange(16, dtype=torch.float64)[:, None, None], torch.arange(12, dtype=torch.float64)
    for k, passes in [(1, False), (2, True), (3, True), (8, True)]:
        grating = torch.cos(2 * np.pi * (k * t / 16 + 3 * w / 12)).expand(1, 1, 16, 5, 12)
        close(frequency_filter(grating, high(0.1)), grating * passes)
    grating = torch.cos(2 * np.pi * (2 * t / 16 + 3 * w / 12)).expand(1, 1, 16, 5, 12)
    for f, passes in [(0.2, True), (0.25, True), (0.3, False)]:  # 3 / 12 is a quarter
        close(frequency_filter(grating, None, high(f)), grating * passes)


def test_the_alternating_mode_is_all_that_a_high_pass_at_one_half_keeps(backend):
    x = noise(1, 1, 8, 3, 3)
    alternating = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)[:, None, None]
    kept = frequency_filter(x, high(0.5))
    close(kept, (x * alternating).mean(2, keepdim=True) * alternating)


def test_white_noise_loses_the_share_of_the_modes_removed(backend):
    sizes = (4, 1, 16, 8, 8) if backend == "triton" else (64, 1, 16, 20, 20)
    x = noise(*sizes)
    share = frequency_filter(x, high(0.1)).square().sum() / x.square().sum()
    assert abs(share - 13 / 16) < 4 * (2 * 13 / 16 * 3 / 16 / x.numel()) ** 0.5


def test_nan_and_infinity_stay_in_their_pixel_under_time_and_in_their_frame_under_space(backend):
    for bad in (float("nan"), float("inf")):
        x = noise(2, 2, 4, 5, 33, dtype=torch.float32)
        x[0, 1, 2, 3, 32] = bad
        by_time = frequency_filter(x, high(0.1)).isfinite()
        assert not by_time[0, 1, :, 3, 32].any()
        assert by_time.sum() == x.numel() - 4
        by_space = frequency_filter(x, None, high(0.1)).isfinite()
        assert not by_space[0, 1, 2].all()
        assert (~by_space).nonzero()[:, :3].unique(dim=0).tolist() == [[0, 1, 2]]


def test_clips_that_are_not_chosen_keep_their_bits(backend, way):
    x = noise(3, *SIZES[1:], dtype=torch.float32)
    x[0, 0, 0, 0, 0], x[0, 0, 2, 1, 4], x[2, 0, 0, 0, 0] = float("nan"), -0.0, 1e-42
    kept = way(x, apply=torch.tensor([False, True, False]))
    assert torch.equal(kept[::2].view(torch.int32), x[::2].view(torch.int32))
    close(kept[1], way(x[1:2])[0])


def test_one_frame_one_row_and_one_column(backend, by_definition):
    for sizes in [(1, 5, 6), (4, 1, 6), (4, 5, 1), (4, 1, 1)]:
        x = noise(1, 2, *sizes)
        if sizes[0] > 1:
            close(frequency_filter(x, high(0.1)), by_definition(x, (Fraction(1, 10), 1)))
        if sizes[1:] != (1, 1):
            close(frequency_filter(x, None, high(0.1)), by_definition(x, None, (Fraction(1, 10), 1)))


@pytest.mark.parametrize("sizes", [(1, 3, 6, 9, 11), (2, 1, 3, 4, 64), (1, 1, 5, 16, 31), (1, 1, 2, 3, 257)])
def test_widths_around_the_vectors_and_blocks_of_the_kernels(backend, by_definition, sizes):
    x, f = noise(*sizes, dtype=torch.float32), Fraction(1, 5)
    close(frequency_filter(x, high(0.2)), by_definition(x, (f, 1)))
    close(frequency_filter(x, None, high(0.2)), by_definition(x, None, (f, 1)))
    close(frequency_filter(x, high(0.2), high(0.2)), by_definition(x, (f, 1), (f, 1)))


def _by_numpy(clip, dims, stays):
    return torch.from_numpy(np.fft.ifftn(np.fft.fftn(clip, axes=dims) * stays, axes=dims).real)


@pytest.mark.parametrize("frames", [2, 5, 32, 64, 100, 128, 129])
def test_any_number_of_frames(backend, frames):
    if backend == "triton" and frames > 32:
        pytest.skip("as the others, slowly")
    x = noise(1, 1, frames, 3, 5, dtype=torch.float32)
    k = np.minimum(np.arange(frames), frames - np.arange(frames))[:, None, None]
    close(frequency_filter(x, high(0.25)), _by_numpy(x, (2,), 4 * k >= frames))
    close(frequency_filter(x, low(0.25)), _by_numpy(x, (2,), 4 * k < frames))


def test_a_filter_of_high_rank_goes_through_the_transform_and_is_the_same(backend):
    assert low_rank(Filter(None, high(0.3), "box", False), (2, 80, 80), torch.device("cpu"), torch.float32) is None
    x = noise(1, 1, 2, 80, 80, dtype=torch.float32)
    k = np.minimum(np.arange(80), 80 - np.arange(80))
    inside = np.logical_and.outer(k < 24, k < 24)
    close(frequency_filter(x, None, high(0.3)), _by_numpy(x, (3, 4), ~inside))
    chosen = frequency_filter(x.expand(2, -1, -1, -1, -1), None, high(0.3), apply=torch.tensor([False, True]))
    assert torch.equal(chosen[0], x[0])


@pytest.mark.parametrize("space", [None, high(0.01)])
@pytest.mark.parametrize("time", [None, high(0.1)])
def test_a_result_too_large_for_the_caches(backend, time, space):
    """Large results are written past the caches, at addresses that may or may not suit."""
    if backend != "cpu" or (time is None and space is None):
        pytest.skip("only the C++ kernel does so")
    for width in (112, 110):
        x = noise(2, 3, 16, 112, width, dtype=torch.float32) + 1
        expected = torch.from_numpy(_in_numpy(x.numpy(), time is not None, space is not None))
        close(frequency_filter(x, time, space), expected)


def _in_numpy(clip, time, space):
    if time:
        k = np.minimum(np.arange(16), 16 - np.arange(16))[:, None, None]
        clip = np.fft.ifft(np.fft.fft(clip, axis=2) * (k >= 2), axis=2).real
    if space:
        masks = [np.minimum(np.arange(size), size - np.arange(size)) / size < 0.01 for size in clip.shape[3:]]
        clip = np.fft.ifft2(np.fft.fft2(clip) * ~np.logical_and.outer(*masks)).real
    return clip
