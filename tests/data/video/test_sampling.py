"""Which frames make a clip: closed forms, published examples, limits."""

from __future__ import annotations

import numpy as np
import pytest

from vtk_cli.data.video.reader import ReadError
from vtk_cli.data.video.records import Sampling, parse_sampling
from vtk_cli.data.video.sampling import clip_from, clips_for_test, crops_of, train_clip, train_views, window

DENSE, STRIDE, SEGMENT = (parse_sampling(text) for text in ("dense:8x8", "stride:4x3", "segment:8"))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_segments_of_41_frames_have_their_middles_at_2_7_and_so_on():
    (clip,) = clips_for_test(SEGMENT, 41, 30, 1)
    assert clip.tolist() == [2, 7, 12, 17, 22, 27, 32, 37]


def test_dense_8x8_at_30_frames_a_second_takes_every_9th_frame():
    assert clip_from(DENSE, 0, 300, 30).tolist() == [0, 9, 18, 27, 36, 45, 54, 63]


def test_a_dense_window_lasts_as_long_at_every_frame_rate():
    assert window(DENSE, 999, 30) == 64
    assert window(DENSE, 999, 60) == 128
    assert clip_from(DENSE, 0, 300, 60).tolist() == [int(127 * i / 7) for i in range(8)]


def test_stride_takes_frames_as_they_come_at_every_frame_rate():
    for fps in (8.0, 30.0, 60.0):
        assert clip_from(STRIDE, 5, 300, fps).tolist() == [5, 8, 11, 14]


@pytest.mark.parametrize("fps", [0.1, 1.0, 3.0])
def test_frames_never_go_back_however_low_the_frame_rate(fps):
    for start in (0.0, 5.0, 5.4):
        assert (np.diff(clip_from(parse_sampling("dense:8x1"), start, 20, fps)) >= 0).all()


def test_a_random_segment_clip_has_a_frame_of_each_segment_ends_included():
    drawn = np.stack([train_clip(SEGMENT, 41, 30, generator) for generator in [rng()] for _ in range(2000)])
    assert drawn.min(axis=0).tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
    assert drawn.max(axis=0).tolist() == [5, 10, 15, 20, 25, 30, 35, 40]
    counts = np.bincount(drawn[:, 0], minlength=6)
    assert np.abs(counts - 2000 / 6).max() < 4 * (2000 / 6) ** 0.5


def test_random_dense_clips_lie_within_the_video_and_reach_both_ends():
    generator = rng()
    drawn = np.stack([train_clip(DENSE, 100, 30, generator) for _ in range(2000)])
    assert (drawn[:, 0].min(), drawn[:, 0].max()) == (0, 35)
    assert drawn[:, -1].max() == 98  # the start is below 36, so the last frame is below 99
    assert (np.diff(drawn, axis=1) >= 8).all()


def test_random_stride_clips_start_at_every_place_alike():
    generator = rng()
    starts = np.array([train_clip(STRIDE, 13, 30, generator)[0] for _ in range(4000)])
    assert np.abs(np.bincount(starts, minlength=4) - 1000).max() < 120
    assert starts.max() == 3


@pytest.mark.parametrize("sampling", [DENSE, STRIDE, SEGMENT])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 9])
def test_short_videos_repeat_their_last_frame(sampling, length):
    for clip in (train_clip(sampling, length, 30, rng()), clips_for_test(sampling, length, 30, 1)[0]):
        assert len(clip) == sampling.frames
        assert clip.min() >= 0
        assert clip.max() <= length - 1
        assert (np.diff(clip) >= 0).all()
    if sampling is not SEGMENT:
        assert clips_for_test(sampling, length, 30, 1)[0][-1] == length - 1


def test_short_videos_may_start_again_or_be_refused():
    assert clip_from(STRIDE, 0, 5, 30, "loop").tolist() == [0, 3, 1, 4]
    assert clip_from(STRIDE, 0, 5, 30, "clamp").tolist() == [0, 3, 4, 4]
    with pytest.raises(ReadError, match="fewer frames than a clip"):
        clip_from(STRIDE, 0, 9, 30, "error")
    assert clip_from(STRIDE, 0, 10, 30, "error").tolist() == [0, 3, 6, 9]
    for read in (train_clip, lambda *given: clips_for_test(*given[:3], 1, short=given[4])):
        with pytest.raises(ReadError, match="fewer frames than a clip"):
            read(SEGMENT, 7, 30, rng(), "error")
        read(SEGMENT, 8, 30, rng(), "error")


def test_ten_clips_of_a_test_start_at_tenths_of_what_is_left():
    clips = clips_for_test(DENSE, 264, 30, 10)
    assert [clip[0] for clip in clips] == list(range(0, 200, 20))
    clips = clips_for_test(DENSE, 264, 30, 5, offset="even")
    assert [clip[0] for clip in clips] == [0, 50, 100, 150, 200]
    assert clips[-1][-1] == 263
    assert clips_for_test(DENSE, 264, 30, 1, offset="even")[0][0] == 100


def test_several_clips_of_segments_are_spread_over_each_segment():
    clips = clips_for_test(Sampling("segment", 4, 0), 41, 30, 2)
    assert [clip.tolist() for clip in clips] == [[2, 12, 22, 32], [7, 17, 27, 37]]


def test_views_start_independently_of_one_another():
    generator = rng()
    starts = np.array([[view[0] for view in train_views(DENSE, 364, 30, generator, views=2)] for _ in range(2000)])
    assert abs(np.corrcoef(starts.T)[0, 1]) < 4 / 2000**0.5
    assert abs(starts.mean() - 150) < 5


def test_views_keep_the_gap_that_is_asked_for():
    for seed in range(200):
        views = train_views(STRIDE, 300, 10, rng(seed), views=3, gap=(2.0, 5.0))
        starts = np.array([view[0] for view in views])
        gaps = np.abs(np.diff(starts))
        assert (gaps >= 19).all()  # 20 frames, less the rounding down of each start
        assert (gaps <= 51).all()
        assert starts.min() >= 0
        assert starts.max() + 9 < 300


def test_where_the_video_is_too_short_for_the_gap_views_lie_at_its_ends():
    for seed in range(50):
        views = train_views(STRIDE, 30, 10, rng(seed), views=2, gap=(60.0, float("inf")))
        assert views[1][0] in {0, 20}
        assert abs(int(views[1][0]) - int(views[0][0])) >= 9


def test_the_same_generator_gives_the_same_clips():
    for sampling in (DENSE, STRIDE, SEGMENT):
        one, other = (train_views(sampling, 500, 25, rng(7), views=3) for _ in range(2))
        assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_crops_lie_in_the_middle_and_at_the_ends_of_the_longer_side():
    assert list(crops_of((256, 340), 256, 3)) == [(0, 0), (0, 42), (0, 84)]
    assert list(crops_of((340, 256), 256, 3)) == [(0, 0), (42, 0), (84, 0)]
    assert list(crops_of((256, 340), 224, 1)) == [(16, 58)]
    assert list(crops_of((256, 340), 224, 3)) == [(16, 0), (16, 58), (16, 116)]
