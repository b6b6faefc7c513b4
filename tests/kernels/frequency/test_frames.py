"""Decoded bytes, normalised and filtered in one pass, against normalising first."""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vtk_kernels.frequency import band, frequency_filter, frequency_filter_frames, high, low

HALF = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
FILTERS = [
    {"time": high(0.2)},
    {"space": high(0.2)},
    {"space": low(0.3), "shape": "radial"},
    {"time": high(0.2), "space": band(0.1, 0.4)},
    {"time": high(0.2), "space": high(0.2), "joint": True},
]


def random_frames(*sizes, seed=0):
    return torch.randint(0, 256, sizes, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def normalized(frames, mean, std):
    clip = frames.permute(0, 4, 1, 2, 3).double() / 255
    mean, std = (torch.tensor(each, dtype=torch.float64).reshape(-1, 1, 1, 1) for each in (mean, std))
    return (clip - mean) / std


def statistics(channels):
    return [0.4 + 0.05 * channel for channel in range(channels)], [0.2 + 0.03 * channel for channel in range(channels)]


def close(ours, expected):
    error = HALF[ours.dtype]
    torch.testing.assert_close(ours.double(), expected, rtol=error, atol=4 * error)


@settings(
    max_examples=10 if os.environ.get("TRITON_INTERPRET") == "1" else 40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(
    sizes=st.tuples(st.integers(0, 5), st.integers(4, 9), st.integers(5, 8), st.integers(5, 40), st.integers(1, 4)),
    wanted=st.sampled_from(FILTERS),
    dtype=st.sampled_from(sorted(HALF, key=str)),
    data=st.data(),
)
def test_it_is_normalising_first_and_filtering_then(backend, sizes, wanted, dtype, data):
    if backend == "triton":
        sizes = (min(sizes[0], 1), *sizes[1:3], 6, min(sizes[4], 3))
    frames, (mean, std) = random_frames(*sizes), statistics(sizes[4])
    apply = torch.tensor(data.draw(st.lists(st.booleans(), min_size=sizes[0], max_size=sizes[0])), dtype=torch.bool)
    ours = frequency_filter_frames(frames, mean=mean, std=std, dtype=dtype, apply=apply, **wanted)
    assert ours.dtype == dtype
    assert ours.is_contiguous()
    close(ours, frequency_filter(normalized(frames, mean, std), apply=apply, **wanted))


@pytest.mark.parametrize("wanted", FILTERS)
@pytest.mark.parametrize("sizes", [(2, 16, 112, 112, 3), (1, 16, 120, 110, 3), (9, 4, 64, 64, 1)])
def test_clips_large_enough_for_threads_and_for_writing_past_the_caches(backend, wanted, sizes):
    if backend == "triton":
        pytest.skip("large")
    frames, (mean, std) = random_frames(*sizes), statistics(sizes[4])
    ours = frequency_filter_frames(frames, mean=mean, std=std, **wanted)
    close(ours, frequency_filter(normalized(frames, mean, std), **wanted))


def test_frames_that_are_a_view_of_a_larger_video(backend):
    video = random_frames(1, 12, 9, 10, 3)
    mean, std = statistics(3)
    view = video[:, ::2, 1:8, 2:, :]
    ours = frequency_filter_frames(view, high(0.2), mean=mean, std=std)
    assert torch.equal(ours, frequency_filter_frames(view.contiguous(), high(0.2), mean=mean, std=std))


def test_a_static_video_becomes_zero_and_its_mean_does_not_matter(backend):
    frames = random_frames(1, 1, 5, 6, 3).expand(1, 6, 5, 6, 3)
    still = frequency_filter_frames(frames, high(0.1), mean=[0.1, 0.2, 0.3], std=[0.2] * 3)
    assert still.abs().max() < 5e-6
    moving = random_frames(1, 6, 5, 6, 3)
    one, other = (frequency_filter_frames(moving, high(0.1), mean=mean, std=[0.2] * 3) for mean in ([0] * 3, [1] * 3))
    torch.testing.assert_close(one, other, rtol=0, atol=5e-6)


def test_a_filter_of_high_rank_goes_through_the_transform(backend):
    frames, (mean, std) = random_frames(1, 2, 80, 80, 3), statistics(3)
    close(
        frequency_filter_frames(frames, space=high(0.3), mean=mean, std=std),
        frequency_filter(normalized(frames, mean, std), space=high(0.3)),
    )


def test_it_is_an_operator_of_torch_and_compiles_as_one_graph(backend):
    frames, (mean, std) = random_frames(2, 4, 5, 6, 3), statistics(3)
    apply = torch.tensor([True, False])
    arguments = (frames, mean, std, [0.1, 1.0], [], "box", False, apply, torch.bfloat16)
    torch.library.opcheck(torch.ops.vtk_kernels.frequency_filter_frames.default, arguments)

    def run(frames, apply):
        return frequency_filter_frames(frames, high(0.1), high(0.2), mean=mean, std=std, apply=apply) * 2

    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(frames, apply), run(frames, apply))


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("frames", {"frames": torch.zeros(2, 4, 5, 6, dtype=torch.uint8)}),
        ("frames", {"frames": torch.zeros(2, 4, 5, 6, 3)}),
        ("frames", {"frames": torch.zeros(2, 0, 5, 6, 3, dtype=torch.uint8)}),
        ("mean", {"mean": [0.5]}),
        ("std", {"std": [0.2] * 4}),
        ("std", {"std": [0.2, 0.0, 0.2]}),
        ("std", {"std": [0.2, float("nan"), 0.2]}),
        ("dtype", {"dtype": torch.float64}),
        ("dtype", {"dtype": torch.uint8}),
        ("time", {"time": 0.1}),
        ("apply", {"apply": torch.zeros(3, dtype=torch.bool)}),
        ("apply", {"apply": torch.zeros(2)}),
    ],
)
def test_a_wrong_argument_is_named(backend, argument, change):
    right = {
        "frames": torch.zeros(2, 4, 5, 6, 3, dtype=torch.uint8),
        "time": high(0.1),
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
    }
    with pytest.raises(ValueError, match=f"^{argument}: expected .*, got"):
        frequency_filter_frames(**{**right, **change})
